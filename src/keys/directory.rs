//! Whose the directories of the state are: this user's alone, but for the state directory itself, which
//! may be a volume that its owner has opened for a group.

use std::fs::{self, DirBuilder, Metadata, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::Path;

use nix::unistd::{AccessFlags, eaccess, getegid, geteuid};

use super::examine::DIRECTORY_MODE;
use crate::error::{Error, Result};

/// Makes the state directory, or sees that it can be one; then it is this user's with mode 0700, or a volume.
pub fn own_root(root: &Path) -> Result<()> {
    make(root)?;
    check_root(root)?;
    // Where the state is may be told by a symbolic link, where its parts are may not.
    let found = fs::metadata(root).map_err(|e| failed("looking at", root, e))?;
    if found.uid() == geteuid().as_raw() { own(root, &found) } else { Ok(()) }
}

/// Sees that the directory `root`, if there is one, can be this user's state directory: it is this user's, or
/// somebody else's who lets a group write in it that this user is in, and nobody beyond it.
pub fn check_root(root: &Path) -> Result<()> {
    match fs::metadata(root) {
        Ok(found) if found.is_dir() && is_volume(&found) => check_group(root, &found),
        Ok(found) => check(root, &found),
        // Somebody else says why it cannot be looked at.
        Err(_) => Ok(()),
    }
}

fn check_group(root: &Path, found: &Metadata) -> Result<()> {
    eaccess(root, AccessFlags::W_OK | AccessFlags::X_OK).map_err(|errno| {
        wrong(
            root,
            &format!(
                "it belongs to uid {} and lets group {} write in it, and this process, uid {}, may not: \
                 {}; run it with that group, or as the owner",
                found.uid(),
                found.gid(),
                geteuid(),
                errno.desc()
            ),
        )
    })
}

/// Makes a directory of the state, or makes it this user's alone. It must not be a symbolic link.
pub fn own_part(path: &Path) -> Result<()> {
    make(path)?;
    let found = fs::symlink_metadata(path).map_err(|e| failed("looking at", path, e))?;
    own(path, &found)
}

/// Whether a directory is open for a group beside its owner, and for nobody else. So are the volumes that a
/// container is given: they belong to root and to the group of the container (`fsGroup`), mode 2770 or 2775.
pub fn is_volume(found: &Metadata) -> bool {
    found.mode() & 0o022 == 0o020
}

/// The user and the group that own the state in `root`: those of its directory or, where that is a volume,
/// those of what is in it.
pub fn owner_of(root: &Path) -> io::Result<(u32, u32)> {
    let found = fs::metadata(root)?;
    if is_volume(&found) {
        match fs::symlink_metadata(root.join("keys")) {
            Ok(keys) if keys.is_dir() && keys.uid() != 0 => return Ok((keys.uid(), keys.gid())),
            // Nothing is in it yet: whoever makes the first key will own it.
            Err(_) if !geteuid().is_root() => return Ok((geteuid().as_raw(), getegid().as_raw())),
            _ => {}
        }
    }
    Ok((found.uid(), found.gid()))
}

/// The group that may write in `root`, where that is a volume.
pub fn volume_group(root: &Path) -> Option<u32> {
    fs::metadata(root).ok().filter(is_volume).map(|found| found.gid())
}

fn make(path: &Path) -> Result<()> {
    match DirBuilder::new().mode(DIRECTORY_MODE).create(path) {
        Err(e) if e.kind() != io::ErrorKind::AlreadyExists => {
            Err(failed("making the directory", path, e))
        }
        _ => Ok(()),
    }
}

/// Makes a directory one of this user's with mode 0700.
fn own(path: &Path, found: &Metadata) -> Result<()> {
    check(path, found)?;
    if found.mode() & 0o077 != 0 {
        log::warn!("{}: had mode {:03o}, made it 700", path.display(), found.mode() & 0o777);
        fs::set_permissions(path, Permissions::from_mode(DIRECTORY_MODE))
            .map_err(|e| failed("setting the mode of", path, e))?;
    }
    Ok(())
}

/// Sees that it is a directory of this user's. What is not is a setting to be corrected, not a failure that
/// another start might not meet.
fn check(path: &Path, found: &Metadata) -> Result<()> {
    let me = geteuid();
    if !found.is_dir() {
        let why = "is not a directory; move it away, or correct the setting state_dir";
        return Err(wrong(path, why));
    }
    if found.uid() != me.as_raw() {
        let why = format!(
            "it belongs to uid {}, this process is uid {me}; run it as the owner, give it away with \
             chown -R, or set state_dir to a directory of its own, which may be one below a directory \
             that uid {me} can write in",
            found.uid()
        );
        return Err(wrong(path, &why));
    }
    Ok(())
}

fn failed(doing: &str, path: &Path, e: io::Error) -> Error {
    Error::io(format!("{doing} {}", path.display()), e)
}

fn wrong(path: &Path, why: &str) -> Error {
    Error::Settings(format!("{}: {why}", path.display()))
}
