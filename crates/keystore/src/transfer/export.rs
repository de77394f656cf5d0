//! Writes keys into one ordinary GnuPG home that all of them share, with a directory of phrases: what
//! the old service had, so that nobody has to stay here. Reads the state only; says on the disk that
//! it is incomplete until every key in it has signed.

mod target;
mod trial;

use std::collections::{HashMap, HashSet};
use std::path::Path;

use gpg::{Fingerprint, keybox};
use serde::Serialize;
use zeroize::Zeroizing;

use crate::error::{Error, Result};
use crate::files::is_there;
use crate::files::small_files::read_file;
use crate::identity::NameEmail;
use crate::layout::{PUBRING, REVOCATIONS, revocation_file};
use crate::transfer::import::Moved;
use crate::{Filter, Form, Key, Listed, Store, interrupt, parallel};

use target::{Part, Target};

/// Longer than any file of a home.
const FILE_MAX: u64 = 16 * 1024 * 1024;

/// What an export wrote.
#[derive(Debug, Default, Serialize)]
pub struct ExportReport {
    /// The keys in the new home.
    pub exported: Vec<Moved>,
    /// Keys that are not there.
    pub left_out: Vec<Unexported>,
    /// Keys of `exported` that do not sign there as the old service had them sign.
    pub not_signing: Vec<Unexported>,
}

/// A key that is not as an export should have made it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Unexported {
    /// Whose it is.
    #[serde(serialize_with = "crate::transfer::import::text")]
    pub name_email: NameEmail,
    /// Why, in words.
    pub reason: String,
}

/// The files of one home as they go into the new one.
struct Copy {
    key: Key,
    /// `pubring.kbx`: what every keybox begins with, and the certificate.
    beginning: Vec<u8>,
    certificate: Vec<u8>,
    secret: Zeroizing<Vec<u8>>,
    phrase: Zeroizing<Vec<u8>>,
    /// A key signs without it.
    revocation: Option<Zeroizing<Vec<u8>>>,
}

impl Store {
    /// Writes the keys that `filter` lets through below `to`, and signs with each, `jobs` at a time. Calls
    /// `progress` with how many have signed and how many there are.
    pub fn export(
        &self,
        to: &Path,
        filter: &Filter,
        jobs: usize,
        progress: &(dyn Fn(usize, usize) + Sync),
    ) -> Result<ExportReport> {
        let to = &std::path::absolute(to).map_err(Error::at("finding", to))?;
        let target = Target::make(to, self.homes.directory())?;
        let mut report = ExportReport::default();
        let keys = self.keys_to_export(filter, &mut report)?;
        let (beginning, mut parts) = self.copy_all(keys, &target, &mut report)?;
        let listed = self.keep_what_gpg_reads(&target, &beginning, &mut parts, &mut report)?;
        let tried = self.try_exported(&target, &parts, &listed, jobs, progress)?;
        for (part, doubt) in parts.iter().zip(tried) {
            if let Some(reason) = doubt {
                let name_email = part.name_email.clone();
                report.not_signing.push(Unexported { name_email, reason });
            }
            let (name_email, fingerprint) = (part.name_email.clone(), part.fingerprint.clone());
            report.exported.push(Moved { name_email, fingerprint });
        }
        target.finish(&report.missing())?;
        Ok(report)
    }

    /// The keys, in the order of the new keyring: gpg takes a user for any part of a user ID and then the
    /// first key, so an identity that is a part of another one comes first.
    fn keys_to_export(&self, filter: &Filter, report: &mut ExportReport) -> Result<Vec<Key>> {
        let (mut keys, mut unreadable) = (Vec::new(), Vec::new());
        for listed in self.catalog.listing(filter.clone())? {
            match listed? {
                Listed::Key(key) => keys.push(key),
                Listed::PassedOver => {}
                Listed::Unreadable(name_email, error) => unreadable.push((name_email, error)),
            }
        }
        let place = |name: &NameEmail| (name.as_str().len(), name.clone());
        keys.sort_by_cached_key(|key| place(&key.name_email));
        unreadable.sort_by_cached_key(|(name_email, _)| place(name_email));
        for (name_email, error) in unreadable {
            report.leave_out(name_email, error.to_string());
        }
        Ok(self.one_of_each(keys, report))
    }

    /// Leaves out homes that hold the key of another one: a home was copied. The one whose user ID is in
    /// the certificate stays.
    fn one_of_each(&self, keys: Vec<Key>, report: &mut ExportReport) -> Vec<Key> {
        let marks =
            |key: &Key| [key.record.keygrip.to_string(), key.record.fingerprint.to_string()];
        let mut counts: HashMap<String, usize> = HashMap::with_capacity(2 * keys.len());
        for mark in keys.iter().flat_map(marks) {
            *counts.entry(mark).or_default() += 1;
        }
        let is_alone = |key: &Key| marks(key).iter().all(|mark| counts[mark] == 1);
        let mut rivals: Vec<&Key> = keys.iter().filter(|key| !is_alone(key)).collect();
        if rivals.is_empty() {
            return keys;
        }
        let is_its_own = |key: &&Key| {
            let certificate = self.catalog.certificate(&key.name_email);
            certificate.is_ok_and(|found| found.user_ids.iter().any(|id| key.name_email.is_in(id)))
        };
        rivals.sort_by_cached_key(|key| !is_its_own(key)); // stable: else the order stays
        let mut taken: HashMap<String, &NameEmail> = HashMap::new();
        let mut out = HashSet::new();
        for key in rivals {
            match marks(key).iter().find_map(|mark| taken.get(mark)) {
                Some(other) => {
                    report.leave_out(
                        key.name_email.clone(),
                        format!(
                            "its home holds the secret key of {other}, which is exported; \
                             `copr-keygen check` says what to do"
                        ),
                    );
                    out.insert(key.name_email.clone());
                }
                None => taken.extend(marks(key).map(|mark| (mark, &key.name_email))),
            }
        }
        drop(taken);
        keys.into_iter().filter(|key| !out.contains(&key.name_email)).collect()
    }

