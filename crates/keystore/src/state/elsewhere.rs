//! Finds data that is seen in a directory but is not in it: behind symbolic links, or on a volume of its own.
//! Renaming the directory does not set that data aside, and destroying the directory does not destroy it.
//! Changes nothing.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};

use crate::error::{Error, Result};
use crate::files::{if_there, look};
use crate::remedy::{quote_path, replace_link};

/// Fails unless `directory` can be set aside with everything in it. A missing directory can.
pub fn check(directory: &Path) -> Result<()> {
    let Some(found) = look(directory)? else { return Ok(()) };
    if found.is_symlink() {
        return Err(is_link(directory));
    }
    if !found.is_dir() {
        let path = directory.display();
        return Err(Error::Refused(format!("{path} is not a directory; nothing was changed")));
    }
    check_mount(directory)?;
    // What is missing behind a link that leads nowhere is reported with the keys.
    match links_out(directory, check_mount)?.into_iter().find(|link| link.exists()) {
        Some(link) => Err(is_link(&link)),
        None => Ok(()),
    }
}

/// Fails if a volume, or another directory, is mounted on `directory`: then it cannot be renamed.
pub fn check_mount(directory: &Path) -> Result<()> {
    if !is_mount_point(directory) {
        return Ok(());
    }
    let copy = directory.with_extension("copy");
    let (word, copy) = (quote_path(directory), quote_path(&copy));
    Err(Error::Refused(format!(
        "{} is a mount point, and what is mounted there could not be set aside; its secret keys stay on that \
         volume until you destroy them there; stop signd, take the mount out of /etc/fstab, and put a copy in \
         its place: cp -a {word} {copy} && umount {word} && rmdir {word} && mv -T {copy} {word}",
        directory.display()
    )))
}

/// Returns the symbolic links at and below `entry` that lead out of it. Links that this program makes are
/// left out, because they lead to `keys/`. So are links to configuration files, which hold no keys. `visit`
/// is called with every directory below `entry`.
pub fn links_out(entry: &Path, visit: impl Fn(&Path) -> Result<()>) -> Result<Vec<PathBuf>> {
    let (mut links, mut left) = (Vec::new(), vec![entry.to_owned()]);
    while let Some(path) = left.pop() {
        match look(&path)? {
            Some(found) if found.is_dir() => {
                if path != entry {
                    visit(&path)?;
                }
                left.extend(readable_entries(&path)?);
            }
            Some(found) if found.is_symlink() && leads_out(&path, entry) => links.push(path),
            _ => {}
        }
    }
    Ok(links)
}

/// Lists a directory. Returns nothing for a directory that this user may not read, such as root's
/// `lost+found`: nobody signs here with what is in it.
fn readable_entries(directory: &Path) -> Result<Vec<PathBuf>> {
    let reading = Error::at("reading", directory);
    match if_there(fs::read_dir(directory)) {
        Err(e) if e.kind() == ErrorKind::PermissionDenied => Ok(Vec::new()),
        Err(e) => Err(reading(e)),
        Ok(found) => {
            let found = found.into_iter().flatten();
            found.map(|entry| entry.map(|entry| entry.path()).map_err(reading)).collect()
        }
    }
}

fn leads_out(link: &Path, entry: &Path) -> bool {
    let to = fs::read_link(link).unwrap_or_default();
    let is_ours = to.starts_with("../keys") || to.starts_with("../../keys");
    let is_configuration = link.extension().is_some_and(|end| end == "conf");
    let is_within = match (link.canonicalize(), entry.canonicalize()) {
        (Ok(found), Ok(whole)) => link != entry && found.starts_with(whole),
        _ => false,
    };
    !is_ours && !is_configuration && !is_within
}

/// Says what is wrong with a link behind which nothing is.
pub const LEADS_NOWHERE: &str = "is a symbolic link that leads nowhere; what it leads to may be on a volume that is not \
                                 mounted";

fn is_link(link: &Path) -> Error {
    if !link.exists() {
        return Error::Refused(format!(
            "{} {LEADS_NOWHERE}; nothing was changed; mount it, or, if nothing is missing, remove the link: rm {}",
            link.display(),
            quote_path(link)
        ));
    }
    Error::Refused(format!(
        "{} is a symbolic link, and what it leads to could not be set aside; nothing was changed; stop signd \
         and put that itself in its place: {}",
        link.display(),
        replace_link(link)
    ))
}

/// Whether something is mounted on `directory`. A device number cannot tell, because both directories may be
/// on one file system.
fn is_mount_point(directory: &Path) -> bool {
    let (Some(parent), Some(name)) = (directory.parent(), directory.file_name()) else {
        return false;
    };
    let Ok(parent) = File::open(parent) else { return false };
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let how = OpenHow::new().flags(flags).resolve(ResolveFlag::RESOLVE_NO_XDEV);
    // Any other result, as from a kernel before 5.6, tells nothing.
    openat2(&parent, name, how).err() == Some(Errno::EXDEV)
}
