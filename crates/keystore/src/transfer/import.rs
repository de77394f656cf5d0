//! Imports the keys of a GnuPG home that many keys share, each into a home of its own. The keyring is read
//! once. A key that cannot be imported is reported and never dropped silently. The import can be killed at any
//! time and run again.

mod candidate;
mod contest;
mod keyless;
pub(crate) mod one_key;
pub(crate) mod source;
mod unread;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::{self, File};
use std::io::BufReader;
use std::sync::Mutex;

use gpg::packets::{Certificates, RawCertificate};
use gpg::{Fingerprint, Keyring, clock};

use crate::error::{Error, Result};
use crate::identity::NameEmail;
use crate::transfer::import::candidate::{Assessed, Candidate, assess, of_one_key, shadowed};
use crate::transfer::import::contest::Rival;
use crate::transfer::import::one_key::{ImportOptions, ImportOutcome};
use crate::transfer::import::source::ImportSource;
use crate::transfer::report::{ImportReport, Loss, MissingKey, NamedKey};
use crate::{Store, interrupt, parallel};

/// What to do with one certificate.
enum Verdict {
    /// The outcome is known already.
    Settled(ImportOutcome),
    /// The certificate gets a home.
    Import(Candidate),
    /// The certificate is one of several of the same identity.
    Contest(Candidate),
}

/// The fingerprints of all candidates, by identity.
type Rivals = HashMap<NameEmail, Vec<Fingerprint>>;

/// One pass through the keyring: the part that is still to be read, and the results for the rest.
struct KeyringPass<'a> {
    certificates: Certificates<BufReader<File>>,
    verdicts: std::iter::Enumerate<std::vec::IntoIter<Verdict>>,
    /// The outcomes, each with its position in the keyring.
    outcomes: Vec<(usize, ImportOutcome)>,
    contests: BTreeMap<NameEmail, Vec<Rival>>,
    stopped: Option<Error>,
    /// Called with the number of keys done and the total.
    progress: &'a (dyn Fn(usize, usize) + Sync),
    total: usize,
}

impl Store {
    /// Imports the keys of `source`. The call fails only before the first key is imported. An error that ends
    /// the import later is in the report.
    pub fn import(
        &self,
        source: &ImportSource,
        options: ImportOptions,
        progress: &(dyn Fn(usize, usize) + Sync),
    ) -> Result<ImportReport> {
        let now = clock::believed()?;
        let snapshot = self.staging.create()?;
        let file = snapshot.scratch().join("snapshot.gpg");
        // The keyring may be in use, so from here on only this copy is read.
        match source.pubring() {
            Some(pubring) => {
                self.gpg.export_all(Keyring { home: snapshot.path(), file: pubring }, &file)?;
            }
            None => fs::write(&file, "").map_err(Error::at("making", &file))?,
        }
        let keyring = Keyring { home: snapshot.path(), file: &file };
        let mut assessed = Vec::new();
        let mut known = HashSet::new();
        self.gpg.list_all(keyring, &snapshot.scratch().join("listing"), |certificate| {
            assessed.push(assess(&certificate, source));
            known.extend(certificate.keygrip.into_iter().chain(certificate.subkey_keygrips));
        })?;
        let mut assessed = assessed.into_iter().collect::<Result<Vec<_>>>()?;
        let unread = self.find_unread(source, &known, &mut assessed)?;
        let (keyless, strange_phrases) =
            self.find_keyless(source, keyring, &assessed, &unread, options.jobs)?;
        let shadowed = shadowed(&assessed);
        let mut rivals = Rivals::new();
        for candidate in assessed.iter().flatten() {
            let fingerprints = rivals.entry(candidate.name_email.clone()).or_default();
            fingerprints.push(candidate.fingerprint.clone());
        }
        let verdicts = assessed.into_iter().map(|one| self.judge(one, &rivals, now, options));
        let verdicts = verdicts.collect::<Result<Vec<_>>>()?;

        let export = File::open(&file).map_err(Error::at("reading", &file))?;
        let pass = Mutex::new(KeyringPass {
            certificates: Certificates::new(BufReader::new(export)),
            total: verdicts.len(),
            verdicts: verdicts.into_iter().enumerate(),
            outcomes: Vec::new(),
            contests: BTreeMap::new(),
            stopped: None,
            progress,
        });
        let at_work = interrupt::work();
        parallel::on_threads(options.jobs, || {
            loop {
                let next = parallel::lock(&pass).next();
                let Some((position, candidate, raw)) = next else { return };
                let result = self.import_candidate(source, options, &candidate, &raw);
                parallel::lock(&pass).take(position, result);
            }
        });
        let mut pass = parallel::into_inner(pass);
        for rivals in std::mem::take(&mut pass.contests).into_values() {
            if pass.is_stopped() {
                break;
            }
            let settled = |position, outcome| pass.take(position, Ok(outcome));
            if let Err(error) = self.settle_contest(source, options, &rivals, settled) {
                pass.stopped = Some(error);
            }
        }
        if !options.dry_run {
            // Make the links durable that keys with homes may have been given.
            pass.stopped = pass.stopped.or_else(|| self.on_disk.sync().err());
        }
        drop(at_work);
        Ok(ImportReport { shadowed, keyless, strange_phrases, unread, ..pass.report() })
    }

