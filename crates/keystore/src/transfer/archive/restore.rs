//! Restores the keys of an archive. Each is assembled in staging, tried, and published like a new key. A key
//! that exists is never replaced by another key. Its certificate is replaced only by a newer one that has all
//! its signatures.

use std::collections::HashSet;
use std::io::Read;
use std::time::Instant;

use gpg::{Certificate, Keyring, clock};

use crate::error::{Error, Result};
use crate::files::lock::hold_key;
use crate::home::home_files::{HomeFiles, replace_certificate};
use crate::home::record::KeyRecord;
use crate::identity::NameEmail;
use crate::keep::prolong::signatures;
use crate::layout::PUBRING;
use crate::make::limits::KEY_TIME;
use crate::secrets::sealing_marker::check_key;
use crate::transfer::archive::format::Header;
use crate::transfer::archive::unpack::{self, Listed, Piece};
use crate::view::publish::Publication;
use crate::{Store, interrupt, parallel};

/// The number of keys per job that are read before they are restored together.
const BATCH: usize = 4;

/// The outcome for a key of an archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Restored {
    /// The key was missing and has been restored.
    Made,
    /// The key existed and has the newer certificate now.
    Updated,
    /// The key existed and was not changed.
    Kept,
}

/// The result of a restore.
#[derive(Debug)]
pub struct Summary {
    /// The number of keys that were missing and have been restored.
    pub made: u64,
    /// The number of keys that have a newer certificate now.
    pub updated: u64,
    /// The number of keys that existed and were not changed.
    pub kept: u64,
    /// The number of failures that were reported.
    pub failed: u64,
    /// The number of keys of this host that the archive does not list.
    pub unknown: usize,
    /// The header of the archive, or the reason why it was not restored to its end.
    pub whole: Result<Header>,
}

/// Called with the outcome for each identity.
pub type RestoreReport<'a> = &'a mut dyn FnMut(&NameEmail, Result<Restored>);

/// A restore in progress.
struct RestoreRun<'a> {
    store: &'a Store,
    jobs: usize,
    /// The keys that have been read and not restored yet.
    waiting: Vec<(NameEmail, HomeFiles)>,
    /// The identities that the manifest lists.
    known: HashSet<NameEmail>,
    report: RestoreReport<'a>,
    /// The numbers of keys made, updated, kept and failed.
    counts: [u64; 4],
    is_full: bool,
}

impl RestoreRun<'_> {
    fn take(&mut self, piece: Piece) -> Result<()> {
        self.check()?;
        match piece {
            Piece::Header(header) => match &header.sealing {
                Some(check) => check_key(check, self.store.passphrases.key(), "the archive"),
                None => Ok(()),
            },
            Piece::Key(name_email, files) => {
                self.waiting.push((name_email, files));
                match self.waiting.len() < self.jobs.saturating_mul(BATCH) {
                    true => Ok(()),
                    false => self.work(),
                }
            }
            Piece::Bad(name_email, why) => {
                self.tell(&name_email, Err(Error::Refused(why.into())));
                Ok(())
            }
            Piece::Listed(name_email, listed) => {
                if let Err(e) = self.store.check_listed(&name_email, listed) {
                    self.tell(&name_email, Err(e));
                }
                self.known.insert(name_email);
                Ok(())
            }
        }
    }

    /// Restores the keys that have been read.
    fn work(&mut self) -> Result<()> {
        self.check()?;
        let (store, waiting) = (self.store, std::mem::take(&mut self.waiting));
        let restored = parallel::map(waiting, self.jobs, |(name_email, files)| {
            let result = store.restore_key(&name_email, &files);
            (name_email, result)
        });
        restored.into_iter().for_each(|(name_email, result)| self.tell(&name_email, result));
        Ok(())
    }

    /// Fails if the disk is full, or a signal has arrived.
    fn check(&self) -> Result<()> {
        if self.is_full {
            return Err(Error::state_full("the restore was broken off"));
        }
        interrupt::check(|| {
            "the keys counted above are whole and stay; run it again with the whole archive".into()
        })
    }

    /// Counts an outcome and reports it.
    fn tell(&mut self, name_email: &NameEmail, result: Result<Restored>) {
        self.counts[match &result {
            Ok(Restored::Made) => 0,
            Ok(Restored::Updated) => 1,
            Ok(Restored::Kept) => 2,
            Err(_) => 3,
        }] += 1;
        self.is_full |= matches!(result, Err(Error::Gpg(gpg::Error::NoSpace { .. })));
        (self.report)(name_email, result);
    }
}

impl Store {
    /// Restores the keys of a decrypted archive, on `jobs` threads.
    pub fn restore(&self, input: impl Read, jobs: usize, report: RestoreReport) -> Summary {
        let mut restore = RestoreRun {
            store: self,
            jobs: jobs.max(1),
            waiting: Vec::new(),
            known: HashSet::new(),
            report,
            counts: [0; 4],
            is_full: false,
        };
        let read = unpack::read(input, |piece| restore.take(piece));
        // Restore what has been read, even if reading failed: the keys before the point where an archive is cut
        // off are whole. A signal that arrives while the archive is awaited shows as a read error, too.
        let is_done = read.is_ok() && restore.waiting.is_empty();
        let whole = if is_done { read } else { restore.work().and(read) };
        let RestoreRun { known, counts: [made, updated, kept, failed], .. } = restore;
        let is_unknown = |name: &Result<NameEmail>| {
            name.as_ref().map_or(true, |name_email| !known.contains(name_email))
        };
        let names = self.homes.identities().map(|names| names.filter(is_unknown));
        let unknown = match names.and_then(Iterator::collect::<Result<Vec<_>>>) {
            _ if whole.is_err() => 0,
            Ok(names) => names.len(),
            Err(e) => {
                log::warn!("{e}; keys that the archive does not know of were not counted");
                0
            }
        };
        Summary { made, updated, kept, failed, unknown, whole }
    }

