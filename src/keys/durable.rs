//! Making what was written survive a power cut, and putting it in place without a loss.

use std::fs::{self, File};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};

use crate::error::{Error, Result};

/// Writes a file or directory through to the disk.
pub fn sync(path: &Path) -> Result<()> {
    File::open(path)
        .and_then(|file| file.sync_all())
        .map_err(|e| Error::io(format!("writing {} through to the disk", path.display()), e))
}

/// Writes a directory and all below it through to the disk.
pub fn sync_tree(directory: &Path) -> Result<()> {
    let reading = |e| Error::io(format!("reading {}", directory.display()), e);
    for entry in fs::read_dir(directory).map_err(reading)? {
        let entry = entry.map_err(reading)?;
        if entry.file_type().map_err(reading)?.is_dir() {
            sync_tree(&entry.path())?;
        } else {
            sync(&entry.path())?;
        }
    }
    sync(directory)
}

/// Puts `fresh` in the place of `target` in one step; `fresh` is gone afterwards. What stands there goes only
/// when `may_go` says so, of what came there at the last moment too; `false` when it stays.
pub fn exchange(
    fresh: &Path,
    target: &Path,
    may_go: impl Fn(&Path) -> bool,
) -> std::io::Result<bool> {
    let rename = |flags| renameat2(AT_FDCWD, fresh, AT_FDCWD, target, flags);
    let replaced = match rename(RenameFlags::RENAME_NOREPLACE) {
        Ok(()) => return Ok(true),
        Err(Errno::EEXIST) if !may_go(target) => Ok(false),
        Err(Errno::EEXIST) => match rename(RenameFlags::RENAME_EXCHANGE) {
            Ok(()) if may_go(fresh) => Ok(true),
            Ok(()) => rename(RenameFlags::RENAME_EXCHANGE).map(|()| false),
            Err(Errno::ENOENT) => rename(RenameFlags::RENAME_NOREPLACE).map(|()| true),
            Err(errno) => Err(errno),
        },
        Err(errno) => Err(errno),
    };
    let replaced = match replaced {
        // File systems of other hosts know neither; nobody else writes there at the same moment.
        Err(Errno::EINVAL | Errno::ENOSYS | Errno::EOPNOTSUPP) if !may_go(target) => Ok(false),
        Err(Errno::EINVAL | Errno::ENOSYS | Errno::EOPNOTSUPP) => {
            return fs::rename(fresh, target).map(|()| true);
        }
        replaced => replaced,
    };
    // What it holds is what had to go, or what was not wanted.
    let _ = fs::remove_file(fresh);
    Ok(replaced?)
}
