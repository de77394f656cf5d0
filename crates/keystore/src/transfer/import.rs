//! Imports the keys of a GnuPG home that many keys share, each into a home of its own. The keyring is
//! read once; what cannot be imported is reported and never dropped silently. Can be killed at any
//! time and run again.

mod in_place;
mod keyless;
mod one;
mod plan;
mod prove;
mod report;
mod source;
mod switch;
mod unread;

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::BufReader;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use gpg::packets::{Certificates, RawCertificate};
use gpg::{Fingerprint, Keyring, believable_at, clock, time_of_signature};

use crate::error::{Error, Result};
use crate::layout::SECRET_KEYS;
use crate::parallel::{into_inner, lock, on_threads};
use crate::{Store, interrupt};

pub use in_place::OldLayout;
pub use keyless::{Keyless, Phrases};
use plan::{Candidate, Plan, Verdict};
pub(crate) use report::text;
pub use report::{ImportReport, LeftOut, Moved, Shadowed};
pub use source::Source;
pub use unread::{Unread, way_out};

/// How long gpg may take to choose between keys.
const CHOICE_TIME: Duration = Duration::from_secs(60);

/// How to import.
#[derive(Clone, Copy, Debug)]
pub struct ImportOptions {
    /// Whether each secret key gets a fresh passphrase.
    pub protect: bool,
    /// Whether to say only what would be done.
    pub dry_run: bool,
    /// How many keys to work on at once.
    pub jobs: usize,
}

/// What became of a key that was to be imported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    Imported,
    Already,
}

/// What became of any key.
type Outcome = std::result::Result<(Moved, Fate), LeftOut>;

/// What keeps one key, or all of them, from being imported.
#[derive(Debug)]
pub(crate) enum Obstacle {
    Key(String),
    /// gpg signs with this other key of the identity.
    Outranked(Fingerprint),
    All(Error),
}

impl From<gpg::Error> for Obstacle {
    fn from(error: gpg::Error) -> Self {
        Error::from(error).into()
    }
}

impl From<Error> for Obstacle {
    fn from(error: Error) -> Self {
        match error {
            Error::Gpg(
                gpg::Error::Failed { .. }
                | gpg::Error::TimedOut { .. }
                | gpg::Error::DamagedHome { .. }
                | gpg::Error::Clock(_),
            )
            | Error::Occupied { .. }
            | Error::Refused(_) => Self::Key(error.to_string()),
            error => Self::All(error),
        }
    }
}

impl Obstacle {
    /// Takes apart what went wrong with one key, a sentence, and what goes wrong with all.
    fn of<T>(result: Result<T>) -> Result<std::result::Result<T, String>> {
        match result.map_err(Self::from) {
            Ok(value) => Ok(Ok(value)),
            Err(Self::All(error)) => Err(error),
            Err(Self::Key(reason)) => Ok(Err(reason)),
            Err(outranked @ Self::Outranked(_)) => Ok(Err(outranked.reason())),
        }
    }

    /// Why a key is left out.
    fn reason(self) -> String {
        match self {
            Self::Key(reason) => reason,
            Self::Outranked(by) => {
                format!("there are several keys of it, and gpg signs with {by}")
            }
            Self::All(error) => error.to_string(),
        }
    }

    fn prefix(self, words: &str) -> Self {
        match self {
            Self::Key(reason) => Self::Key(format!("{words}{reason}")),
            all => all,
        }
    }
}

/// One line of work: what has been read of the keyring, and what came of it.
struct Work<'a> {
    certificates: Certificates<BufReader<File>>,
    verdicts: std::iter::Enumerate<std::vec::IntoIter<Verdict>>,
    /// By position in the keyring.
    outcomes: Vec<(usize, Outcome)>,
    contests: HashMap<usize, Vec<(usize, Candidate, RawCertificate)>>,
    stopped: Option<Error>,
    /// Called with how many keys are done and how many there are.
    progress: &'a (dyn Fn(usize, usize) + Sync),
    total: usize,
}

