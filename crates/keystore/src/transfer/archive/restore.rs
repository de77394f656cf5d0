//! Puts keys of an archive back: each is put together in staging, tried, and published like one that
//! was just made. A key that is there is never replaced by another one, its certificate only by a
//! newer one that has all its signatures.

use std::collections::HashSet;
use std::io::Read;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread;
use std::time::Instant;

use gpg::{Certificate, Keyring};

use crate::error::{Error, Result};
use crate::files::durable::replace;
use crate::files::lock::hold_key;
use crate::home::home_files::HomeFiles;
use crate::home::record::KeyRecord;
use crate::identity::NameEmail;
use crate::keep::prolong::signatures;
use crate::layout::{PUBRING, RECORD};
use crate::make::limits::KEY_TIME;
use crate::parallel::lock;
use crate::secrets::sealing_marker::check_key;
use crate::transfer::archive::Header;
use crate::transfer::archive::read::{self, Listed, Piece};
use crate::view::publish::Publication;
use crate::{Store, interrupt};

/// What became of a key of an archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Restored {
    /// It was not there and is now.
    Made,
    /// It was there and has the newer certificate now.
    Updated,
    /// It was there, nothing was changed.
    Kept,
}

/// How a restore ended.
#[derive(Debug)]
pub struct Summary {
    /// Keys that were not there and are now.
    pub made: u64,
    /// Keys that have a newer certificate now.
    pub updated: u64,
    /// Keys that were there.
    pub kept: u64,
    /// What was reported as failed.
    pub failed: u64,
    /// Keys of this host that the archive does not know of.
    pub unknown: u64,
    /// What the archive says of itself, or why it is not whole.
    pub whole: Result<Header>,
}

/// What `restore` reports of an identity, from several threads.
pub type Report<'a> = &'a (dyn Fn(&NameEmail, Result<Restored>) + Sync);

impl Store {
    /// Restores the keys of a decrypted archive, `jobs` at once.
    pub fn restore(&self, input: impl Read, jobs: usize, report: Report) -> Summary {
        let tally = Tally { report, counts: Default::default(), is_full: AtomicBool::new(false) };
        let (sender, receiver) = sync_channel(jobs);
        let receiver = Mutex::new(receiver);
        let mut known = HashSet::new();
        let whole = thread::scope(|scope| {
            for _ in 0..jobs.max(1) {
                scope.spawn(|| self.restore_keys(&receiver, &tally));
            }
            let sender = sender; // dropped when all has been read, which ends the threads
            read::read(input, |piece| {
                if tally.is_full.load(Ordering::Relaxed) {
                    return Err(Error::state_full("the restore was broken off"));
                }
                interrupt::check(not_whole)?;
                match piece {
                    Piece::Header(header) => {
                        if let Some(check) = &header.sealing {
                            check_key(check, self.passphrases.key(), "the archive")?;
                        }
                    }
                    Piece::Key(name_email, files) => sender
                        .send((name_email, files))
                        .map_err(|_| Error::Refused("no thread restores keys any more".into()))?,
                    Piece::Spoilt(name_email) => {
                        let why = "not restored: its files are not those that were archived";
                        tally.add(&name_email, Err(Error::Refused(why.into())));
                    }
                    Piece::Listed(name_email, listed) => {
                        if let Err(e) = self.check_listed(&name_email, listed) {
                            tally.add(&name_email, Err(e));
                        }
                        known.insert(name_email);
                    }
                    Piece::Unlisted(name_email) => {
                        let why = "it is in the archive, but the manifest does not list it";
                        tally.add(&name_email, Err(Error::Refused(why.into())));
                    }
                }
                Ok(())
            })
            // Who waits for more of the archive ends with an error of reading.
            .or_else(|error| interrupt::check(not_whole).and(Err(error)))
        });
        let names = self.homes.identities().and_then(Iterator::collect::<Result<Vec<_>>>);
        let unknown = match (&whole, names) {
            (Ok(_), Ok(names)) => names.iter().filter(|name| !known.contains(name)).count(),
            (Ok(_), Err(e)) => {
                log::warn!("{e}; keys that the archive does not know of were not counted");
                0
            }
            _ => 0,
        };
        let [made, updated, kept, failed] = tally.counts.map(AtomicU64::into_inner);
        let unknown = u64::try_from(unknown).unwrap_or(u64::MAX);
        Summary { made, updated, kept, failed, unknown, whole }
    }

    fn restore_keys(&self, receiver: &Mutex<Receiver<(NameEmail, HomeFiles)>>, tally: &Tally) {
        loop {
            let next = lock(receiver).recv();
            let Ok((name_email, files)) = next else { return };
            if tally.is_full.load(Ordering::Relaxed) {
                continue;
            }
            tally.add(&name_email, self.restore_key(&name_email, &files));
        }
    }

    fn restore_key(&self, name_email: &NameEmail, files: &HomeFiles) -> Result<Restored> {
        loop {
            match self.homes.find(name_email) {
                Ok(Some(present)) => return self.restore_over(name_email, files, &present),
                Ok(None) => {}
                Err(Error::Gpg(gpg::Error::DamagedHome { path, reason })) => {
                    return Err(Error::Refused(format!(
                        "{}: {reason}; move {} to a safe place outside of keys/, then restore again",
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
                Publication::Lost => {} // somebody made a key meanwhile
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
        let staged = self.staging.create()?;
        let (record, fresh) = self.assemble(staged.path(), name_email, files)?;
        let home = self.homes.path(name_email);
        let _held = hold_key(&home, name_email)?;
        let Some(present) = self.homes.find(name_email)? else {
            return Err(Error::NoKey(name_email.clone()));
        };
        self.check_is_same(record.fingerprint.as_str(), &present)?;
        if record.changed > present.changed {
            let file = home.join(PUBRING);
            let keyring = Keyring { home: staged.path(), file: &file };
            let old = self.gpg.inspect_one(keyring, Instant::now() + KEY_TIME)?;
            check_nothing_is_lost(&old, &fresh)?;
            replace(&staged.path().join(PUBRING), &home.join(PUBRING))?;
            replace(&staged.path().join(RECORD), &home.join(RECORD))?;
            self.signd.mark_changed(staged.scratch());
        }
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
            Listed::Here | Listed::Spoilt => return Ok(()),
            Listed::Altered => {
                Err("its files in the archive are not those that the manifest lists")
            }
            Listed::Gone => Err("the manifest lists it, but it is not in the archive"),
            Listed::Elsewhere(fingerprint) => Ok(fingerprint),
        }
        .map_err(|why| Error::Refused(why.into()))?;
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

fn not_whole() -> String {
    "the keys counted above are whole and stay; run it again with the whole archive".into()
}

/// Whether the certificate of the archive has every signature and user ID of the present one.
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

/// Counts what it reports.
struct Tally<'a> {
    report: Report<'a>,
    counts: [AtomicU64; 4],
    is_full: AtomicBool,
}

impl Tally<'_> {
    fn add(&self, name_email: &NameEmail, result: Result<Restored>) {
        let index = match &result {
            Ok(Restored::Made) => 0,
            Ok(Restored::Updated) => 1,
            Ok(Restored::Kept) => 2,
            Err(_) => 3,
        };
        if matches!(result, Err(Error::Gpg(gpg::Error::NoSpace { .. }))) {
            self.is_full.store(true, Ordering::Relaxed);
        }
        self.counts[index].fetch_add(1, Ordering::Relaxed);
        (self.report)(name_email, result);
    }
}
