//! Makes secret keys in advance for `pool/`.

use std::io;
use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use gpg::KeyLength;

use crate::Store;
use crate::error::{Error, Result};
use crate::files::lock::lock;
use crate::files::{durable, ensure_directory, entries};
use crate::home::finishing;
use crate::layout::{PASSPHRASE, SECRET_KEYS};
use crate::make::pool::{check, is_entry};
use crate::secrets::passphrase::Passphrases;

/// The time limit for making one secret key at idle priority on a busy host. `gpg_timeout` does
/// not apply to it.
const FILL_TIME: Duration = Duration::from_secs(600);

/// How many keys of one length are kept ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stock {
    /// The length of the keys.
    pub length: KeyLength,
    /// The number of keys.
    pub count: usize,
}

impl Store {
    /// Makes secret keys until the pool holds `stock`. Returns the number of keys made, and `false` if it was
    /// stopped before it was done. `stop` becomes readable to stop it at once, which is not a failure. Skips
    /// a length that another process fills.
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
            // After a failure, such as a spoiled key, another key is made. Two failures in a row fail the run.
            let mut has_failed = false;
            while self.pool.count(*length)? < *count {
                match self.add_to_pool(*length, stop) {
                    Ok(true) => (made, has_failed) = (made + 1, false),
                    Ok(false) => return Ok((made, false)),
                    Err(error @ Error::Gpg(gpg::Error::Failed { .. })) if !has_failed => {
                        log::warn!("{length}: {error}; another one is made");
                        has_failed = true;
                    }
                    Err(error) => return Err(error),
                }
            }
        }
        Ok((made, true))
    }

    /// Discards entries of one length that are too old or damaged.
    fn discard_old(&self, length: KeyLength, max_age: Duration) -> Result<()> {
        let directory = self.pool.of_length(length);
        for path in entries(&directory)? {
            let name = path.file_name().unwrap_or_default();
            if !is_entry(&path) {
                log::warn!("{}: is no key of the pool, and was left alone", path.display());
                continue;
            }
            let Err(why) = check(&path, name, max_age) else { continue };
            // Move the entry to staging by rename, so that no request can claim it while it is being removed.
            let staged = self.staging.create()?;
            match durable::rename(&path, staged.path()) {
                Ok(()) => log::warn!("{}: discarded: {why}", path.display()),
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                Err(e) => log::warn!("{}: cannot be discarded: {e}", path.display()),
            }
        }
        Ok(())
    }

    /// Makes one key for the pool. Returns `false` if it was told to stop.
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
        finishing::keep_only(staged.path(), &[PASSPHRASE, SECRET_KEYS])?;
        durable::sync_tree(staged.path())?;
        let target = self.pool.of_length(length).join(keygrip.as_str());
        durable::rename(staged.path(), &target).map_err(Error::at("adding", &target))?;
        Ok(true)
    }
}
