//! Proves that what was taken over signs as the old keys did: a signature of each key, made through the
//! links that obs-signd will use and verified with the certificates of the old keyring.

use std::fs;
use std::os::unix::fs::symlink;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use gpg::{Keyring, clock, time_of_signature};

use crate::error::{Error, Result};
use crate::layout::{PUBRING, SECRET_KEYS};
use crate::transfer::import::one::KEY_TIME;
use crate::transfer::import::{Moved, Source};
use crate::{Store, interrupt, parallel};

impl Store {
    /// Tries every key of `moved`; returns those that failed, each with the reason.
    pub(crate) fn prove(
        &self,
        source: &Source,
        moved: &[Moved],
        jobs: usize,
        progress: &(dyn Fn(usize, usize) + Sync),
    ) -> Result<Vec<(Moved, Error)>> {
        let Some(pubring) = source.pubring() else { return Ok(Vec::new()) };
        let apart = self.staging.create()?;
        let file = apart.scratch().join("old.gpg");
        self.gpg.export_all(Keyring { home: apart.path(), file: pubring }, &file)?;
        let keyring = Keyring { home: apart.path(), file: &file };
        let done = AtomicUsize::new(0);
        let failed = parallel::map(moved.to_vec(), jobs, |key| {
            let left = || "the old service's keyring is still in place".to_owned();
            let error = interrupt::check(left).and_then(|()| self.prove_one(&key, keyring)).err();
            progress(done.fetch_add(1, Ordering::Relaxed) + 1, moved.len());
            error.map(|error| (key, error))
        });
        Ok(failed.into_iter().flatten().collect())
    }

    fn prove_one(&self, key: &Moved, old: Keyring) -> Result<()> {
        let name_email = &key.name_email;
        let Some(record) = self.homes.find(name_email)? else {
            return Err(Error::NoKey(name_email.clone()));
        };
        self.signd.add_secret_key(name_email, &record.keygrip)?;
        self.signd.add_phrase(name_email)?;
        let staged = self.staging.create()?;
        let work = staged.path();
        let preparing = Error::at("preparing", work);
        fs::copy(self.homes.pubring(name_email), work.join(PUBRING)).map_err(preparing)?;
        // The agent finds the key as that of signd will: by the link.
        let secret_keys = self.signd.secret_keys().canonicalize().map_err(preparing)?;
        symlink(secret_keys, work.join(SECRET_KEYS)).map_err(preparing)?;
        let phrase = self.passphrases.read(&self.homes.path(name_email), &record.keygrip)?;
        let at = time_of_signature(clock::believed()?, record.created, record.expires);
        let deadline = Instant::now() + KEY_TIME;
        Ok(self.gpg.try_signature(work, &phrase, &key.fingerprint, at, Some(old), deadline)?)
    }
}
