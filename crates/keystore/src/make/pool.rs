//! `pool/`: secret keys made in advance, so that a request need not wait for primes. Each is a small
//! home without an identity, as well protected as a key; it is claimed by one `rename`, so it can
//! never serve two identities, and whoever claims it looks at it first.

use std::fs;
use std::io;
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use gpg::{KeyLength, Keygrip};
use nix::unistd::geteuid;

use crate::Store;
use crate::error::{Error, Result};
use crate::files::lock::lock;
use crate::files::{durable, ensure_directory, entries, names_in};
use crate::home;
use crate::home::contents::Contents;
use crate::home::staging::StagedHome;
use crate::layout::{PASSPHRASE, POOL, PUBRING, SECRET_KEYS};
use crate::secrets::passphrase::Passphrases;

/// How long making one secret key may take at idle priority on a busy host, beyond `gpg_timeout`.
const FILL_TIME: Duration = Duration::from_secs(600);

/// How many keys of which length are kept ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stock {
    /// The length.
    pub length: KeyLength,
    /// How many.
    pub count: usize,
}

/// `pool/`.
#[derive(Debug)]
pub struct Pool {
    directory: PathBuf,
    max_age: Duration,
}

impl Pool {
    /// The pool of the state directory `root`; entries older than `max_age` are not used.
    pub fn new(root: &Path, max_age: Duration) -> Self {
        Self { directory: root.join(POOL), max_age }
    }

    /// The directory.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Where keys of one length are.
    fn of_length(&self, length: KeyLength) -> PathBuf {
        self.directory.join(length.to_string())
    }

    /// Moves a key of the pool into the empty staged home and returns its keygrip; `None` when there
    /// is none. Entries that are damaged or too old are discarded on the way.
    pub fn claim(&self, length: KeyLength, staged: &StagedHome) -> Result<Option<Keygrip>> {
        let max_age = self.max_age;
        let directory = self.of_length(length);
        let entries = match fs::read_dir(&directory) {
            Ok(entries) => entries,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            // Keys can be made without it.
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

    /// How many entries of a length there are.
    pub fn count(&self, length: KeyLength) -> Result<usize> {
        Ok(names_in(&self.of_length(length))?.len())
    }
}

/// The keygrip of an entry that is whole and not older than `max_age`.
fn check(
    home: &Path,
    name: &std::ffi::OsStr,
    max_age: Duration,
) -> std::result::Result<Keygrip, String> {
    let keygrip =
        name.to_str().and_then(Keygrip::parse).ok_or("its name is no keygrip".to_owned())?;
    let mut names = names_in(home).map_err(|e| e.to_string())?;
    names.sort();
    if names != [PASSPHRASE, SECRET_KEYS] {
        return Err(format!("it holds {names:?}"));
    }
    let contents = Contents::of(home, geteuid().as_raw(), Some(keygrip.clone()))
        .ok_or("it is gone".to_owned())?;
    // The keyring is made with the identity.
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

impl Store {
    /// Makes secret keys until `stock` is there; returns how many it made, and whether it was done.
    /// `stop` becomes readable when it is to end at once, which is no failure. Nothing is done for a
    /// length that another process fills.
    pub fn fill_pool(&self, stock: &[Stock], stop: BorrowedFd) -> Result<(usize, bool)> {
        let max_age = self.pool.max_age;
        let mut made = 0;
        for Stock { length, count } in stock {
            let directory = self.pool.of_length(*length);
            ensure_directory(&directory).map_err(Error::at("making", &directory))?;
            let Some(_filler) = lock(&directory).map_err(Error::at("locking", &directory))? else {
                log::info!("{length}: another process fills the pool");
                continue;
            };
            self.discard_old(*length, max_age)?;
            while self.pool.count(*length)? < *count {
                match self.add_to_pool(*length, stop)? {
                    true => made += 1,
                    false => return Ok((made, false)),
                }
            }
        }
        Ok((made, true))
    }

    /// Removes entries of a length that are too old or damaged.
    fn discard_old(&self, length: KeyLength, max_age: Duration) -> Result<()> {
        let directory = self.pool.of_length(length);
        for path in entries(&directory)? {
            let Err(why) = check(&path, path.file_name().unwrap_or_default(), max_age) else {
                continue;
            };
            // Into staging by rename, so that no request can claim it while it is being removed.
            let staged = self.staging.create()?;
            match durable::rename(&path, staged.path()) {
                Ok(()) => log::warn!("{}: discarded: {why}", path.display()),
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                Err(e) => log::warn!("{}: cannot be discarded: {e}", path.display()),
            }
        }
        Ok(())
    }

    /// Makes one key; `false` when it was told to stop.
    fn add_to_pool(&self, length: KeyLength, stop: BorrowedFd) -> Result<bool> {
        self.check_space()?;
        let staged = self.staging.create()?;
        self.passphrases.form()?;
        let phrase = Passphrases::fresh()?;
        let deadline = Instant::now() + FILL_TIME;
        let Some(keygrip) =
            self.gpg.generate_secret(staged.path(), &phrase, length, deadline, stop)?
        else {
            return Ok(false);
        };
        self.passphrases.write(staged.path(), &keygrip, &phrase)?;
        home::keep_only(staged.path(), &[PASSPHRASE, SECRET_KEYS])?;
        durable::sync_tree(staged.path())?;
        let target = self.pool.of_length(length).join(keygrip.as_str());
        durable::rename(staged.path(), &target).map_err(Error::at("adding", &target))?;
        Ok(true)
    }
}
