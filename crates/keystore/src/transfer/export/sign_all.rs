//! Tries the keys that an export wrote, in the way in which obs-signd uses such a home. Plain gpg finds the key
//! by the name of the identity, the phrase opens it, and the signature must be one of this key. Nothing is left
//! in the new home: agents and sockets are in staging.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::time::Instant;

use gpg::{Fingerprint, Keyring, clock, time_of_signature};

use crate::Store;
use crate::error::{Error, Result};
use crate::files::small_files::read_file;
use crate::home::staging::StagedHome;
use crate::identity::NameEmail;
use crate::layout::SECRET_KEYS;
use crate::make::limits::KEY_TIME;
use crate::secrets::passphrase::first_line;
use crate::transfer::export::target::{ExportTarget, ExportedKey};
use crate::transfer::try_keys::try_keys;

/// The size limit in bytes, larger than any phrase file.
const PHRASE_MAX: u64 = 4096;

/// The identities, by the fingerprints of their keys.
type Names<'a> = HashMap<&'a Fingerprint, &'a NameEmail>;

impl Store {
    /// Signs as every identity in `keys`, on `jobs` threads. Returns the reason for each that cannot sign, and
    /// `None` for the others, in the order of `keys`. Calls `progress` with the number of keys done and the
    /// total.
    pub(crate) fn try_exported(
        &self,
        target: &ExportTarget,
        keys: &[ExportedKey],
        jobs: usize,
        progress: &(dyn Fn(usize, usize) + Sync),
    ) -> Result<Vec<Option<String>>> {
        let names: Names = keys.iter().map(|key| (&key.fingerprint, &key.name_email)).collect();
        let left = || target.left();
        try_keys(keys, jobs, progress, left, |key| self.try_one(target, key, &names))
    }

    /// Fails unless gpg signs with `key` for its identity. gpg may choose the key of another identity, which
    /// has another phrase, so the error names the key that gpg chose.
    fn try_one(&self, target: &ExportTarget, key: &ExportedKey, names: &Names) -> Result<()> {
        let staged = self.staging.create()?;
        let keyring = Keyring { home: staged.path(), file: &target.pubring() };
        let signed = self.sign_as(&staged, keyring, target, key);
        let taken = signed.as_ref().ok().cloned().or_else(|| {
            let deadline = Instant::now() + KEY_TIME;
            let found = self.gpg.found_as(keyring, key.name_email.as_str(), deadline);
            found.into_iter().next().map(|certificate| certificate.fingerprint)
        });
        match taken.filter(|taken| *taken != key.fingerprint) {
            Some(other) => Err(Error::Refused(format!(
                "it signs with the key of {}, as it takes a user for any part of a user ID and does not tell \
                 upper case from lower; export each into a directory of its own: copr-keygen export --to DIR \
                 '{}'",
                names.get(&other).map_or(other.as_str(), |name| name.as_str()),
                key.name_email
            ))),
            None => signed.map(drop),
        }
    }

    fn sign_as(
        &self,
        staged: &StagedHome,
        keyring: Keyring,
        target: &ExportTarget,
        key: &ExportedKey,
    ) -> Result<Fingerprint> {
        if key.revoked {
            return Err(Error::Refused("it is revoked".into()));
        }
        let phrase = read_file(&target.phrase(&key.name_email), PHRASE_MAX)?;
        let secret_keys = staged.path().join(SECRET_KEYS);
        symlink(target.secret_keys(), &secret_keys).map_err(Error::at("linking", &secret_keys))?;
        let at = time_of_signature(clock::now()?, key.created, key.expires);
        let (user, deadline) = (key.name_email.as_str(), Instant::now() + KEY_TIME);
        let signer = self.gpg.sign_as(keyring, first_line(&phrase), user, at, deadline);
        // Remove the link before the home in staging is removed with everything below it: the link leads into
        // the export.
        fs::remove_file(&secret_keys).map_err(Error::at("removing", &secret_keys))?;
        Ok(signer?)
    }
}
