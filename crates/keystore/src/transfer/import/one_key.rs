//! Makes a home from one certificate and its secret key. The home is staged, the key is protected and tried by
//! a signature, and only then is the home published. No signature on the certificate is dropped.

use std::path::Path;
use std::time::Instant;
use std::{fs, io};

use gpg::packets::RawCertificate;
use gpg::{Certificate, Keyring, Protection, believable_at, clock};
use zeroize::Zeroizing;

use crate::Store;
use crate::error::{Error, Result};
use crate::files::ensure_directory;
use crate::home::finishing::finish;
use crate::home::record::KeyRecord;
use crate::home::staging::StagedHome;
use crate::home::trial::{protect_key, try_key};
use crate::layout::{PUBRING, REVOCATIONS, SECRET_KEYS, revocation_file};
use crate::make::limits::KEY_TIME;
use crate::secrets::passphrase::{Passphrases, Phrase};
use crate::transfer::import::candidate::{Candidate, of_one_key};
use crate::transfer::import::source::ImportSource;
use crate::transfer::report::{MissingKey, NamedKey};
use crate::view::publish::Publication;

/// The options of an import.
#[derive(Clone, Copy, Debug)]
pub struct ImportOptions {
    /// Whether to give each secret key a fresh passphrase.
    pub protect: bool,
    /// Whether to report only what would be done.
    pub dry_run: bool,
    /// The number of keys to work on in parallel.
    pub jobs: usize,
}

/// The outcome for a certificate.
#[derive(Debug)]
pub enum ImportOutcome {
    /// The certificate has a home now.
    Imported(NamedKey),
    /// The certificate had a home before.
    Already(NamedKey),
    /// The certificate was not imported.
    LeftOut(MissingKey),
}

/// A key in staging that is being imported.
struct KeyInStaging<'a> {
    store: &'a Store,
    source: &'a ImportSource,
    candidate: &'a Candidate,
    staged: StagedHome<'a>,
    deadline: Instant,
}

impl Store {
    /// Imports a candidate if possible. Fails only with errors that end the whole import.
    pub(crate) fn import_candidate(
        &self,
        source: &ImportSource,
        options: ImportOptions,
        candidate: &Candidate,
        raw: &RawCertificate,
    ) -> Result<ImportOutcome> {
        let result = match (candidate.unfit, options.dry_run) {
            (Some(reason), _) => Err(Error::Refused(reason.into())),
            (None, true) => Ok(true),
            (None, false) => self
                .import_one(source, options.protect, candidate, raw)
                .or_else(|error| match error {
                    Error::Gpg(error) if error.is_spoiled_key() => {
                        log::warn!("{}: {error}; tried once more", candidate.fingerprint);
                        self.import_one(source, options.protect, candidate, raw)
                    }
                    error => Err(error),
                })
                // A full disk makes gpg and its agent fail with various errors, so check the space to find the
                // real cause.
                .map_err(|error| self.check_space().err().unwrap_or(error)),
        };
        Ok(match of_one_key(result)? {
            Ok(true) => ImportOutcome::Imported(candidate.named()),
            Ok(false) => ImportOutcome::Already(candidate.named()),
            Err(reason) => ImportOutcome::LeftOut(candidate.left_out(reason)),
        })
    }

    /// Imports a candidate into a home. Returns `false` if another process has imported the same key in the
    /// meantime.
    fn import_one(
        &self,
        source: &ImportSource,
        protect: bool,
        candidate: &Candidate,
        raw: &RawCertificate,
    ) -> Result<bool> {
        self.check_space()?;
        let (staged, deadline) = (self.staging.create()?, Instant::now() + KEY_TIME);
        let key = KeyInStaging { store: self, source, candidate, staged, deadline };
        let certificate = key.stage_certificate(raw)?;
        let changed = clock::believed()?;
        let record = KeyRecord::of_certificate(&certificate, candidate.keygrip.clone(), changed);
        let phrase = key.stage_secret_key(protect)?;
        let home = key.staged.path();
        self.passphrases.write(home, &record.keygrip, &phrase)?;
        match try_key(&self.gpg, home, &phrase, &record, None, deadline) {
            Err(Error::Gpg(error)) if error.is_spoiled_key() => return Err(error.into()),
            tried => of_one_key(tried)?.map_err(|reason| {
                Error::Refused(format!("no signature can be made with it: {reason}"))
            })?,
        }
        key.stage_revocation(&phrase)?;
        finish(home, &record)?;
        match self.publish(key.staged, &candidate.name_email, &record.keygrip)? {
            Publication::Done => Ok(true),
            Publication::Lost => match self.homes.find(&candidate.name_email)? {
                Some(there) if there.fingerprint == record.fingerprint => Ok(false),
                _ => Err(Error::Refused("another key of it was made meanwhile".into())),
            },
        }
    }
}

