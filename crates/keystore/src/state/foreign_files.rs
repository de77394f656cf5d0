//! Gives files in the state back to the state's owner, and takes away the permissions of others. Never
//! follows a symbolic link, and never touches a file with another name elsewhere. A user who can write in the
//! state must not be able to lead root out of it.

use std::ffi::{CStr, OsStr};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nix::dir::{Dir, Type};
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags, OFlag, openat};
use nix::sys::stat::{FchmodatFlags, FileStat, Mode, SFlag, fchmodat, fstat, fstatat};
use nix::unistd::{Gid, Uid, fchownat};

use crate::error::{Error, Result};
use crate::state::directory::is_volume;

/// How deep the walk goes: deeper than anything in the state.
pub(crate) const DEPTH_MAX: usize = 8;

/// The user who is to own everything in the state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    /// The user's uid.
    pub uid: Uid,
    /// The user's gid.
    pub gid: Gid,
    /// The name of the user, or the uid if there is no name.
    pub name: String,
}

/// A file or directory that belonged to somebody else.
#[derive(Debug)]
pub struct ForeignFile {
    /// The path.
    pub path: PathBuf,
    /// The uid of the previous owner.
    pub uid: u32,
    /// Whether it was given back.
    pub given_back: Result<()>,
}

/// Gives the state directory `root` and everything below it to `owner`. Returns what belonged to somebody
/// else. Symbolic links do not count, because their owner means nothing. A volume keeps its owner.
pub fn give_back(root: &Path, owner: &Owner) -> Result<Vec<ForeignFile>> {
    let failed = Error::at("reading", root);
    // A symbolic link may lead to the state directory, but nothing in it may be reached through one.
    let root_path = fs::canonicalize(root).map_err(Error::at("looking for", root))?;
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let directory = Dir::open(&root_path, flags, Mode::empty()).map_err(failed)?;
    let found = fstat(&directory).map_err(failed)?;
    let mut walk = Walk { owner, device: found.st_dev, foreign: Vec::new() };
    // Others may have a part in a volume.
    let is_volume = fs::metadata(&root_path).is_ok_and(|found| is_volume(&found));
    if found.st_uid != owner.uid.as_raw() && !is_volume {
        let given_back = walk.give_back(&directory, c"", &root_path);
        walk.foreign.push(ForeignFile { path: root.into(), uid: found.st_uid, given_back });
    }
    walk.visit(directory, root, 0)?;
    Ok(walk.foreign)
}

struct Walk<'a> {
    owner: &'a Owner,
    device: libc::dev_t,
    foreign: Vec<ForeignFile>,
}

