//! A published home: what belongs into it, where it is, and whether it is whole.

pub(crate) mod clock_evidence;
pub(crate) mod contents;
pub(crate) mod faults;
pub(crate) mod finishing;
pub(crate) mod home_files;
pub(crate) mod on_disk;
pub(crate) mod record;
mod sealed_homes;
pub(crate) mod staging;
pub(crate) mod trial;

use std::fs::{self, File, Metadata};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use gpg::clock;

use crate::error::{Error, Result};
use crate::files::{look, names_in};
use crate::home::on_disk::HomeVersion;
use crate::home::record::KeyRecord;
use crate::identity::NameEmail;
use crate::layout::{KEYS, PASSPHRASE, PUBRING};

/// How often a home that has just changed is looked at again before it counts as damaged.
const AGAIN: usize = 3;
/// The time between these looks, in which the clock of the file system ticks.
const TICK: Duration = Duration::from_millis(10);

/// The directory `keys/`, which holds all published homes.
#[derive(Clone, Debug)]
pub struct Homes {
    directory: PathBuf,
}

impl Homes {
    /// Returns the homes of the state directory `root`.
    pub fn new(root: &Path) -> Self {
        Self { directory: root.join(KEYS) }
    }

    /// The directory that homes are renamed into.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The path of an identity's home, whether or not there is one.
    pub fn path(&self, name_email: &NameEmail) -> PathBuf {
        self.directory.join(name_email.as_str())
    }

    /// The path of an identity's public keyring.
    pub fn pubring(&self, name_email: &NameEmail) -> PathBuf {
        self.path(name_email).join(PUBRING)
    }

    /// Returns every identity that has a home, in the order of the file system. Skips names that are
    /// not identities.
    pub fn identities(&self) -> Result<impl Iterator<Item = Result<NameEmail>>> {
        let reading = Error::at("reading", &self.directory);
        let entries = fs::read_dir(&self.directory).map_err(reading)?;
        Ok(entries.filter_map(move |entry| match entry {
            Ok(entry) => NameEmail::parse(entry.file_name().to_str()?).ok().map(Ok),
            Err(e) => Some(Err(reading(e))),
        }))
    }

    /// Finds the key whose fingerprint ends in `digits`. Looks at every key. A damaged home is an error only
    /// if no other home holds the key. Fails with [`Error::Arguments`] if two keys end in these digits.
    pub fn find_by_key_id(&self, digits: &str) -> Result<Option<(NameEmail, KeyRecord)>> {
        let mut found: Option<(NameEmail, KeyRecord)> = None;
        let mut damaged = None;
        for name_email in self.identities()? {
            let name_email = name_email?;
            let record = match self.find(&name_email) {
                Ok(Some(record)) if record.fingerprint.as_str().ends_with(digits) => record,
                Ok(_) => continue,
                Err(e) if e.is_damage() => {
                    damaged = Some(e);
                    continue;
                }
                Err(e) => return Err(e),
            };
            match &found {
                Some((other, first)) if first.fingerprint != record.fingerprint => {
                    return Err(Error::Arguments(format!(
                        "the key ID {digits} is that of two keys: {} of {other}, and {} of \
                         {name_email}; name one by its name or all 40 digits",
                        first.fingerprint, record.fingerprint
                    )));
                }
                Some(_) => {}
                None => found = Some((name_email, record)),
            }
        }
        match (found, damaged) {
            (None, Some(e)) => Err(e),
            (found, _) => Ok(found),
        }
    }

    /// Returns the key of an identity, if there is one. An incomplete home is an error: it may hold the only
    /// copy of a key, so nothing is ever made in its place.
    pub fn find(&self, name_email: &NameEmail) -> Result<Option<KeyRecord>> {
        self.look_into(name_email, |record, _| Ok(record))
    }

    /// Calls `read` with the record of an identity's key and the path of its home, and returns the result.
    /// Returns `None` if there is no key.
    pub(crate) fn look_into<T>(
        &self,
        name_email: &NameEmail,
        read: impl Fn(KeyRecord, &Path) -> Result<T>,
    ) -> Result<Option<T>> {
        let home = self.path(name_email);
        believe(&home, || self.look(name_email)?.map(|record| read(record, &home)).transpose())
    }

    /// Calls `read` with the keyring of an identity, for gpg to read, and returns the result. Fails with
    /// [`Error::NoKey`] if the home is not there, or leaves meanwhile.
    pub(crate) fn ask_gpg<T>(
        &self,
        name_email: &NameEmail,
        read: impl Fn(&Path) -> Result<T>,
    ) -> Result<T> {
        let file = self.pubring(name_email);
        believe(&self.path(name_email), || read(&file).map(Some))?
            .ok_or_else(|| Error::NoKey(name_email.clone()))
    }

