//! Proves that the imported keys sign as the old keys did. Each key signs through the links that obs-signd will
//! use, and the signature is verified with the certificates of the old keyring.

use std::time::Instant;

use gpg::Keyring;

use crate::Store;
use crate::error::{Error, Result};
use crate::home::record::KeyRecord;
use crate::home::trial::try_copy;
use crate::make::limits::KEY_TIME;
use crate::transfer::import::source::ImportSource;
use crate::transfer::report::NamedKey;
use crate::transfer::try_keys::try_keys;

impl Store {
    /// Tries every key of `moved`. Returns the reason for each that failed, and `None` for the others, in the
    /// order of `moved`.
    pub(crate) fn prove(
        &self,
        source: &ImportSource,
        moved: &[NamedKey],
        jobs: usize,
        progress: &(dyn Fn(usize, usize) + Sync),
    ) -> Result<Vec<Option<String>>> {
        let Some(pubring) = source.pubring() else { return Ok(Vec::new()) };
        let apart = self.staging.create()?;
        let file = apart.scratch().join("old.gpg");
        self.gpg.export_all(Keyring { home: apart.path(), file: pubring }, &file)?;
        let keyring = Keyring { home: apart.path(), file: &file };
        let left = || "the old service's keyring is still in place".to_owned();
        try_keys(moved, jobs, progress, left, |key| self.prove_one(key, keyring))
    }

    fn prove_one(&self, key: &NamedKey, old: Keyring) -> Result<()> {
        let NamedKey { name_email, fingerprint } = key;
        let Some(record) = self.homes.find(name_email)? else {
            return Err(Error::NoKey(name_email.clone()));
        };
        self.signd.add_secret_key(name_email, &record.keygrip)?;
        self.signd.add_phrase(name_email)?;
        let phrase = self.passphrases.read(&self.homes.path(name_email), &record.keygrip)?;
        let files = [&self.homes.pubring(name_email), self.signd.secret_keys()];
        let key = KeyRecord { fingerprint: fingerprint.clone(), ..record };
        // The secret key is copied through the link that signd will use.
        let deadline = Instant::now() + KEY_TIME;
        try_copy(&self.gpg, &self.staging, files, &phrase, &key, Some(old), deadline)
    }
}