impl KeyInStaging<'_> {
    /// Has gpg make a keyring from the certificate, and checks that no signature was dropped.
    fn stage_certificate(&self, raw: &RawCertificate) -> Result<Certificate> {
        let Candidate { fingerprint, keygrip, created, .. } = self.candidate;
        let (gpg, home) = (&self.store.gpg, self.staged.path());
        let file = self.staged.scratch().join("certificate.pgp");
        write(&file, &raw.bytes)?;
        gpg.import(home, &file, believable_at(clock::now()?, *created), self.deadline)?;
        let keyring = Keyring { home, file: &home.join(PUBRING) };
        let certificate = gpg.inspect_one(keyring, self.deadline)?;
        if certificate.fingerprint != *fingerprint {
            // The listing and the export must have the certificates in the same order. If not, end the import.
            let words = format!("{fingerprint} was listed, {} is there", certificate.fingerprint);
            let doing =
                format!("finding a listed certificate at byte {} of the export", raw.offset);
            return Err(Error::io(doing, io::Error::other(words)));
        }
        if certificate.keygrip.as_ref() != Some(keygrip) {
            return Err(Error::Refused("gpg reads two keygrips out of it".into()));
        }
        let kept = certificate.signatures.len();
        if kept < raw.signatures {
            return Err(Error::Refused(format!(
                "gpg takes only {kept} of the {} signatures on it; look at it with gpg --check-sigs, and \
                 clean it in a copy of the keyring",
                raw.signatures
            )));
        }
        Ok(certificate)
    }

    /// Copies the secret key, gives it a fresh passphrase if `protect` is set, and returns the passphrase that
    /// opens it.
    fn stage_secret_key(&self, protect: bool) -> Result<Phrase> {
        let refuse = |reason: &str| Err(Error::Refused(reason.into()));
        let Candidate { name_email, fingerprint, keygrip, .. } = self.candidate;
        let home = self.staged.path();
        let Some(secret) = write_secret_key(self.source, self.candidate, home)? else {
            return refuse("its secret key is gone");
        };
        let is_protected = Protection::of(&secret) == Some(Protection::Passphrase);
        let old = match is_protected || !protect {
            true => self.source.phrase(name_email)?,
            false => None,
        };
        let phrases = self.source.phrases_name();
        match (old, protect) {
            (None, _) if is_protected => {
                refuse(&format!("its secret key is protected, and {phrases} has no phrase for it"))
            }
            // signd sends a passphrase even for a key that needs none.
            (None, false) => Passphrases::fresh(),
            (Some(old), false) => Ok(old),
            (old, true) => {
                let (gpg, old) = (&self.store.gpg, old.as_ref().map(|old| old.as_slice()));
                match protect_key(gpg, home, fingerprint, keygrip, old, self.deadline)? {
                    Some(new) => Ok(new),
                    None => refuse(&format!(
                        "its secret key is protected, and the phrase in {phrases} is wrong"
                    )),
                }
            }
        }
    }

    /// Copies the revocation certificate, or makes one if there is none.
    fn stage_revocation(&self, phrase: &[u8]) -> Result<()> {
        let fingerprint = &self.candidate.fingerprint;
        let (home, scratch) = (self.staged.path(), self.staged.scratch());
        let directory = home.join(REVOCATIONS);
        ensure_directory(&directory).map_err(Error::at("making", &directory))?;
        let text = match self.source.revocation(fingerprint)? {
            Some(text) => text,
            None => {
                let (gpg, deadline) = (&self.store.gpg, self.deadline);
                let armored = gpg.make_revocation(home, phrase, fingerprint, scratch, deadline)?;
                // The format is that of gpg: the colon keeps the certificate from being imported by mistake.
                let head = b"Revocation certificate. To use it, remove the colon below.\n\n:";
                [&head[..], &armored].concat().into()
            }
        };
        write(&directory.join(revocation_file(fingerprint)), &text)
    }
}

/// Copies a secret key into a home in staging and returns its content. Returns `None` if the source does not
/// have it.
pub fn write_secret_key(
    source: &ImportSource,
    candidate: &Candidate,
    home: &Path,
) -> Result<Option<Zeroizing<Vec<u8>>>> {
    let Some(secret) = source.secret_key(&candidate.keygrip)? else { return Ok(None) };
    let directory = home.join(SECRET_KEYS);
    // gpg may have made the directory already.
    ensure_directory(&directory).map_err(Error::at("making", &directory))?;
    write(&directory.join(candidate.keygrip.file_name()), &secret)?;
    Ok(Some(secret))
}

/// Writes a file in staging.
pub fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    fs::write(path, bytes).map_err(Error::at("writing", path))
}
