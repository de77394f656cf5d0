//! Tries what an export wrote, as obs-signd used the old home: plain gpg finds the key by the name of the
//! identity, the phrase opens it, and the signature is one of this key. Nothing is left in the new home:
//! agents and sockets are in staging.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use gpg::{Certificate, Fingerprint, Keyring, clock, time_of_signature};

use crate::error::{Error, Result};
use crate::files::small_files::read_file;
use crate::identity::NameEmail;
use crate::layout::SECRET_KEYS;
use crate::secrets::passphrase::first_line;
use crate::transfer::export::FILE_MAX;
use crate::transfer::export::target::{Part, Target};
use crate::{Store, interrupt, parallel};

/// How long all of gpg's work for one key may take, beyond `gpg_timeout` for each run.
const KEY_TIME: Duration = Duration::from_secs(60);

/// What gpg lists of a key in the new keyring.
#[derive(Clone, Copy, Debug)]
pub struct Listed {
    created: u64,
    expires: Option<u64>,
    revoked: bool,
}

impl Store {
    /// What gpg finds in the new keyring.
    pub(crate) fn list_exported(&self, target: &Target) -> Result<HashMap<Fingerprint, Listed>> {
        let staged = self.staging.create()?;
        let pubring = target.pubring();
        let keyring = Keyring { home: staged.path(), file: &pubring };
        let mut listed = HashMap::new();
        self.gpg.list_all(keyring, &staged.scratch().join("listing"), |certificate| {
            let Certificate { fingerprint, created, expires, revoked, .. } = certificate;
            listed.insert(fingerprint, Listed { created, expires, revoked });
        })?;
        Ok(listed)
    }

    /// Whether gpg by itself reads in the home of `part` the certificate that was copied from there.
    pub(crate) fn doubt_about_certificate(&self, part: &Part) -> Option<String> {
        match self.catalog.certificate(&part.name_email) {
            Ok(certificate) if certificate.fingerprint == part.fingerprint => None,
            Ok(_) => Some(not_written(part)),
            Err(error) => Some(error.to_string()),
        }
    }

    /// Signs as every identity in `parts`, `jobs` at a time; returns why those cannot that cannot, in the
    /// order of `parts`. Calls `progress` with how many are done and how many there are.
    pub(crate) fn try_exported(
        &self,
        target: &Target,
        parts: &[Part],
        listed: &HashMap<Fingerprint, Listed>,
        jobs: usize,
        progress: &(dyn Fn(usize, usize) + Sync),
    ) -> Result<Vec<Option<String>>> {
        let names: HashMap<_, _> =
            parts.iter().map(|part| (&part.fingerprint, &part.name_email)).collect();
        let done = AtomicUsize::new(0);
        let tried = parallel::map(parts.iter().collect(), jobs, |part: &Part| {
            interrupt::check(|| target.left())?;
            let signer = listed
                .get(&part.fingerprint)
                .ok_or_else(|| Error::Refused(not_written(part)))
                .and_then(|known| self.sign_as(target, part, *known));
            let count = done.fetch_add(1, Ordering::Relaxed) + 1;
            progress(count, parts.len());
            match signer {
                Ok(signer) if signer == part.fingerprint => Ok(None),
                Err(
                    e @ (Error::Gpg(gpg::Error::NoSpace { .. })
                    | Error::Gpg(gpg::Error::Missing { .. })),
                ) => Err(e),
                failed => Ok(Some(self.doubt(target, part, failed, &names))),
            }
        });
        tried.into_iter().collect()
    }

    /// Why `part` does not sign: gpg takes the key of another identity, whose phrase is another one.
    fn doubt(
        &self,
        target: &Target,
        part: &Part,
        signed: Result<Fingerprint>,
        names: &HashMap<&Fingerprint, &NameEmail>,
    ) -> String {
        let taken = signed.as_ref().ok().cloned().or_else(|| self.taken_for(target, part).ok()?);
        match (taken.filter(|taken| *taken != part.fingerprint), signed) {
            (Some(other), _) => format!(
                "plain gpg signs for it with the key of {}, as it takes a user for any part of a user ID and \
                 does not tell upper case from lower; export each into a directory of its own: \
                 copr-keygen export --to DIR '{}'",
                names.get(&other).map_or(other.as_str(), |name| name.as_str()),
                part.name_email
            ),
            (None, Err(e)) => format!("plain gpg cannot sign for it: {e}"),
            (None, Ok(_)) => "plain gpg signs for it with none of these keys".into(),
        }
    }

    /// The key gpg finds first under the name of `part`.
    fn taken_for(&self, target: &Target, part: &Part) -> Result<Option<Fingerprint>> {
        let staged = self.staging.create()?;
        let pubring = target.pubring();
        let keyring = Keyring { home: staged.path(), file: &pubring };
        let deadline = Instant::now() + KEY_TIME;
        let found = self.gpg.found_as(keyring, part.name_email.as_str(), deadline);
        Ok(found.into_iter().next().map(|certificate| certificate.fingerprint))
    }

    fn sign_as(&self, target: &Target, part: &Part, known: Listed) -> Result<Fingerprint> {
        if known.revoked {
            return Err(Error::Refused("it is revoked".into()));
        }
        let phrase = read_file(&target.phrase(&part.name_email), FILE_MAX)?;
        let staged = self.staging.create()?;
        let secret_keys = staged.path().join(SECRET_KEYS);
        symlink(target.secret_keys(), &secret_keys).map_err(Error::at("linking", &secret_keys))?;
        let pubring = target.pubring();
        let keyring = Keyring { home: staged.path(), file: &pubring };
        let at = time_of_signature(clock::now()?, known.created, known.expires);
        let deadline = Instant::now() + KEY_TIME;
        let user = part.name_email.as_str();
        let signer = self.gpg.sign_as(keyring, first_line(&phrase), user, at, deadline);
        // The home is cleared with all below it, and this link leads elsewhere.
        fs::remove_file(&secret_keys).map_err(Error::at("removing", &secret_keys))?;
        Ok(signer?)
    }
}

/// That a keyring does not hold the certificate which its home is about.
pub fn not_written(part: &Part) -> String {
    format!(
        "its pubring.kbx is not what was written when the key was made: there is no certificate {} in it; \
         `copr-keygen check --deep` says what to do",
        part.fingerprint
    )
}
