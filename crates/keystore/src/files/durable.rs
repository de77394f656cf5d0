//! Writing files that survive a power cut, replacing files without a loss, and knowing what a rename has done.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
use serde::Serialize;

use crate::error::{Error, Result};
use crate::files::FileId;
use crate::layout::FILE_MODE;

/// Writes the new file `path`, which only its owner can access. Does not sync it to the disk.
pub fn write_new(path: &Path, content: &[u8]) -> Result<()> {
    let file = OpenOptions::new().write(true).create_new(true).mode(FILE_MODE).open(path);
    file.and_then(|mut file| file.write_all(content)).map_err(Error::at("writing", path))
}

/// Renames the finished file `fresh` over `target`, durably.
pub fn replace(fresh: &Path, target: &Path) -> Result<()> {
    sync(fresh)?;
    rename(fresh, target).map_err(Error::at("writing", target))?;
    sync_parent(target)
}

/// Puts `value` at `path` as one line of JSON, durably. It is written to `fresh` first, which must not exist.
pub fn replace_json(value: &impl Serialize, fresh: &Path, path: &Path) -> Result<()> {
    let mut text =
        serde_json::to_vec(value).map_err(|e| Error::at("writing", path)(io::Error::from(e)))?;
    text.push(b'\n');
    write_new(fresh, &text)?;
    replace(fresh, path)
}

/// Syncs the directory that contains `path` to the disk.
pub fn sync_parent(path: &Path) -> Result<()> {
    sync(path.parent().unwrap_or(path))
}

/// Syncs a file or directory to the disk.
pub fn sync(path: &Path) -> Result<()> {
    // Do not block on a named pipe.
    let opened = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path);
    opened
        .and_then(|file| file.sync_all())
        .map_err(|e| Error::io(format!("writing {} through to the disk", path.display()), e))
}

/// Syncs a directory and every file and directory below it to the disk.
pub fn sync_tree(directory: &Path) -> Result<()> {
    let reading = |e| Error::io(format!("reading {}", directory.display()), e);
    for entry in fs::read_dir(directory).map_err(reading)? {
        let entry = entry.map_err(reading)?;
        match entry.file_type().map_err(reading)? {
            kind if kind.is_dir() => sync_tree(&entry.path())?,
            kind if kind.is_file() => sync(&entry.path())?,
            _ => {}
        }
    }
    sync(directory)
}

/// Puts `fresh` in the place of `target` in one step, and returns whether it did. A file at `target` is
/// removed only if `may_go` agrees. `may_go` is asked again about a file that appeared there at the last
/// moment. Afterwards `fresh` is gone, unless it holds a file that could not be put back.
pub fn exchange(fresh: &Path, target: &Path, may_go: impl Fn(&Path) -> bool) -> io::Result<bool> {
    let by = |flags| renameat2(AT_FDCWD, fresh, AT_FDCWD, target, flags);
    let ours = identity(fresh)?;
    let replaced = match by(RenameFlags::RENAME_NOREPLACE) {
        Ok(()) => return Ok(true),
        Err(Errno::EEXIST) if !may_go(target) => Ok(false),
        Err(Errno::EEXIST) => match by(RenameFlags::RENAME_EXCHANGE) {
            Ok(()) if may_go(fresh) => Ok(true),
            Ok(()) => match by(RenameFlags::RENAME_EXCHANGE) {
                // Another process has removed our file meanwhile, so the other file can simply be renamed back.
                Err(Errno::ENOENT) => by(RenameFlags::RENAME_NOREPLACE).map(|()| false),
                put_back => put_back.map(|()| false),
            },
            Err(Errno::ENOENT) => by(RenameFlags::RENAME_NOREPLACE).map(|()| true),
            Err(errno) => Err(errno),
        },
        Err(errno) => Err(errno),
    };
    let replaced = match replaced {
        // Network file systems support neither kind of rename. A plain rename leaves a moment for a race.
        Err(Errno::EINVAL | Errno::ENOSYS | Errno::EOPNOTSUPP) if !may_go(target) => Ok(false),
        Err(Errno::EINVAL | Errno::ENOSYS | Errno::EOPNOTSUPP) => {
            return rename(fresh, target).map(|()| true);
        }
        replaced => replaced,
    };
    // Remove the file that was replaced, or our own file if it was not wanted. Keep any other file that could
    // not be put back.
    if replaced == Ok(true) || identity(fresh).is_ok_and(|found| found == ours) {
        let _ = fs::remove_file(fresh);
    }
    Ok(replaced?)
}

/// How often a rename is tried again after an error that leaves open what happened.
const TRIES: usize = 3;

/// Renames `from` to `to`. On a network file system the reply may get lost, or may belong to an earlier try.
/// So an error alone does not tell what happened: the two names do.
pub fn rename(from: &Path, to: &Path) -> io::Result<()> {
    rename_by(from, to, || fs::rename(from, to))
}

/// Renames `from` to `to` as [`rename`] does, with `act` as the system call.
pub fn rename_by(from: &Path, to: &Path, act: impl Fn() -> io::Result<()>) -> io::Result<()> {
    let moved = identity(from)?;
    let mut tries = 0;
    loop {
        let Err(error) = act() else { return Ok(()) };
        let source = identity(from);
        if source.as_ref().is_err_and(is_gone) && identity(to).is_ok_and(|at| at == moved) {
            return Ok(());
        }
        if !is_uncertain(&error) {
            return Err(error);
        }
        if tries == TRIES || source.is_err() {
            // The directory of another process is at `to`, whatever the error says.
            return Err(if is_occupied(to) { Errno::ENOTEMPTY.into() } else { error });
        }
        tries += 1;
    }
}

/// Whether a rename failed because its target exists: a directory that is not empty has the name.
pub fn is_taken(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOTEMPTY | libc::EEXIST))
}

fn identity(path: &Path) -> io::Result<FileId> {
    fs::symlink_metadata(path).map(|found| FileId::from(&found))
}

/// Whether an error is about the connection to the file system, or about a name that has changed there, and
/// not about the request itself.
fn is_uncertain(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::ESTALE | libc::EIO | libc::ETIMEDOUT | libc::EREMOTEIO)
    )
}

/// Whether an error says that a name no longer exists. An NFS client may say that with ESTALE.
fn is_gone(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ESTALE))
}

/// Whether `path` is a directory with entries, so that no directory can be renamed to it.
fn is_occupied(path: &Path) -> bool {
    fs::read_dir(path).is_ok_and(|mut entries| entries.next().is_some())
}