    /// Compares a certificate with the keys that have homes, and decides what to do with it. If the certificate
    /// has a home already, missing links are made.
    fn judge(
        &self,
        assessed: Assessed,
        rivals: &Rivals,
        now: u64,
        options: ImportOptions,
    ) -> Result<Verdict> {
        let left_out = |missing| Ok(Verdict::Settled(ImportOutcome::LeftOut(missing)));
        let candidate = match assessed {
            Ok(candidate) => candidate,
            Err(missing) => {
                return match self.has_its_key(&missing)? {
                    Some(key) => Ok(Verdict::Settled(ImportOutcome::Already(key))),
                    None => left_out(missing),
                };
            }
        };
        let Candidate { name_email, fingerprint, .. } = &candidate;
        let rivals = rivals.get(name_email).map_or(&[][..], Vec::as_slice);
        match of_one_key(self.homes.find(name_email))? {
            Err(reason) => left_out(candidate.left_out(reason)),
            Ok(Some(record)) if record.fingerprint == *fingerprint => {
                if !options.dry_run {
                    self.signd.add_secret_key(name_email, &record.keygrip)?;
                    self.signd.add_phrase(name_email)?;
                }
                Ok(Verdict::Settled(ImportOutcome::Already(candidate.named())))
            }
            // An earlier import has asked gpg which of the rivals signs.
            Ok(Some(record)) if rivals.contains(&record.fingerprint) => {
                left_out(candidate.outranked(&record.fingerprint))
            }
            Ok(Some(record)) => {
                let reason = format!("keys/ has another key of it, {}", record.fingerprint);
                left_out(candidate.left_out(reason))
            }
            Ok(None) if rivals.len() > 1 => Ok(Verdict::Contest(candidate)),
            Ok(None) => match of_one_key(candidate.check_clock(now))? {
                Err(reason) if candidate.unfit.is_none() => left_out(candidate.left_out(reason)),
                _ => Ok(Verdict::Import(candidate)),
            },
        }
    }
}

impl Store {
    /// Returns the key of a certificate whose secret key is not in the source, if an earlier import has taken it
    /// over.
    fn has_its_key(&self, missing: &MissingKey) -> Result<Option<NamedKey>> {
        let (Some(name_email), Loss::Signatures) = (&missing.name_email, missing.loss) else {
            return Ok(None);
        };
        let found = of_one_key(self.homes.find(name_email))?.ok().flatten();
        let is_same = |fingerprint: &Fingerprint| Some(fingerprint) == missing.fingerprint.as_ref();
        let fingerprint = found.map(|record| record.fingerprint).filter(is_same);
        Ok(fingerprint.map(|fingerprint| NamedKey { name_email: name_email.clone(), fingerprint }))
    }
}

impl KeyringPass<'_> {
    /// Returns the next key to import. Skips certificates that need no work, and sets those aside that compete
    /// for one identity.
    fn next(&mut self) -> Option<(usize, Candidate, RawCertificate)> {
        while !self.is_stopped() {
            let raw = self.certificates.next().transpose();
            match (raw, self.verdicts.next()) {
                (Ok(Some(raw)), Some((position, verdict))) => match verdict {
                    Verdict::Import(candidate) => return Some((position, candidate, raw)),
                    Verdict::Settled(outcome) => self.take(position, Ok(outcome)),
                    Verdict::Contest(candidate) => {
                        let rivals = self.contests.entry(candidate.name_email.clone()).or_default();
                        rivals.push(Rival { position, candidate, raw });
                    }
                },
                (Ok(None), None) => return None,
                (Ok(raw), _) => {
                    let place = raw.map_or("the end".into(), |raw| format!("byte {}", raw.offset));
                    self.stopped = Some(Error::Gpg(gpg::Error::Failed {
                        how: "it lists more or fewer certificates than it exports".into(),
                        words: format!("{} were listed, and the export is at {place}", self.total),
                    }));
                }
                (Err(e), _) => self.stopped = Some(Error::io("reading what gpg exported", e)),
            }
        }
        None
    }

    /// Records the outcome for a key, or the error that ends the pass.
    fn take(&mut self, position: usize, result: Result<ImportOutcome>) {
        match result {
            Ok(outcome) => {
                self.outcomes.push((position, outcome));
                (self.progress)(self.outcomes.len(), self.total);
            }
            Err(error) => drop(self.stopped.get_or_insert(error)),
        }
    }

    /// Whether the pass must end, because of an error or a signal.
    fn is_stopped(&mut self) -> bool {
        let left = || "the other keys are left; run the same command again to go on".into();
        self.stopped = self.stopped.take().or_else(|| interrupt::check(left).err());
        self.stopped.is_some()
    }

    fn report(mut self) -> ImportReport {
        self.outcomes.sort_by_key(|(position, _)| *position);
        let mut report = ImportReport { stopped: self.stopped, ..ImportReport::default() };
        for (_, outcome) in self.outcomes {
            match outcome {
                ImportOutcome::Imported(key) => report.imported.push(key),
                ImportOutcome::Already(key) => report.already.push(key),
                ImportOutcome::LeftOut(missing) => report.left_out.push(missing),
            }
        }
        report
    }
}