impl Store {
    /// Imports the keys of `source`. Fails only before the first key is touched; what ends it later
    /// is in the report.
    pub fn import(
        &self,
        source: &Source,
        options: ImportOptions,
        progress: &(dyn Fn(usize, usize) + Sync),
    ) -> Result<ImportReport> {
        let now = clock::believed()?;
        let snapshot = self.staging.create()?;
        let file = snapshot.scratch().join("snapshot.gpg");
        // The keyring may be in use: from here on only this copy counts.
        match source.pubring() {
            Some(pubring) => {
                self.gpg.export_all(Keyring { home: snapshot.path(), file: pubring }, &file)?;
            }
            None => fs::write(&file, "").map_err(|e| Error::io("making an empty snapshot", e))?,
        }
        let mut assessed = Vec::new();
        let mut failed = None;
        let mut known = unread::Known::default();
        let keyring = Keyring { home: snapshot.path(), file: &file };
        self.gpg.list_all(keyring, &snapshot.scratch().join("listing"), |certificate| {
            known.note(&certificate);
            match plan::assess(certificate, source) {
                Ok(one) => assessed.push(one),
                Err(error) => failed = failed.take().or(Some(error)),
            }
        })?;
        if let Some(error) = failed {
            return Err(error);
        }
        let unread = self.find_unread(source, &known, &mut assessed)?;
        let shadowed = plan::shadowed(&assessed);
        let phrases = self.find_keyless(source, keyring, &assessed, &unread, options)?;
        let plan = Plan::make(self, assessed, now, options.dry_run)?;

        let opened = File::open(&file).map_err(reading_snapshot)?;
        let total = plan.verdicts.len();
        let work = Mutex::new(Work {
            certificates: Certificates::new(BufReader::new(opened)),
            verdicts: plan.verdicts.into_iter().enumerate(),
            outcomes: Vec::with_capacity(total),
            contests: HashMap::with_capacity(plan.contests),
            stopped: None,
            progress,
            total,
        });
        let at_work = interrupt::work();
        on_threads(options.jobs, || while self.import_next(source, options, &work) {});
        let mut work = into_inner(work);
        self.settle_contests(source, options, &mut work);
        if !options.dry_run {
            // Keys that were here already may have been given links.
            work.stopped = work.stopped.or_else(|| self.on_disk.sync().err());
        }
        drop(at_work);
        Ok(ImportReport { shadowed, phrases, unread, ..work.into_report() })
    }

    /// Takes the next key and imports it; `false` when there is none, or no use in going on.
    fn import_next(&self, source: &Source, options: ImportOptions, work: &Mutex<Work>) -> bool {
        let next = lock(work).next();
        let (position, candidate, raw) = match next {
            Ok(Some(next)) => next,
            Ok(None) => return false,
            Err(error) => {
                lock(work).stopped.get_or_insert(error);
                return false;
            }
        };
        let result = match options.dry_run {
            true => Ok(Fate::Imported),
            false => self.import_one(source, &raw, &candidate, options.protect),
        };
        lock(work).finish(position, &candidate, result)
    }

    /// Of several keys of one identity, imports the one gpg has signed with until now.
    fn settle_contests(&self, source: &Source, options: ImportOptions, work: &mut Work) {
        for rivals in std::mem::take(&mut work.contests).into_values() {
            if work.stopped.is_none() {
                let left = || "several keys of one identity are left; run it again to go on".into();
                work.stopped = interrupt::check(left).err();
            }
            if work.stopped.is_some() {
                return;
            }
            let chosen = self.choose(source, &rivals);
            for (position, candidate, raw) in rivals {
                let result = match &chosen {
                    Ok(fingerprint) if *fingerprint == candidate.fingerprint => {
                        match (candidate.unfit, options.dry_run) {
                            (None, true) => Ok(Fate::Imported),
                            _ => self.import_one(source, &raw, &candidate, options.protect),
                        }
                    }
                    Ok(fingerprint) => Err(Obstacle::Outranked(fingerprint.clone())),
                    Err(Obstacle::All(error)) => {
                        // Only its words are needed: the first one has stopped all.
                        Err(Obstacle::All(Error::Partly(error.to_string())))
                    }
                    Err(Obstacle::Key(reason)) => Err(Obstacle::Key(format!(
                        "there are several keys of it, and none can be chosen: {reason}"
                    ))),
                    Err(Obstacle::Outranked(by)) => Err(Obstacle::Outranked(by.clone())),
                };
                if !work.finish(position, &candidate, result) {
                    return;
                }
            }
        }
    }