impl Walk<'_> {
    fn visit(&mut self, mut directory: Dir, path: &Path, depth: usize) -> Result<()> {
        let failed = |path: &Path, e: Errno| Error::at("reading", path)(e);
        let entries: nix::Result<Vec<_>> = directory.iter().collect();
        let names: Vec<_> = entries
            .map_err(|e| failed(path, e))?
            .iter()
            .filter(|entry| entry.file_type() != Some(Type::Symlink))
            .map(|entry| entry.file_name().to_owned())
            .filter(|name| !matches!(name.to_bytes(), b"." | b".."))
            // `lost+found` belongs to the file system, if the state has one of its own.
            .filter(|name| depth > 0 || name.to_bytes() != b"lost+found")
            .collect();
        for name in names {
            let path = path.join(OsStr::from_bytes(name.to_bytes()));
            let found = match fstatat(&directory, &*name, AtFlags::AT_SYMLINK_NOFOLLOW) {
                Err(Errno::ENOENT) => continue, // gone since the directory was read
                found => found.map_err(|e| failed(&path, e))?,
            };
            if is(&found, SFlag::S_IFLNK) {
                continue;
            }
            if found.st_uid != self.owner.uid.as_raw() {
                let given_back = self.give_back(&directory, &name, &path);
                self.foreign.push(ForeignFile {
                    path: path.clone(),
                    uid: found.st_uid,
                    given_back,
                });
            }
            if !is(&found, SFlag::S_IFDIR) || found.st_dev != self.device || depth == DEPTH_MAX {
                continue;
            }
            let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
            match Dir::openat(&directory, &*name, flags, Mode::empty()) {
                Ok(below) => self.visit(below, &path, depth + 1)?,
                // It is gone, or something else is there by now.
                Err(Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP) => {}
                Err(e) => return Err(failed(&path, e)),
            }
        }
        Ok(())
    }

    /// Gives the entry `name` of `directory` to the owner. An empty name means the directory itself.
    fn give_back(&self, directory: &Dir, name: &CStr, path: &Path) -> Result<()> {
        let failed = |e: nix::errno::Errno| {
            Error::io(format!("giving {} to {}", path.display(), self.owner.name), e.into())
        };
        // The open file is both checked and given away, whatever is renamed meanwhile.
        let name = if name.is_empty() { c"." } else { name };
        let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let file = openat(directory, name, flags, Mode::empty()).map_err(failed)?;
        let found = fstat(&file).map_err(failed)?;
        if is(&found, SFlag::S_IFLNK) || (!is(&found, SFlag::S_IFDIR) && found.st_nlink > 1) {
            return Err(Error::io(
                format!("giving {} to {}", path.display(), self.owner.name),
                std::io::Error::other("it has other names elsewhere, look at it"),
            ));
        }
        let (uid, gid) = (Some(self.owner.uid), Some(self.owner.gid));
        fchownat(&file, c"", uid, gid, AtFlags::AT_EMPTY_PATH).map_err(failed)
    }
}

fn is(found: &FileStat, kind: SFlag) -> bool {
    SFlag::from_bits_truncate(found.st_mode) & SFlag::S_IFMT == kind
}

/// Sets the mode of a file or directory that this user owns. Fails on a symbolic link.
pub fn set_mode(path: &Path, mode: u32) -> Result<()> {
    fchmodat(AT_FDCWD, path, Mode::from_bits_truncate(mode), FchmodatFlags::NoFollowSymlink)
        .map_err(Error::at("setting the mode of", path))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scratch::scratch;
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

    #[test]
    fn links_and_files_with_other_names_are_never_touched() -> Result<()> {
        let io = |e| Error::io("preparing", e);
        let root = scratch();
        let (state, outside) = (root.path().join("state"), root.path().join("outside"));
        fs::create_dir_all(state.join("keys")).map_err(io)?;
        for path in [&outside, &state.join("keys/own")] {
            fs::write(path, "precious").map_err(io)?;
            fs::set_permissions(path, fs::Permissions::from_mode(0o644)).map_err(io)?;
        }
        symlink(&outside, state.join("keys/link")).map_err(io)?;
        fs::hard_link(&outside, state.join("keys/name")).map_err(io)?;
        let me = nix::unistd::geteuid();
        // Everything belongs to somebody else, as another user sees it.
        let other = if me.is_root() { Uid::from_raw(65534) } else { Uid::from_raw(0) };
        let owner = Owner { uid: other, gid: Gid::from_raw(65534), name: "other".into() };
        let found = give_back(&state, &owner)?;
        let refused: Vec<_> = found
            .iter()
            .filter(|file| file.given_back.is_err())
            .filter_map(|file| file.path.file_name())
            .collect();
        assert!(refused.contains(&OsStr::new("name")), "{refused:?}");
        assert!(!found.iter().any(|file| file.path.ends_with("link")));
        assert_eq!(fs::metadata(&outside).map_err(io)?.uid(), me.as_raw());
        if me.is_root() {
            assert_eq!(refused.len(), 1, "{found:?}");
            for path in ["", "keys", "keys/own"] {
                assert_eq!(fs::metadata(state.join(path)).map_err(io)?.uid(), 65534);
            }
        }
        assert!(set_mode(&state.join("keys/link"), 0o600).is_err());
        assert_eq!(fs::metadata(&outside).map_err(io)?.mode() & 0o777, 0o644);
        set_mode(&state.join("keys/own"), 0o600)
    }
}
