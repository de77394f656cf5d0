//! Chooses between several keys of one identity. gpg is asked which of them it has signed with until now, and
//! that key is imported.

use std::time::Instant;

use gpg::packets::RawCertificate;
use gpg::{Fingerprint, believable_at, clock, time_of_signature};

use crate::Store;
use crate::error::{Error, Result};
use crate::make::limits::KEY_TIME;
use crate::transfer::import::candidate::{Candidate, of_one_key};
use crate::transfer::import::one_key::{ImportOptions, ImportOutcome, write, write_secret_key};
use crate::transfer::import::source::ImportSource;

/// A key that is one of several of the same identity.
#[derive(Debug)]
pub struct Rival {
    /// The position of the certificate in the keyring.
    pub position: usize,
    pub candidate: Candidate,
    pub raw: RawCertificate,
}

impl Store {
    /// Imports one of `rivals`, which are all the keys of one identity in the order of the keyring. Calls
    /// `settled` with the position and the outcome of each.
    pub(crate) fn settle_contest(
        &self,
        source: &ImportSource,
        options: ImportOptions,
        rivals: &[Rival],
        mut settled: impl FnMut(usize, ImportOutcome),
    ) -> Result<()> {
        let chosen = of_one_key(self.choose(source, rivals))?;
        for Rival { position, candidate, raw } in rivals {
            let outcome = match &chosen {
                Ok(fingerprint) if *fingerprint == candidate.fingerprint => {
                    self.import_candidate(source, options, candidate, raw)?
                }
                Ok(fingerprint) => ImportOutcome::LeftOut(candidate.outranked(fingerprint)),
                Err(reason) => ImportOutcome::LeftOut(candidate.left_out(format!(
                    "there are several keys of it, and none can be chosen: {reason}"
                ))),
            };
            settled(*position, outcome);
        }
        Ok(())
    }

    /// Asks gpg which key it signs with, as obs-signd does, in a keyring that holds the keys in their old
    /// order. If all of them have expired, determines the key that gpg used last.
    fn choose(&self, source: &ImportSource, rivals: &[Rival]) -> Result<Fingerprint> {
        let deadline = Instant::now() + KEY_TIME;
        let staged = self.staging.create()?;
        let file = staged.scratch().join("certificates.pgp");
        let bytes: Vec<_> = rivals.iter().map(|rival| &rival.raw.bytes[..]).collect();
        write(&file, &bytes.concat())?;
        let now = clock::believed()?;
        let candidates = || rivals.iter().map(|rival| &rival.candidate);
        candidates().try_for_each(|candidate| candidate.check_clock(now))?;
        let created = candidates().map(|candidate| candidate.created).max().unwrap_or_default();
        self.gpg
            .import(staged.path(), &file, believable_at(now, created), deadline)
            .map_err(|error| self.check_space().err().unwrap_or(error.into()))?;
        for candidate in candidates() {
            write_secret_key(source, candidate, staged.path())?;
        }
        let Some(name_email) = candidates().map(|candidate| &candidate.name_email).next() else {
            return Err(Error::Refused("there are none".into()));
        };
        let phrase = source.phrase(name_email)?.unwrap_or_default();
        let never = candidates().any(|candidate| candidate.expires.is_none());
        let last = candidates().filter_map(|candidate| candidate.expires).max();
        let at = time_of_signature(now, 0, last.filter(|_| !never));
        Ok(self.gpg.who_signs(staged.path(), &phrase, name_email.as_str(), at, deadline)?)
    }
}
