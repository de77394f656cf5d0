//! Makes a home of one certificate and its secret key: staged, protected, proved by a signature, and
//! only then published. Nothing is dropped from the certificate on the way, whoever has signed it.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use gpg::packets::RawCertificate;
use gpg::{Certificate, Fingerprint, Keyring, Protection, believable_at, clock, time_of_signature};

use crate::Store;
use crate::error::{Error, Result};
use crate::files::ensure_directory;
use crate::home::finishing;
use crate::home::record::{self, KeyRecord};
use crate::home::staging::StagedHome;
use crate::layout::{PUBRING, REVOCATIONS, SECRET_KEYS, revocation_file};
use crate::secrets::passphrase::{Passphrases, Phrase};
use crate::transfer::import::plan::Candidate;
use crate::transfer::import::source::Source;
use crate::transfer::import::{Fate, Obstacle};
use crate::view::publish::Publication;

/// How long all of gpg's work for one key may take, beyond `gpg_timeout` for each run.
pub(crate) const KEY_TIME: Duration = Duration::from_secs(60);

impl Store {
    /// Imports one key, protected afresh if `protect`.
    pub(crate) fn import_one(
        &self,
        source: &Source,
        raw: &RawCertificate,
        candidate: &Candidate,
        protect: bool,
    ) -> std::result::Result<Fate, Obstacle> {
        if let Some(reason) = candidate.unfit {
            return Err(Obstacle::Key(reason.into()));
        }
        let deadline = Instant::now() + KEY_TIME;
        self.check_space()?;
        let staged = self.staging.create()?;
        let work = staged.path();
        let certificate = self.stage_certificate(&staged, raw, candidate, deadline)?;
        if certificate.keygrip.as_ref() != Some(&candidate.keygrip) {
            return Err(Obstacle::Key("gpg reads two keygrips out of it".into()));
        }
        let now = clock::believed()?;
        let record = KeyRecord {
            fingerprint: certificate.fingerprint,
            keygrip: candidate.keygrip.clone(),
            algorithm: certificate.algorithm,
            created: certificate.created,
            expires: certificate.expires,
            changed: now,
        };
        let phrase = self
            .stage_secret(source, candidate, work, protect, deadline)
            .map_err(|obstacle| self.explain(obstacle))?;
        self.passphrases.write(work, &record.keygrip, &phrase)?;
        let fingerprint = &record.fingerprint;
        let at = time_of_signature(now, record.created, record.expires);
        self.gpg
            .try_signature(work, &phrase, fingerprint, at, None, deadline)
            .map_err(|e| self.explain(e.into()).prefix("no signature can be made with it: "))?;
        self.stage_revocation(source, &staged, fingerprint, &phrase, deadline)
            .map_err(|obstacle| self.explain(obstacle))?;

        finishing::finish_made(work, &record)?;
        let name_email = &candidate.name_email;
        match self.publish(staged, name_email, &record.keygrip)? {
            Publication::Done => Ok(Fate::Imported),
            Publication::Lost => match self.homes.find(name_email)? {
                Some(there) if there.fingerprint == record.fingerprint => Ok(Fate::Already),
                _ => Err(Obstacle::Key("another key of it was made meanwhile".into())),
            },
        }
    }

    /// Has gpg make a keyring of the certificate, and counts what is in it.
    fn stage_certificate(
        &self,
        staged: &StagedHome,
        raw: &RawCertificate,
        candidate: &Candidate,
        deadline: Instant,
    ) -> std::result::Result<Certificate, Obstacle> {
        let file = staged.scratch().join("certificate.pgp");
        write(&file, &raw.bytes)?;
        let (expected, at) =
            (&candidate.fingerprint, believable_at(clock::now()?, candidate.created));
        self.gpg.import(staged.path(), &file, at, deadline).map_err(|e| self.explain(e.into()))?;
        let pubring = staged.path().join(PUBRING);
        let keyring = Keyring { home: staged.path(), file: &pubring };
        let certificate = self.gpg.inspect_one(keyring, deadline)?;
        if certificate.fingerprint != *expected {
            // What was cut and what was listed are in the same order, or nothing may be done.
            return Err(Obstacle::All(Error::Gpg(gpg::Error::Failed {
                how: format!("it listed {expected} at byte {} of its own export", raw.offset),
                words: format!("there is {}", certificate.fingerprint),
            })));
        }
        let kept = certificate.signatures.len();
        if kept < raw.signatures {
            return Err(Obstacle::Key(format!(
                "gpg takes only {kept} of the {} signatures on it; look at it with gpg \
                 --check-sigs, and clean it in a copy of the keyring",
                raw.signatures
            )));
        }
        Ok(certificate)
    }

