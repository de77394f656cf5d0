//! `pool/`: secret keys made in advance, so that a request need not wait for primes. Each one is a small home
//! without an identity, and as well protected as a published key. It is claimed by one `rename`, so it can
//! never serve two identities. It is checked after it was claimed.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use gpg::{KeyLength, Keygrip};
use nix::unistd::geteuid;

use crate::error::Result;
use crate::files::{durable, entries_if_there, names_in};
use crate::home::contents::Contents;
use crate::home::staging::StagedHome;
use crate::layout::{PASSPHRASE, POOL, PUBRING, SECRET_KEYS};

/// The directory `pool/`.
#[derive(Debug)]
pub struct Pool {
    directory: PathBuf,
    /// Entries older than this are not used.
    pub max_age: Duration,
}

impl Pool {
    /// Returns the pool of the state directory `root`. Entries older than `max_age` are not used.
    pub fn new(root: &Path, max_age: Duration) -> Self {
        Self { directory: root.join(POOL), max_age }
    }

    /// The path of `pool/`.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The directory for keys of one length.
    pub fn of_length(&self, length: KeyLength) -> PathBuf {
        self.directory.join(length.to_string())
    }

    /// Moves a key of the pool into an empty staged home and returns its keygrip; `None` if the pool has no
    /// key. Discards entries on the way that are damaged or too old.
    pub fn claim(&self, length: KeyLength, staged: &StagedHome) -> Result<Option<Keygrip>> {
        let max_age = self.max_age;
        let directory = self.of_length(length);
        let entries = match fs::read_dir(&directory) {
            Ok(entries) => entries,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            // Keys can be made without the pool.
            Err(e) => {
                log::warn!(
                    "reading {}: {e}; the key is made without the pool",
                    directory.display()
                );
                return Ok(None);
            }
        };
        for entry in entries {
            let entry = match entry {
                Ok(entry) if !is_entry(&entry.path()) => continue,
                Ok(entry) => entry,
                Err(e) => {
                    log::warn!("reading {}: {e}", directory.display());
                    break;
                }
            };
            let path = entry.path();
            match durable::rename(&path, staged.path()) {
                Ok(()) => {}
                // Another request was faster.
                Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
                Err(e) => {
                    // Whatever this is, keys can be made without it.
                    log::warn!("{}: cannot be used as a key of the pool: {e}", path.display());
                    continue;
                }
            }
            match check(staged.path(), &entry.file_name(), max_age) {
                Ok(keygrip) => return Ok(Some(keygrip)),
                Err(why) => {
                    log::warn!("{}: discarded from the pool: {why}", path.display());
                    staged.empty()?;
                }
            }
        }
        Ok(None)
    }

    /// Returns the number of entries of one length.
    pub fn count(&self, length: KeyLength) -> Result<usize> {
        Ok(entries_if_there(&self.of_length(length))?.iter().filter(|path| is_entry(path)).count())
    }
}

/// Returns the number of keys of one length in the pool of the state directory `root`.
pub fn count(root: &Path, length: KeyLength) -> Result<usize> {
    Pool::new(root, Duration::MAX).count(length)
}

/// The entries of a key of the pool, sorted.
const CONTENT: [&str; 2] = [PASSPHRASE, SECRET_KEYS];

/// Whether an entry is a key of the pool, by its name or its content. Anything else is somebody's own, and is left
/// alone.
pub fn is_entry(path: &Path) -> bool {
    let name = path.file_name().and_then(OsStr::to_str);
    name.and_then(Keygrip::parse).is_some()
        || names_sorted(path).is_ok_and(|names| names == CONTENT)
}

fn names_sorted(directory: &Path) -> Result<Vec<OsString>> {
    let mut names = names_in(directory)?;
    names.sort();
    Ok(names)
}

/// Returns the keygrip of an entry that is whole and not older than `max_age`. Fails with the reason for
/// any other entry.
pub fn check(home: &Path, name: &OsStr, max_age: Duration) -> std::result::Result<Keygrip, String> {
    let keygrip =
        name.to_str().and_then(Keygrip::parse).ok_or("its name is no keygrip".to_owned())?;
    let names = names_sorted(home).map_err(|e| e.to_string())?;
    if names != CONTENT {
        return Err(format!("it holds {names:?}"));
    }
    let contents = Contents::of(home, geteuid().as_raw(), Some(keygrip.clone()))
        .ok_or("it is gone".to_owned())?;
    // A keyring is not expected yet: it is made together with the identity.
    if let Some(fault) = contents.faults.iter().find(|fault| !fault.is_missing(PUBRING)) {
        return Err(fault.error(home).to_string());
    }
    if contents.keygrip.as_ref() != Some(&keygrip) {
        return Err("it holds another secret key".into());
    }
    let secret = home.join(SECRET_KEYS).join(keygrip.file_name());
    let made = fs::metadata(&secret).and_then(|found| found.modified());
    match made.map(|at| SystemTime::now().duration_since(at)) {
        Ok(Ok(age)) if age > max_age => {
            Err(format!("it is {} days old", age.as_secs() / gpg::clock::DAY))
        }
        Err(e) => Err(e.to_string()),
        _ => Ok(keygrip),
    }
}
