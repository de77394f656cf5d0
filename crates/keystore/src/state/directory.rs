//! Whose the directories of the state are: this user's alone, but for the state directory itself, which
//! may be a volume that its owner has opened for a group.

use std::fs::{self, Metadata, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use nix::unistd::{AccessFlags, eaccess, getegid, geteuid};

use crate::error::{Error, Result};
use crate::files::ensure_directory;
use crate::layout::{DIRECTORY_MODE, GNUPG, KEYS, PHRASES};
use crate::remedy::quote_path;

/// Makes the state directory, or sees that it can be one; then it is this user's with mode 0700, or a volume.
pub fn own_root(root: &Path) -> Result<()> {
    make(root)?;
    check_root(root)?;
    // Where the state is may be told by a symbolic link, where its parts are may not.
    let found = fs::metadata(root).map_err(Error::at("looking at", root))?;
    match found.uid() == geteuid().as_raw() {
        // Its group may be the only way in for the owner of what is inside.
        true if is_volume(&found) => {
            log::warn!("{}: group {} may write in it", root.display(), found.gid());
            Ok(())
        }
        true => own(root, &found),
        false => Ok(()),
    }
}

/// Sees that the directory `root`, if there is one, can be this user's state directory: it is this user's, or
/// somebody else's who lets a group write in it that this user is in, and nobody beyond it.
pub fn check_root(root: &Path) -> Result<()> {
    match fs::metadata(root) {
        Ok(found) if found.is_dir() && is_volume(&found) => check_group(root, &found),
        Ok(found) => check(root, &found),
        // The caller finds out why it cannot be looked at.
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
    })?;
    check_user(root)
}

/// Sees that what is in `root`, where that is a volume, is this user's, if it is anybody's. Root becomes
/// whoever it is. Else the first look at it would fail in words that do not say why.
pub fn check_user(root: &Path) -> Result<()> {
    let me = geteuid();
    match fs::metadata(root).ok().filter(is_volume).and_then(|_| owner_inside(root)) {
        Some((uid, _)) if uid != me.as_raw() && !me.is_root() => {
            let why = format!(
                "what is in it belongs to uid {uid}, this process is uid {me}; run it as uid {uid}, or as \
                 root, who becomes that user"
            );
            Err(wrong(root, &why))
        }
        _ => Ok(()),
    }
}

/// Makes a directory of the state, or makes it this user's alone. It must not be a symbolic link.
pub fn own_part(path: &Path) -> Result<()> {
    make(path)?;
    let found = fs::symlink_metadata(path).map_err(Error::at("looking at", path))?;
    own(path, &found)
}

/// Whether a directory is open for a group beside its owner, and for nobody else. So are the volumes that a
/// container is given: they belong to root and to the group of the container (`fsGroup`), mode 2770 or 2775.
pub fn is_volume(found: &Metadata) -> bool {
    found.mode() & 0o022 == 0o020
}

/// The user and the group that own the state in `root`: those of its directory or, where that is a volume,
/// those of what is in it. `None` for root, in a volume of root's where nothing tells: what root made there
/// would be closed to the user of the container.
pub fn owner_of(root: &Path) -> io::Result<Option<(u32, u32)>> {
    let found = fs::metadata(root)?;
    let of_directory = Some((found.uid(), found.gid()));
    if !is_volume(&found) {
        return Ok(of_directory);
    }
    Ok(owner_inside(root).or_else(|| match geteuid() {
        // Nothing is in it yet: the process that makes the first key will own it.
        me if !me.is_root() => Some((me.as_raw(), getegid().as_raw())),
        _ => of_directory.filter(|(uid, _)| *uid != 0),
    }))
}

/// The owner of the first part of a state that is not root's. The old service had no `keys/`.
fn owner_inside(root: &Path) -> Option<(u32, u32)> {
    [KEYS, GNUPG, PHRASES].iter().find_map(|part| {
        let found = fs::symlink_metadata(root.join(part)).ok()?;
        (found.is_dir() && found.uid() != 0).then(|| (found.uid(), found.gid()))
    })
}

/// Why root does nothing in a volume where [`owner_of`] finds nobody, and what to do.
pub fn nobodys(root: &Path) -> (&'static str, String) {
    let keys = quote_path(&root.join(KEYS));
    (
        "belongs to root and to a group, and nothing in it tells which user of that group is to own the keys",
        format!(
            "run it as the user of the container, or make keys/ for UID: install -d -m 0700 -o UID {keys}"
        ),
    )
}

/// Refuses an output `to` in the state directory `state`: everything there is ours, and is tidied by us.
pub fn check_outside(to: &Path, state: &Path) -> Result<()> {
    // What is not there yet is where its directory is.
    let named = to.ancestors().map(|path| match path.as_os_str().is_empty() {
        true => Path::new("."),
        false => path,
    });
    let here = named.map(Path::canonicalize).find_map(std::result::Result::ok);
    match (here, state.canonicalize()) {
        (Some(here), Ok(state)) if here.starts_with(&state) => {
            Err(Error::Usage(format!("--to {}: is inside of the state directory", to.display())))
        }
        _ => Ok(()),
    }
}

/// The group that may write in `root`, where that is a volume.
pub fn volume_group(root: &Path) -> Option<u32> {
    fs::metadata(root).ok().filter(is_volume).map(|found| found.gid())
}

fn make(path: &Path) -> Result<()> {
    ensure_directory(path).map_err(Error::at("making the directory", path))
}

/// Makes a directory one of this user's with mode 0700.
fn own(path: &Path, found: &Metadata) -> Result<()> {
    check(path, found)?;
    if found.mode() & 0o077 != 0 {
        log::warn!("{}: had mode {:03o}, made it 700", path.display(), found.mode() & 0o777);
        fs::set_permissions(path, Permissions::from_mode(DIRECTORY_MODE))
            .map_err(Error::at("setting the mode of", path))?;
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

fn wrong(path: &Path, why: &str) -> Error {
    Error::Settings(format!("{}: {why}", path.display()))
}