    /// Asks gpg which of several keys it signs with for their identity, as obs-signd asks it: in a
    /// keyring that holds them in their old order. All expired: which one it used last.
    fn choose(
        &self,
        source: &Source,
        rivals: &[(usize, Candidate, RawCertificate)],
    ) -> std::result::Result<Fingerprint, Obstacle> {
        let Some((_, first, _)) = rivals.first() else {
            return Err(Obstacle::Key("there are none".into()));
        };
        let deadline = Instant::now() + CHOICE_TIME;
        let staged = self.staging.create()?;
        let bytes: Vec<_> = rivals.iter().map(|(_, _, raw)| &raw.bytes[..]).collect();
        let file = staged.scratch().join("certificates.pgp");
        let writing = Error::at("writing", staged.scratch());
        fs::write(&file, bytes.concat()).map_err(writing)?;
        let now = clock::believed()?;
        for (_, candidate, _) in rivals {
            candidate.check_clock(now).map_err(Obstacle::Key)?;
        }
        let created = rivals.iter().map(|(_, candidate, _)| candidate.created).max();
        let believed = believable_at(now, created.unwrap_or_default());
        self.gpg
            .import(staged.path(), &file, believed, deadline)
            .map_err(|e| self.explain(e.into()))?;
        let directory = staged.path().join(SECRET_KEYS);
        fs::create_dir_all(&directory).map_err(writing)?;
        for (_, candidate, _) in rivals {
            if let Some(secret) = source.secret_key(&candidate.keygrip)? {
                fs::write(directory.join(candidate.keygrip.file_name()), secret)
                    .map_err(writing)?;
            }
        }
        let phrase = source.phrase(&first.name_email)?.unwrap_or_default();
        let never = rivals.iter().any(|(_, candidate, _)| candidate.expires.is_none());
        let last = rivals.iter().filter_map(|(_, candidate, _)| candidate.expires).max();
        let at = time_of_signature(now, 0, last.filter(|_| !never));
        let user = first.name_email.as_str();
        Ok(self.gpg.who_signs(staged.path(), &phrase, user, at, deadline)?)
    }
}

impl Work<'_> {
    /// The next key to import. Passes over what needs no work, and keeps what needs to be compared.
    fn next(&mut self) -> Result<Option<(usize, Candidate, RawCertificate)>> {
        while self.stopped.is_none() {
            interrupt::check(|| {
                "the keys behind are left; run the same command again to go on".into()
            })?;
            let raw = self.certificates.next().transpose().map_err(reading_snapshot)?;
            let (raw, (position, verdict)) = match (raw, self.verdicts.next()) {
                (Some(raw), Some(verdict)) => (raw, verdict),
                (None, None) => return Ok(None),
                (raw, _) => {
                    let place = raw.map_or("the end".into(), |raw| format!("byte {}", raw.offset));
                    return Err(Error::Gpg(gpg::Error::Failed {
                        how: "it lists more or fewer certificates than it exports".into(),
                        words: format!("{} were listed, and the export is at {place}", self.total),
                    }));
                }
            };
            match verdict {
                Verdict::Import(candidate) => return Ok(Some((position, candidate, raw))),
                Verdict::Contest(candidate, number) => {
                    self.contests.entry(number).or_default().push((position, candidate, raw));
                }
                Verdict::Already(moved) => self.note(position, Ok((moved, Fate::Already))),
                Verdict::LeftOut(left_out) => self.note(position, Err(left_out)),
            }
        }
        Ok(None)
    }

    /// Takes note of what became of a key; `false` when there is no use in going on.
    fn finish(
        &mut self,
        position: usize,
        candidate: &Candidate,
        result: std::result::Result<Fate, Obstacle>,
    ) -> bool {
        match result {
            Ok(fate) => self.note(position, Ok((candidate.moved(), fate))),
            Err(Obstacle::All(error)) => {
                self.stopped.get_or_insert(error);
                return false;
            }
            Err(obstacle) => {
                let outranked = matches!(obstacle, Obstacle::Outranked(_));
                let left_out = candidate.left_out(obstacle.reason());
                self.note(position, Err(LeftOut { outranked, ..left_out }));
            }
        }
        true
    }

    fn note(&mut self, position: usize, outcome: Outcome) {
        self.outcomes.push((position, outcome));
        (self.progress)(self.outcomes.len(), self.total);
    }

    fn into_report(mut self) -> ImportReport {
        self.outcomes.sort_by_key(|(position, _)| *position);
        let mut report = ImportReport { stopped: self.stopped, ..ImportReport::default() };
        for (_, outcome) in self.outcomes {
            match outcome {
                Ok((moved, Fate::Imported)) => report.imported.push(moved),
                Ok((moved, Fate::Already)) => report.already.push(moved),
                Err(left_out) => report.left_out.push(left_out),
            }
        }
        report
    }
}

fn reading_snapshot(error: std::io::Error) -> Error {
    Error::io("reading what gpg exported", error)
}