    fn restore_key(&self, name_email: &NameEmail, files: &HomeFiles) -> Result<Restored> {
        loop {
            match self.homes.find(name_email) {
                Ok(Some(present)) => return self.restore_over(name_email, files, &present),
                Ok(None) => {}
                Err(Error::Gpg(gpg::Error::DamagedHome { path, reason })) => {
                    return Err(Error::Refused(format!(
                        "{}: {reason}; stop the service, move {} to a safe place outside of keys/, then restore \
                         again (docs/backup.md)",
                        path.display(),
                        self.homes.path(name_email).display()
                    )));
                }
                Err(e) => return Err(e),
            }
            self.check_space()?;
            let staged = self.staging.create()?;
            let (record, _) = self.assemble(staged.path(), name_email, files)?;
            match self.publish(staged, name_email, &record.keygrip)? {
                Publication::Done => {
                    self.relink(name_email)?;
                    return Ok(Restored::Made);
                }
                Publication::Lost => {} // another process has published a key
            }
        }
    }

    fn restore_over(
        &self,
        name_email: &NameEmail,
        files: &HomeFiles,
        present: &KeyRecord,
    ) -> Result<Restored> {
        let archived = files.record().ok_or_else(|| {
            Error::Refused("it cannot be told which key this is in the archive".into())
        })?;
        self.check_is_same(&archived.fingerprint.to_string(), present)?;
        if archived.changed <= present.changed {
            self.relink(name_email)?;
            return Ok(Restored::Kept);
        }
        let base = self.catch_up(name_email)?;
        let staged = self.staging.create()?;
        let (record, fresh) = self.assemble(staged.path(), name_email, files)?;
        let home = self.homes.path(name_email);
        let _held = hold_key(&home, name_email)?;
        let Some(present) = self.homes.find(name_email)? else {
            return Err(Error::NoKey(name_email.clone()));
        };
        self.check_is_same(record.fingerprint.as_str(), &present)?;
        if record.changed <= present.changed {
            self.relink(name_email)?;
            let now = clock::now()?;
            return match clock::is_behind(now, archived.changed) {
                true => Err(Error::Refused(format!(
                    "{}; it cannot be told whether the certificate here is older, so it was left alone; set \
                     the clock and restore again",
                    clock::disagreement(now, &"the certificate in the archive", archived.changed)
                ))),
                false => Ok(Restored::Kept), // it was changed meanwhile
            };
        }
        let file = home.join(PUBRING);
        let keyring = Keyring { home: staged.path(), file: &file };
        let old = self.gpg.inspect_one(keyring, Instant::now() + KEY_TIME)?;
        check_nothing_is_lost(&old, &fresh)?;
        if !self.agree_on_certificate(name_email, base.as_ref(), staged.path())? {
            return Err(Error::InUse(name_email.clone()));
        }
        replace_certificate(staged.path(), &home)?;
        self.signd.mark_changed(staged.scratch());
        self.relink(name_email)?;
        Ok(Restored::Updated)
    }

    fn check_is_same(&self, archived: &str, present: &KeyRecord) -> Result<()> {
        if archived == present.fingerprint.as_str() {
            return Ok(());
        }
        Err(Error::Refused(format!(
            "this host has the key {} of this identity, the archive has {archived}; the one here was \
             left alone; to restore the other one, first `copr-keygen remove` this one",
            present.fingerprint
        )))
    }

    fn check_listed(&self, name_email: &NameEmail, listed: Listed) -> Result<()> {
        let fingerprint = match listed {
            Listed::Here => return Ok(()),
            Listed::Wrong(why) => return Err(Error::Refused(why.into())),
            Listed::Elsewhere(fingerprint) => fingerprint,
        };
        match (self.homes.find(name_email)?, fingerprint) {
            (Some(present), Some(fingerprint)) => self.check_is_same(&fingerprint, &present),
            (Some(_), None) => Ok(()),
            (None, _) => Err(Error::Refused(
                "missing: there was such a key, but it is neither in this archive nor on this host; \
                 restore the full backup, then every increment in order"
                    .into(),
            )),
        }
    }
}

/// Fails unless the archived certificate has every signature and user ID of the present one.
fn check_nothing_is_lost(present: &Certificate, archived: &Certificate) -> Result<()> {
    let kept = signatures(archived);
    let is_lost = signatures(present).iter().any(|signature| !kept.contains(signature))
        || present.user_ids.iter().any(|id| !archived.user_ids.contains(id));
    if is_lost {
        return Err(Error::Refused(
            "the archive's certificate is newer than that of this host, but lacks signatures it \
             has; this host's was left alone"
                .into(),
        ));
    }
    Ok(())
}
