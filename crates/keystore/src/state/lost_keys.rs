//! Finds that the keys of a state are not where they were: `keys/` was moved away, or what was mounted there is not.
//! Keys that exist would be made anew.

use std::ffi::OsStr;
use std::fs::{self, Metadata};
use std::path::{Path, PathBuf};

use gpg::{Keygrip, text};

use crate::error::{Error, Result};
use crate::home::Homes;
use crate::identity::NameEmail;
use crate::layout::{KEYS, PARTS, PHRASES, RECORD, SECRET_KEY_LINKS};
use crate::remedy::quote_path;

/// Fails when the state directory `root` has no keys, and what is around them says that it had some.
pub fn check(root: &Path) -> Result<()> {
    let keys = root.join(KEYS);
    let found = keys.symlink_metadata().ok();
    let is_there = found.is_some();
    // At every start: more is looked at only where there is something to doubt. What is no directory, or cannot be
    // read, is told by others.
    let has_some = |found: Metadata| {
        !found.is_dir()
            || Homes::new(root).identities().map_or(true, |mut names| names.next().is_some())
    };
    if found.is_some_and(has_some) {
        return Ok(());
    }
    let (phrases, secret_keys) = (root.join(PHRASES), root.join(SECRET_KEY_LINKS));
    // A phrase is linked to when its home is there, a secret key shortly before.
    let mut links = links(&phrases);
    if !is_there {
        let orphans = orphans(root);
        if orphans > 0 {
            return Err(Error::Settings(orphans_without_certificates(root, orphans)));
        }
        links += self::links(&secret_keys);
    }
    if links == 0 {
        return Ok(());
    }
    let way = match moved_away(root) {
        Some(aside) => {
            let (keys, aside) = (quote_path(&keys), quote_path(&aside));
            let free = if is_there { format!("rmdir {keys} && ") } else { String::new() };
            format!("put it back with: {free}mv -T {aside} {keys}")
        }
        None => format!(
            "put it back or mount it, or restore a backup with: copr-keygen restore. Only if all keys were destroyed \
             on purpose: find {} {} -type l -delete",
            quote_path(&phrases),
            quote_path(&secret_keys)
        ),
    };
    Err(Error::Settings(format!(
        "{} has no keys, but links in the state lead to keys there: it was moved away, or is not mounted. Nothing was \
         changed; {way}",
        keys.display()
    )))
}

/// Secret keys in `gnupg/` of the state `root` that are files of their own. Without a keyring, their certificates are
/// lost.
pub fn orphans(root: &Path) -> usize {
    let is_orphan = |entry: &fs::DirEntry| {
        Keygrip::from_file_name(&entry.file_name()).is_some()
            && entry.file_type().is_ok_and(|kind| kind.is_file())
    };
    entries(&root.join(SECRET_KEY_LINKS)).filter(is_orphan).count()
}

/// What is to be done about so many orphans.
pub fn orphans_without_certificates(root: &Path, count: usize) -> String {
    format!(
        "{}/gnupg holds {} of no home, but no keyring with their certificates: put its pubring.kbx or pubring.gpg \
         back from a backup, then run: copr-keygen import",
        root.display(),
        text::number(count, "secret key", "secret keys")
    )
}

/// A directory beside `keys/` that has homes in it.
fn moved_away(root: &Path) -> Option<PathBuf> {
    let is_part = |name: &OsStr| name.to_str().is_some_and(|name| PARTS.contains(&name));
    let others = entries(root).filter(|entry| !is_part(&entry.file_name()));
    let mut paths = others.map(|entry| entry.path());
    let is_home = |entry: fs::DirEntry| {
        entry.file_name().to_str().is_some_and(|name| NameEmail::parse(name).is_ok())
            && entry.path().join(RECORD).is_file()
    };
    paths.find(|path| entries(path).any(is_home))
}

/// The link that says that an identity had a home, in the directory `phrases`: it is made after the home, and gone
/// before it.
pub(crate) fn link_of(phrases: &Path, name_email: &NameEmail) -> Option<PathBuf> {
    Some(phrases.join(name_email.as_str())).filter(|link| link.is_symlink())
}

fn links(directory: &Path) -> usize {
    entries(directory).filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_symlink())).count()
}

/// What is in a directory, as far as it can be read.
fn entries(directory: &Path) -> impl Iterator<Item = fs::DirEntry> {
    fs::read_dir(directory).into_iter().flatten().flatten()
}