    /// Copies the files of all keys. What is wrong with one key keeps the rest from nothing; what is wrong
    /// with the target ends it. Returns what every keybox begins with, and what has been written.
    fn copy_all(
        &self,
        keys: Vec<Key>,
        target: &Target,
        report: &mut ExportReport,
    ) -> Result<(Vec<u8>, Vec<Part>)> {
        let mut ring = None;
        let mut parts = Vec::with_capacity(keys.len());
        let copy = |key: Key| (key.name_email.clone(), self.copy_of(key));
        for (name_email, copy) in parallel::map_ahead(keys.into_iter(), copy) {
            interrupt::check(|| target.left())?;
            let copy = match copy {
                Ok(copy) => copy,
                Err(_) if !self.homes.path(&name_email).exists() => continue, // removed meanwhile
                Err(e) => {
                    report.leave_out(name_email, e.to_string());
                    continue;
                }
            };
            let (_, ring) = match &mut ring {
                Some(begun) => begun,
                None => ring.insert((copy.beginning.clone(), target.keyring(&copy.beginning)?)),
            };
            let Key { name_email, record } = copy.key;
            let (fingerprint, keygrip) = (record.fingerprint, record.keygrip);
            target.write(&target.secret_key(&keygrip), &copy.secret)?;
            match &copy.revocation {
                Some(revocation) => target.write(&target.revocation(&fingerprint), revocation)?,
                None => log::warn!("{name_email}: exported without a revocation certificate"),
            }
            target.write(&target.phrase(&name_email), &copy.phrase)?;
            let certificate = ring.add(&copy.certificate)?;
            parts.push(Part { name_email, fingerprint, keygrip, certificate });
        }
        let Some((beginning, ring)) = ring else { return Ok((Vec::new(), parts)) };
        ring.finish()?;
        Ok((beginning, parts))
    }

    /// Reads the files of one home. Its keyring is read once, so that a new one of `prolong` is there or
    /// not.
    fn copy_of(&self, key: Key) -> Result<Copy> {
        let home = self.homes.path(&key.name_email);
        let (keygrip, fingerprint) = (&key.record.keygrip, &key.record.fingerprint);
        let source = home.join(PUBRING);
        let keyring = read_file(&source, FILE_MAX)?;
        let found =
            keybox::one_certificate(&keyring).map_err(|reason| Error::damaged(&source, reason))?;
        let (beginning, certificate) = (found.first.to_vec(), found.certificate.to_vec());
        let secret = read_file(&key.record.secret_key(&home), FILE_MAX)?;
        let phrase = self.passphrases.read(&home, keygrip)?;
        let phrase = self.passphrases.content(Form::Clear, keygrip, &phrase)?;
        let revocation = home.join(REVOCATIONS).join(revocation_file(fingerprint));
        let revocation = match is_there(&revocation)? {
            true => Some(read_file(&revocation, FILE_MAX)?),
            false => None,
        };
        Ok(Copy { key, beginning, certificate, secret, phrase, revocation })
    }

    /// Takes back every key whose certificate gpg does not find in the new keyring. One that gpg cannot
    /// read at all would hide those behind it.
    fn keep_what_gpg_reads(
        &self,
        target: &Target,
        beginning: &[u8],
        parts: &mut Vec<Part>,
        report: &mut ExportReport,
    ) -> Result<HashMap<Fingerprint, trial::Listed>> {
        loop {
            if parts.is_empty() {
                return Ok(HashMap::new());
            }
            let listed = match self.list_exported(target) {
                Err(e) if !matches!(e, Error::Gpg(gpg::Error::Failed { .. })) => return Err(e),
                listed => listed,
            };
            let doubt = |part: &Part| match &listed {
                Ok(listed) => {
                    (!listed.contains_key(&part.fingerprint)).then(|| trial::not_written(part))
                }
                Err(_) => self.doubt_about_certificate(part),
            };
            let doubts: Vec<_> =
                parallel::map(parts.iter().collect(), 4, |part: &Part| doubt(part));
            if doubts.iter().all(Option::is_none) {
                return listed;
            }
            let mut kept = Vec::with_capacity(parts.len());
            for (part, doubt) in parts.drain(..).zip(doubts) {
                match doubt {
                    None => kept.push(part),
                    Some(reason) => {
                        target.remove(&part)?;
                        report.leave_out(part.name_email, reason);
                    }
                }
            }
            *parts = kept;
            target.keep(beginning, parts)?;
        }
    }
}

impl ExportReport {
    fn leave_out(&mut self, name_email: NameEmail, reason: String) {
        self.left_out.push(Unexported { name_email, reason });
    }

    /// A line for each key that is not as it should be.
    fn missing(&self) -> Vec<String> {
        let line = |key: &Unexported| format!("{}: {}", key.name_email, key.reason);
        self.left_out.iter().chain(&self.not_signing).map(line).collect()
    }
}
