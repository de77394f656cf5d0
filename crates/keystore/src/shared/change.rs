//! Asks the other hosts to agree before a key is made, changed or removed here. Without other hosts, nothing
//! here has any effect.

use std::path::Path;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use gpg::Fingerprint;

use crate::Store;
use crate::error::{Error, Result};
use crate::files::lock::{DirectoryLock, hold_key};
use crate::files::small_files::read_file;
use crate::home::home_files::{HomeFileName, HomeFiles};
use crate::identity::NameEmail;
use crate::interrupt;
use crate::layout::{PUBRING, RECORD};
use crate::make::limits::KEY_TIME;
use crate::shared::adopt::Adopted;
use crate::shared::agreement::Agreed;
use crate::shared::value::Shared;

/// How often a change is tried again after another host was faster.
pub const TRIES: usize = 10;

/// The pause between two attempts to hold removal and adoption apart.
const APART: Duration = Duration::from_millis(10);

/// The agreed state from which a change of a key starts.
#[derive(Debug)]
pub struct Base {
    /// The revision of the agreed value.
    revision: u64,
    /// The removed keys of this identity.
    removed: Vec<Fingerprint>,
}

/// The outcome of offering a key to the other hosts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offered {
    /// The other hosts did not have the key, or some of its signatures, and have them now.
    Taken,
    /// The other hosts already had the key and all its signatures.
    Known,
}

impl Store {
    /// Adopts the key of an identity if other hosts have one. Returns whether this host has that key now.
    pub(crate) fn find_elsewhere(&self, name_email: &NameEmail) -> Result<bool> {
        let Some(agreement) = &self.agreement else { return Ok(false) };
        let shared = parse(name_email, &agreement.look(name_email)?)?;
        Ok(shared.files.is_some() && self.adopt_shared(name_email, &shared)? != Adopted::Removed)
    }

    /// Fails with [`Error::InUse`] if `holds` is false of the agreed state now. A state that was fetched a moment
    /// ago may be outdated: a removed key may be back, or a key may be removed.
    pub(crate) fn check_still(
        &self,
        name_email: &NameEmail,
        holds: impl FnOnce(&Shared) -> bool,
    ) -> Result<()> {
        let Some(agreement) = &self.agreement else { return Ok(()) };
        match holds(&parse(name_email, &agreement.look(name_email)?)?) {
            true => Ok(()),
            false => Err(Error::InUse(name_email.clone())),
        }
    }

    /// Keeps the removal of a key and its adoption by another process of this host apart, until the result is
    /// dropped. Otherwise a key could be published that was removed after adoption had asked about it. Without
    /// other hosts, returns `None`.
    pub(crate) fn hold_apart(&self, name_email: &NameEmail) -> Result<Option<DirectoryLock>> {
        if self.agreement.is_none() {
            return Ok(None);
        }
        let deadline = Instant::now() + KEY_TIME;
        loop {
            match hold_key(self.homes.directory(), name_email) {
                Err(Error::InUse(_)) if Instant::now() < deadline => thread::sleep(APART),
                held => return held.map(Some),
            }
            interrupt::check(|| format!("the key of {name_email} was left as it was"))?;
        }
    }

    /// Proposes the home in `path` as the key of an identity. Returns `false` if the hosts have agreed on
    /// another key, which this host has then adopted.
    pub(crate) fn agree_on_key(&self, name_email: &NameEmail, path: &Path) -> Result<bool> {
        let Some(agreement) = &self.agreement else { return Ok(true) };
        let Some(files) = HomeFiles::read(path)? else {
            return Err(Error::damaged(path, "is missing"));
        };
        let fingerprint = files.record().map(|record| record.fingerprint);
        // Until the other hosts have answered, assume that they have keys that this host does not know.
        self.is_up_to_date.store(false, Ordering::Relaxed);
        let mut ours = Shared { removed: Vec::new(), files: Some(files) };
        let mut over = 0;
        for _ in 0..TRIES {
            let Some(now) = agreement.put(name_email, over, &ours.write()?)? else {
                self.is_up_to_date.store(true, Ordering::Relaxed);
                return Ok(true);
            };
            let theirs = parse(name_email, &now)?;
            if theirs.files.is_some() {
                self.adopt_shared(name_email, &theirs)?;
                return Ok(false);
            }
            ours.removed = theirs.removed;
            ours.removed.retain(|removed| Some(removed) != fingerprint.as_ref());
            over = now.revision;
        }
        Err(comes_and_goes(name_email))
    }