    fn look(&self, name_email: &NameEmail) -> Result<Option<KeyRecord>> {
        let home = self.path(name_email);
        let damaged = |reason: &str| Err(Error::damaged(&home, reason));
        // If `keys/` is not a directory, the look fails, because nobody can tell whether there is a key.
        match fs::symlink_metadata(&home) {
            Ok(found) if !found.is_dir() => return damaged("is not a directory"),
            Ok(found) if found.uid() != nix::unistd::geteuid().as_raw() => {
                return damaged(&format!("belongs to uid {}", found.uid()));
            }
            Ok(_) => {}
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(Error::at("looking for", &home)(e)),
        }
        let Some(record) = KeyRecord::of(&home)? else {
            // rename(2) replaces an empty directory, so an empty home is not in the way of a new one.
            if names_in(&home)?.is_empty() {
                return Ok(None);
            }
            return damaged("holds no single secret key with its revocation certificate");
        };
        for path in [record.secret_key(&home), home.join(PUBRING), home.join(PASSPHRASE)] {
            check_file(&path)?;
        }
        Ok(Some(record))
    }
}

/// Returns what `look` finds in `home`. Damage, or a failure of gpg, is believed only if the same home was there
/// from the beginning of the look to its end. A home may be removed, brought back or made anew meanwhile.
fn believe<T>(home: &Path, mut look: impl FnMut() -> Result<Option<T>>) -> Result<Option<T>> {
    // Nearly all homes are whole, and the first look is enough.
    match look() {
        Err(e) if is_doubtful(&e) => {}
        found => return found,
    }
    let mut looks_again = AGAIN;
    loop {
        let looking = Error::at("looking for", home);
        // Hold the home open: as long as it is, no other home can have its inode number.
        let flags = libc::O_PATH | libc::O_NOFOLLOW;
        let held = match File::options().read(true).custom_flags(flags).open(home) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            held => held.map_err(looking)?,
        };
        let before = held.metadata().map_err(looking)?;
        match look() {
            Err(e) if is_doubtful(&e) => {
                match fs::symlink_metadata(home) {
                    Ok(now) if HomeVersion::from(&now) == HomeVersion::from(&before) => {
                        if looks_again == 0 || !is_recent(&now) {
                            return Err(e);
                        }
                        // A home that left and came back within one tick of the clock has the same time.
                        looks_again -= 1;
                        std::thread::sleep(TICK);
                    }
                    Ok(_) => {}
                    Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
                    Err(e) => return Err(looking(e)),
                }
            }
            found => return found,
        }
    }
}

/// Whether an error may come from a home that left while it was read.
fn is_doubtful(error: &Error) -> bool {
    error.is_damage() || matches!(error, Error::Gpg(gpg::Error::Failed { .. }))
}

/// Whether the last change was so recent that another one may have the same time.
fn is_recent(found: &Metadata) -> bool {
    clock::now().map_or(true, |now| found.ctime().unsigned_abs() + 1 >= now)
}

/// Fails unless a file of a home is a regular file with content.
fn check_file(path: &Path) -> Result<()> {
    match look(path)? {
        Some(found) if found.is_file() && found.len() > 0 => Ok(()),
        Some(_) => Err(Error::damaged(path, "is empty or not a regular file")),
        None => Err(Error::damaged(path, "is missing")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scratch::scratch;

    fn damaged<T>() -> Result<Option<T>> {
        Err(Error::damaged(Path::new(""), ""))
    }

    #[test]
    fn a_home_that_leaves_while_it_is_looked_at_is_not_there_and_never_damaged() -> Result<()> {
        let root = scratch();
        let (home, aside) = (root.path().join("home"), root.path().join("aside"));
        assert!(fs::create_dir_all(&home).is_ok());
        let rename = |from: &Path, to: &Path| assert!(fs::rename(from, to).is_ok());

        // The home has left before it is looked at again.
        rename(&home, &aside);
        assert_eq!(believe(&home, damaged::<()>)?, None);
        // The home leaves while it is held open.
        rename(&aside, &home);
        let mut looks = 0;
        let leaves = || {
            looks += 1;
            if looks == 2 {
                rename(&home, &aside);
            }
            damaged()
        };
        assert_eq!(believe::<()>(&home, leaves)?, None);
        // The home leaves and comes back, or another home takes its place.
        for comes_back in [true, false] {
            rename(&aside, &home);
            let mut looks = 0;
            let returns = || {
                looks += 1;
                match looks {
                    1 => damaged(),
                    2 if comes_back => {
                        rename(&home, &aside);
                        rename(&aside, &home);
                        damaged()
                    }
                    2 => {
                        assert!(fs::remove_dir(&home).and_then(|()| fs::create_dir(&home)).is_ok());
                        damaged()
                    }
                    _ => Ok(Some(looks)),
                }
            };
            assert_eq!(believe(&home, returns)?, Some(3));
            rename(&home, &aside);
        }
        // A home that stays as it is counts as damaged.
        rename(&aside, &home);
        assert!(believe(&home, damaged::<()>).is_err());
        Ok(())
    }
}
