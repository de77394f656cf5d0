//! Proves that what was taken over signs as the old keys did: a signature of each key, made through the
//! links that obs-signd will use and verified with the certificates of the old keyring.

use std::fs;
use std::os::unix::fs::symlink;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::{Moved, Source};
use crate::clock;
use crate::error::{Error, Result};
use crate::gpg::{Keyring, time_of_signature};
use crate::keys::Store;
use crate::keys::home::{PUBRING, SECRET_KEYS};

/// How long all of gpg's work for one key may take, beyond `gpg_timeout` for each run.
const KEY_TIME: Duration = Duration::from_secs(60);

impl Store {
    /// Tries every key of `moved`; returns those that failed, each with the reason.
    pub(super) fn prove(
        &self,
        source: &Source,
        moved: &[Moved],
        jobs: usize,
        progress: &(dyn Fn(usize, usize) + Sync),
    ) -> Result<Vec<(Moved, Error)>> {
        let apart = self.staging.create()?;
        let file = apart.scratch().join("old.gpg");
        self.gpg.export_all(Keyring { home: apart.path(), file: source.pubring() }, &file)?;
        let keyring = Keyring { home: apart.path(), file: &file };
        let (next, failed) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
        std::thread::scope(|scope| {
            for _ in 0..jobs {
                scope.spawn(|| {
                    while let Some(key) = moved.get(next.fetch_add(1, Ordering::Relaxed)) {
                        if let Err(error) = self.prove_one(key, keyring) {
                            let mut failed = failed.lock().unwrap_or_else(PoisonError::into_inner);
                            failed.push((key.clone(), error));
                        }
                        progress(next.load(Ordering::Relaxed).min(moved.len()), moved.len());
                    }
                });
            }
        });
        Ok(failed.into_inner().unwrap_or_else(PoisonError::into_inner))
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
        let preparing = |e| Error::io(format!("preparing {}", work.display()), e);
        fs::copy(self.homes.pubring(name_email), work.join(PUBRING)).map_err(preparing)?;
        // The agent finds the key as that of signd will: by the link.
        let secret_keys = self.signd.secret_keys().canonicalize().map_err(preparing)?;
        symlink(secret_keys, work.join(SECRET_KEYS)).map_err(preparing)?;
        let phrase = self.passphrases.read(&self.homes.path(name_email), &record.keygrip)?;
        let at = time_of_signature(clock::believed()?, record.created, record.expires);
        let deadline = Instant::now() + KEY_TIME;
        self.gpg.try_signature_apart(work, &phrase, &key.fingerprint, at, deadline, Some(old))
    }
}
