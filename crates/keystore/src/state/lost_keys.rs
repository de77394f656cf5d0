//! Finds that the keys of a state are not where they were: `keys/` was moved away, or its volume is not
//! mounted. Without this, keys that exist would be made anew.

use std::ffi::OsStr;
use std::fs::{self, Metadata};
use std::path::{Path, PathBuf};

use gpg::{Keygrip, text};

use crate::error::{Error, Result};
use crate::home::Homes;
use crate::home::on_disk::HomeVersion;
use crate::identity::NameEmail;
use crate::layout::{
    KEYS, PARTS, PHRASES, RECORD, SECRET_KEY_LINKS, SECRET_KEYS, STAGING, TRASH, TRASH_HOME,
};
use crate::remedy::quote_path;

/// Fails if the state directory `root` has no keys, although links and secret keys outside of `keys/` show
/// that it had some.
pub fn check(root: &Path) -> Result<()> {
    let keys = root.join(KEYS);
    // If `keys/` is not a directory or cannot be read, other checks report that.
    let has_some = |found: Metadata| {
        !found.is_dir()
            || Homes::new(root).identities().map_or(true, |mut names| names.next().is_some())
    };
    let (phrases, secret_keys) = (root.join(PHRASES), root.join(SECRET_KEY_LINKS));
    // A key that is made, removed, brought back or cleared up meanwhile changes one of these. Then everything is
    // looked at again.
    let seen = [KEYS, PHRASES, SECRET_KEY_LINKS, STAGING, TRASH].map(|part| root.join(part));
    let versions = || seen.each_ref().map(|path| HomeVersion::of(path));
    let is_there = loop {
        let before = versions();
        // This runs at every start, so it looks at more only if there is something to doubt.
        if keys.symlink_metadata().is_ok_and(has_some) {
            return Ok(());
        }
        let is_there = keys.symlink_metadata().is_ok();
        let orphans = of_no_home(root, orphans_in(&secret_keys));
        if orphans > 0 {
            return Err(Error::Settings(orphans_without_certificates(root, orphans)));
        }
        let lost = links(&secret_keys).filter(|link| !link.path().exists());
        if links(&phrases).next().is_none() && of_no_home(root, lost) == 0 {
            return Ok(());
        }
        if before == versions() {
            break is_there;
        }
    };
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

/// Returns the number of secret keys in `gnupg/` of the state `root` that are files of their own, and not
/// links. Without a keyring, their certificates are lost.
pub fn orphans(root: &Path) -> usize {
    orphans_in(&root.join(SECRET_KEY_LINKS)).count()
}

fn orphans_in(directory: &Path) -> impl Iterator<Item = fs::DirEntry> + use<> {
    entries(directory).filter(|entry| {
        Keygrip::from_file_name(&entry.file_name()).is_some()
            && entry.file_type().is_ok_and(|kind| kind.is_file())
    })
}

/// Says what to do about `count` secret keys that are files of their own.
pub fn orphans_without_certificates(root: &Path, count: usize) -> String {
    format!(
        "{}/gnupg holds {} of no home, but no keyring with their certificates: put its pubring.kbx or pubring.gpg \
         back from a backup, then run: copr-keygen import",
        root.display(),
        text::number(count, "secret key", "secret keys")
    )
}

/// Finds a directory beside `keys/` that has homes in it.
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

/// Returns the link in the directory `phrases` of an identity whose home is lost. The link is made after the
/// home and removed before it. A key may be removed and brought back meanwhile. So the link counts only if it
/// is the same before and after the look for the home.
pub(crate) fn link_of<E>(
    phrases: &Path,
    name_email: &NameEmail,
    has_home: impl Fn() -> std::result::Result<bool, E>,
) -> std::result::Result<Option<PathBuf>, E> {
    let link = phrases.join(name_email.as_str());
    let Some(before) = link.symlink_metadata().ok().filter(Metadata::is_symlink) else {
        return Ok(None);
    };
    let is_lost = !has_home()? && HomeVersion::of(&link) == Some(HomeVersion::from(&before));
    Ok(is_lost.then_some(link))
}

/// Returns the number of `secret_keys`, entries of `gnupg/`, whose keys are neither in `staging/` nor in `trash/`. The
/// link of a key is made before its home gets into `keys/`, and stays a moment longer than the home.
fn of_no_home(root: &Path, secret_keys: impl Iterator<Item = fs::DirEntry>) -> usize {
    let mut found: Vec<_> = secret_keys.collect();
    if !found.is_empty() {
        let staged = entries(&root.join(STAGING)).flat_map(|one| entries(&one.path()));
        let removed = entries(&root.join(TRASH)).map(|one| one.path().join(TRASH_HOME));
        let homes: Vec<_> = staged.map(|home| home.path()).chain(removed).collect();
        let is_in = |home: &PathBuf, one: &fs::DirEntry| {
            home.join(SECRET_KEYS).join(one.file_name()).exists()
        };
        found.retain(|one| !homes.iter().any(|home| is_in(home, one)));
    }
    found.len()
}

fn links(directory: &Path) -> impl Iterator<Item = fs::DirEntry> + use<> {
    entries(directory).filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_symlink()))
}

/// Returns the entries of a directory, as far as it can be read.
fn entries(directory: &Path) -> impl Iterator<Item = fs::DirEntry> + use<> {
    fs::read_dir(directory).into_iter().flatten().flatten()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::thread;
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn a_key_that_comes_and_goes_is_not_taken_for_a_lost_one() {
        let state = tempfile::tempdir().unwrap();
        let (keys, phrases) = (state.path().join(KEYS), state.path().join(PHRASES));
        [&keys, &phrases].into_iter().for_each(|directory| fs::create_dir(directory).unwrap());
        let name_email = NameEmail::parse("user#project@copr.example.org").unwrap();
        let (home, link) = (keys.join(name_email.as_str()), phrases.join(name_email.as_str()));
        let ends = AtomicBool::new(false);
        thread::scope(|scope| {
            // Make and remove the key in the usual order, no faster than the clock of a file system ticks.
            scope.spawn(|| {
                while !ends.load(Ordering::Relaxed) {
                    fs::create_dir(&home).unwrap();
                    symlink("home", &link).unwrap();
                    thread::sleep(Duration::from_millis(10));
                    fs::remove_file(&link).unwrap();
                    fs::remove_dir(&home).unwrap();
                    thread::sleep(Duration::from_millis(10));
                }
            });
            let begun = Instant::now();
            let mut alarms = 0;
            while begun.elapsed() < Duration::from_secs(2) {
                let has_home = || Ok::<_, ()>(home.is_dir());
                alarms += usize::from(link_of(&phrases, &name_email, has_home).unwrap().is_some());
                alarms += usize::from(check(state.path()).is_err());
            }
            ends.store(true, Ordering::Relaxed);
            assert_eq!(alarms, 0);
        });
        symlink("home", &link).unwrap();
        assert_eq!(link_of(&phrases, &name_email, || Ok::<_, ()>(false)), Ok(Some(link)));
        assert!(check(state.path()).is_err());
    }
}