    /// Copies the secret key; returns the passphrase that opens it.
    fn stage_secret(
        &self,
        source: &Source,
        candidate: &Candidate,
        work: &Path,
        protect: bool,
        deadline: Instant,
    ) -> std::result::Result<Phrase, Obstacle> {
        let Some(secret) = source.secret_key(&candidate.keygrip)? else {
            return Err(Obstacle::Key("its secret key is gone".into()));
        };
        let directory = work.join(SECRET_KEYS);
        // gpg may have made it.
        ensure_directory(&directory).map_err(Error::at("making", &directory))?;
        let file = directory.join(candidate.keygrip.file_name());
        write(&file, &secret)?;
        let is_protected = Protection::of(&secret) == Some(Protection::Passphrase);
        let old = match is_protected || !protect {
            true => source.phrase(&candidate.name_email)?,
            false => None,
        };
        let phrases = source.phrases_name();
        let missing = || {
            let reason = format!("its secret key is protected, and {phrases} has no phrase for it");
            Obstacle::Key(reason)
        };
        if !protect {
            return match old {
                Some(old) => Ok(old),
                None if is_protected => Err(missing()),
                // signd must have something to say, even where nobody listens.
                None => Ok(Passphrases::fresh()?),
            };
        }
        let old = match (is_protected, old) {
            (true, None) => return Err(missing()),
            (true, old) => old,
            (false, _) => None,
        };
        let new = Passphrases::fresh()?;
        let fingerprint = &candidate.fingerprint;
        let old = old.as_ref().map(|old| old.as_slice());
        if !self.gpg.change_passphrase(work, fingerprint, old, &new, deadline)? {
            let reason =
                format!("its secret key is protected, and the phrase in {phrases} is wrong");
            return Err(Obstacle::Key(reason));
        }
        // gpg-agent trusts the name of the file when it reads, and the key in it when it writes.
        if record::secret_keys(work)? != [candidate.keygrip.clone()] {
            let name = candidate.keygrip.file_name();
            return Err(Obstacle::Key(format!("{name} holds the secret key of another one")));
        }
        if Protection::of(&read(&file)?) != Some(Protection::Passphrase) {
            return Err(Obstacle::Key("gpg left its secret key unprotected".into()));
        }
        Ok(new)
    }

    /// Takes the revocation certificate along, or makes one.
    fn stage_revocation(
        &self,
        source: &Source,
        staged: &StagedHome,
        fingerprint: &Fingerprint,
        phrase: &[u8],
        deadline: Instant,
    ) -> std::result::Result<(), Obstacle> {
        let directory = staged.path().join(REVOCATIONS);
        ensure_directory(&directory).map_err(Error::at("making", &directory))?;
        let text = match source.revocation(fingerprint)? {
            Some(text) => text,
            None => {
                let armored = self.gpg.make_revocation(
                    staged.path(),
                    phrase,
                    fingerprint,
                    staged.scratch(),
                    deadline,
                )?;
                // As gpg writes them: the colon keeps it from being imported by mistake.
                let mut text =
                    b"Revocation certificate. To use it, remove the colon below.\n\n:".to_vec();
                text.extend(armored);
                text.into()
            }
        };
        Ok(write(&directory.join(revocation_file(fingerprint)), &text)?)
    }

    /// A disk that got full looks like many things to gpg and its agent.
    pub(crate) fn explain(&self, obstacle: Obstacle) -> Obstacle {
        self.check_space().err().map_or(obstacle, Obstacle::All)
    }
}

fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    fs::write(path, bytes).map_err(Error::at("writing", path))
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).map_err(Error::at("reading", path))
}