    /// Adopts the agreed state of a key before the key is changed. Returns that state, or `None` without other
    /// hosts.
    pub(crate) fn catch_up(&self, name_email: &NameEmail) -> Result<Option<Base>> {
        let Some(agreement) = &self.agreement else { return Ok(None) };
        let now = agreement.look(name_email)?;
        let shared = parse(name_email, &now)?;
        let is_unknown = shared.files.is_none() && shared.removed.is_empty();
        if is_unknown && self.homes.find(name_email)?.is_some() {
            return Err(Error::Refused(format!(
                "the other hosts do not know the key of {name_email}: tell them with `copr-keygen follow --seed`"
            )));
        }
        self.adopt_shared(name_email, &shared)?;
        Ok(Some(Base { revision: now.revision, removed: shared.removed }))
    }

    /// Proposes the new certificate and record in `work`, a home in staging, together with the other files of
    /// the published home. Returns `false` if another host has changed the key since `base`.
    pub(crate) fn agree_on_certificate(
        &self,
        name_email: &NameEmail,
        base: Option<&Base>,
        work: &Path,
    ) -> Result<bool> {
        let (Some(agreement), Some(base)) = (&self.agreement, base) else { return Ok(true) };
        let home = self.homes.path(name_email);
        let Some(mut files) = HomeFiles::read(&home)? else {
            return Err(Error::NoKey(name_email.clone()));
        };
        for (name, file) in [(HomeFileName::Pubring, PUBRING), (HomeFileName::Record, RECORD)] {
            let bytes = read_file(&work.join(file), name.limit())?;
            files.put(name, bytes);
        }
        let ours = Shared { removed: base.removed.clone(), files: Some(files) };
        Ok(agreement.put(name_email, base.revision, &ours.write()?)?.is_none())
    }

    /// Records the removal of a key, so that the other hosts remove it too.
    pub(crate) fn agree_on_removal(
        &self,
        name_email: &NameEmail,
        fingerprint: &Fingerprint,
    ) -> Result<()> {
        let Some(agreement) = &self.agreement else { return Ok(()) };
        let mut now = agreement.look(name_email)?;
        for _ in 0..TRIES {
            let mut shared = parse(name_email, &now)?;
            if shared.files.is_none() && shared.has_removed(fingerprint) {
                return Ok(());
            }
            let other = shared.files.as_ref().and_then(HomeFiles::record);
            if let Some(other) = other.filter(|other| other.fingerprint != *fingerprint) {
                return Err(Error::Refused(format!(
                    "the other hosts have the key {} of {name_email}, and this one has {fingerprint}; nothing was \
                     removed (docs/cluster.md)",
                    other.fingerprint
                )));
            }
            shared.files = None;
            shared.add_removed(fingerprint.clone());
            match agreement.put(name_email, now.revision, &shared.write()?)? {
                None => return Ok(()),
                Some(changed) => now = changed,
            }
        }
        Err(comes_and_goes(name_email))
    }

    /// Offers the key of an identity to the other hosts, or the signatures that only this host has. A key that
    /// the other hosts have removed is not offered again.
    pub fn offer(&self, name_email: &NameEmail) -> Result<Offered> {
        let Some(agreement) = &self.agreement else { return Ok(Offered::Known) };
        for _ in 0..TRIES {
            let now = agreement.look(name_email)?;
            let shared = parse(name_email, &now)?;
            if shared.files.is_some() && self.adopt_shared(name_email, &shared)? != Adopted::Ahead {
                return Ok(Offered::Known);
            }
            let home = self.homes.path(name_email);
            let Some(files) = HomeFiles::read(&home)? else {
                return Err(Error::NoKey(name_email.clone()));
            };
            let fingerprint = files.record().map(|record| record.fingerprint);
            if let Some(removed) = fingerprint.filter(|fingerprint| shared.has_removed(fingerprint))
            {
                return Err(Error::Refused(format!(
                    "the key {removed} of {name_email} was removed by another host, so it is not offered"
                )));
            }
            let ours = Shared { removed: shared.removed, files: Some(files) };
            if agreement.put(name_email, now.revision, &ours.write()?)?.is_none() {
                return Ok(Offered::Taken);
            }
        }
        Err(comes_and_goes(name_email))
    }
}

fn parse(name_email: &NameEmail, agreed: &Agreed) -> Result<Shared> {
    let Some(value) = &agreed.value else { return Ok(Shared::default()) };
    Shared::parse(value).map_err(|error| match error {
        Error::Refused(why) => Error::Refused(format!(
            "the key of {name_email}: {why}; where a host has the right key, take this value out of etcd and run \
             `copr-keygen follow --seed` there (docs/cluster.md)"
        )),
        error => error,
    })
}

fn comes_and_goes(name_email: &NameEmail) -> Error {
    Error::busy(format!("the key of {name_email} changes all the time on other hosts"))
}
