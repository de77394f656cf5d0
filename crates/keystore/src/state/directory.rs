//! The owners of the state's directories. The directories belong to this user alone, except that the state
//! directory itself may be a volume that its owner has opened for a group.

use std::fs::{self, Metadata, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use gpg::text::printable;
use nix::unistd::{AccessFlags, eaccess, getegid, geteuid};

use crate::error::{Error, Result};
use crate::files::{ensure_directory, names_in};
use crate::layout::{
    CLUSTER, DIRECTORY_MODE, GNUPG, HOST_MARK, IMPORTING, KEYS, PARTS, PHRASES, SEALING, TRASH,
};
use crate::remedy::quote_path;

/// Creates the state directory, or checks that the existing one can be used. Afterwards it is this user's
/// with mode 0700, or it is a volume.
pub fn own_root(root: &Path) -> Result<()> {
    make(root)?;
    check_root(root)?;
    // The state directory may be found through a symbolic link, but its parts may not.
    let found = fs::metadata(root).map_err(Error::at("looking at", root))?;
    match found.uid() == geteuid().as_raw() {
        // Keep the access of the group: it may be the only way in for the owner of what is inside.
        true if is_volume(&found) => {
            log::warn!("{}: group {} may write in it", root.display(), found.gid());
            Ok(())
        }
        true => {
            if found.mode() & 0o077 != 0 {
                check_content(root)?;
            }
            own(root, &found)
        }
        false => Ok(()),
    }
}

/// Fails if the directory `root` exists and cannot be this user's state directory. It must belong to this
/// user, or be a volume that is writable for a group of this user and for nobody beyond that group.
pub fn check_root(root: &Path) -> Result<()> {
    match fs::metadata(root) {
        Ok(found) if found.is_dir() && is_volume(&found) => check_group(root, &found),
        Ok(found) => check(root, &found),
        // The caller finds out why it cannot be looked at.
        Err(_) => Ok(()),
    }
}

/// Fails if the directory `root`, which is open to others, holds files, and none of them is of a state: a mistyped path
/// would close that directory to everybody else. Hidden files may be there, as in a home directory, and the
/// `lost+found` of a volume.
fn check_content(root: &Path) -> Result<()> {
    let of_state = |name: &str| {
        PARTS.contains(&name) || [TRASH, IMPORTING, SEALING, HOST_MARK, CLUSTER].contains(&name)
    };
    let mut foreign = None;
    for name in names_in(root)? {
        let name = name.to_string_lossy().into_owned();
        if of_state(&name) {
            return Ok(());
        }
        foreign = foreign.or((!name.starts_with('.') && name != "lost+found").then_some(name));
    }
    foreign.map_or(Ok(()), |name| {
        let why = format!(
            "holds files of something else, {} for one, and no keys; nothing was changed; set state_dir to a \
             directory that is empty or does not exist yet",
            printable(&name)
        );
        Err(wrong(root, &why))
    })
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

/// Fails if `root` is a volume and what is in it belongs to another user. Root passes, because it becomes
/// that user. Without this check, the first look at the contents would fail in words that do not say why.
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

/// Creates a directory of the state, or makes an existing one accessible to this user only. It must not be a
/// symbolic link.
pub fn own_part(path: &Path) -> Result<()> {
    make(path)?;
    let found = fs::symlink_metadata(path).map_err(Error::at("looking at", path))?;
    own(path, &found)
}

/// Whether a directory is writable for its group, but not for all others. The volumes that a container is
/// given are like that: they belong to root and to the group of the container (`fsGroup`), mode 2770 or 2775.
pub fn is_volume(found: &Metadata) -> bool {
    found.mode() & 0o022 == 0o020
}

/// Returns the uid and gid that own the state in `root`. They are those of its directory or, if that is a
/// volume, those of what is in it. Returns `None` to root for a volume of root's if nothing in it tells. What
/// root made there would be closed to the user of the container.
pub fn owner_of(root: &Path) -> io::Result<Option<(u32, u32)>> {
    let found = fs::metadata(root)?;
    let of_directory = Some((found.uid(), found.gid()));
    if !is_volume(&found) {
        return Ok(of_directory);
    }
    Ok(owner_inside(root).or_else(|| match geteuid() {
        // Nothing is in the volume yet: the process that makes the first key will own it.
        me if !me.is_root() => Some((me.as_raw(), getegid().as_raw())),
        _ => of_directory.filter(|(uid, _)| *uid != 0),
    }))
}

/// Returns the owner of the first part of a state that is not root's. It is not enough to look at `keys/`,
/// because the old service had none.
fn owner_inside(root: &Path) -> Option<(u32, u32)> {
    [KEYS, GNUPG, PHRASES].iter().find_map(|part| {
        let found = fs::symlink_metadata(root.join(part)).ok()?;
        (found.is_dir() && found.uid() != 0).then(|| (found.uid(), found.gid()))
    })
}

/// Returns why root does nothing in a volume for which [`owner_of`] returns `None`, and the remedy.
pub fn nobodys(root: &Path) -> (&'static str, String) {
    let keys = quote_path(&root.join(KEYS));
    (
        "belongs to root and to a group, and nothing in it tells which user of that group is to own the keys",
        format!(
            "run it as the user of the container, or make keys/ for UID: install -d -m 0700 -o UID {keys}"
        ),
    )
}

/// Refuses an output `to` inside the state directory `state`, because copr-keygen owns and tidies
/// everything there.
pub fn check_outside(to: &Path, state: &Path) -> Result<()> {
    // A path that does not exist yet is where the nearest directory above it is.
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

/// Returns the group that may write in `root`, if `root` is a volume.
pub fn volume_group(root: &Path) -> Option<u32> {
    fs::metadata(root).ok().filter(is_volume).map(|found| found.gid())
}

fn make(path: &Path) -> Result<()> {
    ensure_directory(path).map_err(Error::at("making the directory", path))
}

/// Checks that a directory is this user's, and makes it accessible to nobody else (mode 0700).
fn own(path: &Path, found: &Metadata) -> Result<()> {
    check(path, found)?;
    if found.mode() & 0o077 != 0 {
        log::warn!("{}: had mode {:03o}, made it 700", path.display(), found.mode() & 0o777);
        fs::set_permissions(path, Permissions::from_mode(DIRECTORY_MODE))
            .map_err(Error::at("setting the mode of", path))?;
    }
    Ok(())
}

/// Fails unless `path` is a directory of this user. That is a wrong setting and not a passing failure:
/// another start would fail in the same way.
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
