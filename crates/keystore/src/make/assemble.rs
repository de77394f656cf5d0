//! Assembles a key from elsewhere in staging, and tries whether it is what it claims to be before anybody
//! sees it. No file is trusted: the certificate is inspected, and a signature is made.

use std::path::Path;
use std::time::Instant;

use gpg::{Certificate, Keyring, Protection, Signature, clock};

use crate::Store;
use crate::error::{Error, Result};
use crate::files::remove_file;
use crate::home::finishing;
use crate::home::home_files::{HomeFileName, HomeFiles};
use crate::home::record::KeyRecord;
use crate::home::trial::{protect_key, try_key};
use crate::identity::NameEmail;
use crate::layout::{PASSPHRASE, PUBRING};
use crate::make::limits::KEY_TIME;

impl Store {
    /// Writes `files` into `home`, an empty staged home, and tries the key. Afterwards the home can be
    /// published as the key of `name_email`. A revoked key cannot make a signature, so for it the keygrip in
    /// its certificate is enough.
    pub(crate) fn assemble(
        &self,
        home: &Path,
        name_email: &NameEmail,
        files: &HomeFiles,
    ) -> Result<(KeyRecord, Certificate)> {
        let deadline = Instant::now() + KEY_TIME;
        let now = clock::believed()?;
        let refused = |why: &str| Err(Error::Refused(format!("this is not a whole key: {why}")));
        if let Some(problem) = files.problem() {
            return refused(&format!("it {problem}"));
        }
        let Some(mut record) = files.record() else { return refused("it has no name") };
        let file = self.homes.path(name_email).join(PASSPHRASE);
        let phrase = self.passphrases.open(&file, &record.keygrip, files.passphrase());
        let phrase = phrase.map_err(|error| match error {
            Error::Gpg(gpg::Error::DamagedHome { reason, .. }) => {
                Error::Refused(format!("this is not a whole key: its passphrase {reason}"))
            }
            error => error,
        })?;
        files.write(home)?;
        let phrase = match files.protection() {
            // A secret key that had no passphrase elsewhere gets one here.
            Some(Protection::None) => {
                let KeyRecord { fingerprint, keygrip, .. } = &record;
                log::warn!(
                    "the secret key {fingerprint} had no passphrase; it gets a fresh one here"
                );
                protect_key(&self.gpg, home, fingerprint, keygrip, None, deadline)?
                    .ok_or_else(|| Error::Refused("gpg left its secret key unprotected".into()))?
            }
            // The trial signature shows whether the passphrase unlocks the key.
            _ => phrase,
        };
        self.passphrases.write(home, &record.keygrip, &phrase)?;
        let pubring = home.join(PUBRING);
        let keyring = Keyring { home, file: &pubring };
        let certificate = self.gpg.inspect_one(keyring, deadline)?;
        if certificate.fingerprint != record.fingerprint {
            return refused(&format!(
                "its certificate is of {}, the rest of {}",
                certificate.fingerprint, record.fingerprint
            ));
        }
        if certificate.keygrip.as_ref() != Some(&record.keygrip) {
            return refused("its certificate and its secret key do not belong together");
        }
        for grip in files.secret_keys() {
            if *grip != record.keygrip && !certificate.subkey_keygrips.contains(grip) {
                log::warn!(
                    "the secret key {grip} is not of {} and was left out",
                    record.fingerprint
                );
                remove_file(&home.join(HomeFileName::SecretKey(grip.clone()).to_string()))?;
            }
        }
        let is_signed = |index: usize| {
            let made = |signature: &&Signature| signature.on == index + 1 && signature.good;
            certificate.signatures.iter().filter(made).any(|s| certificate.is_self_signature(s))
        };
        let mut ids =
            certificate.user_ids.iter().enumerate().filter(|(_, id)| name_email.is_in(id));
        if !ids.any(|(index, _)| is_signed(index)) {
            return refused(&format!("its certificate is not of {name_email}"));
        }
        // From the cached record, keep only what gpg cannot know.
        record.learn(&certificate);
        if !certificate.revoked {
            try_key(&self.gpg, home, &phrase, &record, None, deadline)
                .or_else(|error| self.check_space().and(Err(error)))?;
        }
        record.changed = record.changed.clamp(record.created, now.max(record.created));
        finishing::finish(home, &record)?;
        Ok((record, certificate))
    }
}
