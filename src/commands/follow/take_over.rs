//! Takes over the keys in etcd, compares the keys of this host with those in etcd, and
//! offers the keys that only this host has.

use std::collections::{BTreeSet, HashSet};
use std::fs;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use cluster::directory::SharedKey;
use cluster::watch::Change;
use gpg::clock;
use keystore::{Adopted, Followed, NameEmail, Offered, interrupt, parallel};

use super::{Follower, Refused, SOON, output};
use crate::error::{Error, Result};

/// How often `compare` retries the keys that another process of this host holds.
const USES: usize = 20;

impl Follower<'_> {
    /// Takes over the current values of the identities in `changes`. Fetches each value again, as the one in
    /// a change may be outdated by now.
    pub(super) fn take_changes(&mut self, changes: Vec<Change>) -> Result<()> {
        let revision = changes.iter().map(Change::revision).max().unwrap_or_default();
        let (mut names, mut nameless) = (BTreeSet::new(), Vec::new());
        for change in changes {
            let (is_put, stored) = match change {
                Change::Put(stored) => (true, stored),
                Change::Deleted(stored) => (false, stored),
            };
            let key = self.directory.shared(stored);
            match (is_put, &key.name_email) {
                (true, Ok(name_email)) => drop(names.insert(name_email.clone())),
                (true, Err(_)) => nameless.push(key),
                (false, Ok(name_email)) => self.deleted(name_email),
                (false, Err(name)) => drop(self.refused.remove(name)),
            }
        }
        self.take(nameless)?;
        self.fetch(&names.into_iter().collect::<Vec<_>>())?;
        self.followed.revision = self.followed.revision.max(revision);
        Ok(())
    }

    fn deleted(&mut self, name_email: &NameEmail) {
        self.refused.remove(name_email.as_str());
        if self.has(name_email) {
            log::warn!(
                "{name_email}: its key was deleted from etcd by hand; this host keeps it: to put it back: \
                 `copr-keygen follow --seed`; to remove it everywhere: put it back, then `copr-keygen remove`"
            );
        }
    }

    fn has(&self, name_email: &NameEmail) -> bool {
        fs::symlink_metadata(self.store.catalog().homes().path(name_email)).is_ok()
    }

    /// Adopts the values of these keys from etcd on this host, `jobs` at once. Keys that cannot be adopted
    /// now go to `refused` or `in_use`.
    fn take(&mut self, keys: Vec<SharedKey>) -> Result<()> {
        if keys.is_empty() {
            return Ok(());
        }
        self.notifier.alive(&format!("{} taken over so far", output::keys(self.taken)));
        let store = &self.store;
        let stopped = || "the keys that are left are taken over by the next run".to_owned();
        interrupt::check(stopped)?;
        let adopted = parallel::map(keys, self.jobs, |key| {
            if interrupt::signal().is_some() {
                return None;
            }
            let adopted = match &key.name_email {
                Ok(name_email) => store.adopt(name_email, &key.value),
                Err(name) => Err(Error::Refused(format!("{name:?} is no name of an identity"))),
            };
            let name = key.name_email.map_or_else(|name| name, |name| name.to_string());
            Some((name, key.revision, adopted))
        });
        let mut is_full = false;
        for outcome in adopted {
            let Some((name, revision, adopted)) = outcome else { continue };
            match adopted {
                Ok(Adopted::Kept) => drop(self.refused.remove(&name)),
                Ok(Adopted::Ahead) => {
                    self.refused.remove(&name);
                    log::warn!(
                        "{name}: its certificate has signatures here that the other hosts do not have; \
                         `copr-keygen follow --seed` gives them"
                    );
                }
                Ok(_) => {
                    self.refused.remove(&name);
                    self.taken += 1;
                }
                Err(Error::InUse(name_email)) => drop(self.in_use.insert(name_email, revision)),
                Err(e) => {
                    if matches!(e, Error::Gpg(gpg::Error::NoSpace { .. })) {
                        is_full = true;
                        continue;
                    }
                    let why = e.to_string();
                    if self.refused.get(&name).is_none_or(|known| known.why != why) {
                        log::error!("{name}: {why}");
                    }
                    self.refused.insert(name, Refused { why, revision });
                }
            }
        }
        interrupt::check(stopped)?;
        // When the disk is full, fail: the revision must not advance past keys that were not taken over.
        match is_full {
            true => Err(Error::NoAgreement(format!(
                "{} has no room for more keys of other hosts",
                self.settings.state_dir.display()
            ))),
            false => Ok(()),
        }
    }

    /// Takes over every change since the revision that this host has followed up to, and
    /// every key that it lacks.
    pub(super) fn compare(&mut self) -> Result<()> {
        let directory = Arc::clone(&self.directory);
        let now = directory.now()?;
        if self.followed.is_ahead_of(&now) {
            if !self.followed.source.is_empty() {
                log::warn!(
                    "etcd is another one than before, or was restored from a snapshot (revision {}, and this host has \
                     followed up to {}); everything is compared",
                    now.revision,
                    self.followed.revision
                );
            }
            self.followed.source = now.source;
            self.followed.revision = 0;
        }
        self.followed.lead = now.lead.0;
        let since = self.followed.revision;
        // Keep hashes of the names: the names of a hundred thousand keys take ten megabytes.
        let hashes = RandomState::new();
        let names = self.store.catalog().homes().identities()?;
        let mut only_here = names
            .map(|name_email| Ok(hashes.hash_one(name_email?)))
            .collect::<Result<HashSet<_>>>()?;
        self.followed.revision = directory.names(|names| {
            let (mut wanted, mut nameless) = (Vec::new(), Vec::new());
            for name in names {
                let is_new = name.revision > since;
                match name.name_email {
                    Ok(name_email) => {
                        only_here.remove(&hashes.hash_one(&name_email));
                        if is_new || !self.has(&name_email) {
                            wanted.push(name_email);
                        }
                    }
                    Err(_) if is_new => nameless.push(name),
                    Err(_) => {}
                }
            }
            self.take(nameless)?;
            self.fetch(&wanted)
        })?;
        for _ in 0..USES {
            self.take_used()?;
        }
        if !only_here.is_empty() {
            log::warn!(
                "{} not known to the other hosts; `copr-keygen follow --seed` tells them",
                output::number(only_here.len(), "key of this host is", "keys of this host are")
            );
        }
        Ok(())
    }

    /// Fetches the keys of these identities from etcd and takes them over.
    fn fetch(&mut self, names: &[NameEmail]) -> Result<()> {
        let directory = Arc::clone(&self.directory);
        directory.of(names, |keys| self.take(keys))
    }

    /// Retries the keys that another process of this host held, after a pause.
    pub(super) fn take_used(&mut self) -> Result<()> {
        if self.in_use.is_empty() {
            return Ok(());
        }
        std::thread::sleep(SOON);
        let waiting = std::mem::take(&mut self.in_use);
        let names: Vec<_> = waiting.keys().cloned().collect();
        self.fetch(&names).inspect_err(|_| {
            // Keep these keys in the list: the revision has already advanced past their changes.
            self.in_use.extend(waiting);
        })
    }

    /// Retries the keys that were refused, and warns about those still held by another process.
    pub(super) fn retry(&mut self) -> Result<()> {
        for name_email in self.in_use.keys() {
            log::warn!(
                "{}; what other hosts did with it is done here then",
                Error::InUse(name_email.clone())
            );
        }
        let names: Vec<_> =
            self.refused.keys().filter_map(|name| NameEmail::parse(name).ok()).collect();
        self.fetch(&names)
    }

    /// Offers every key of this host to the other hosts.
    pub(super) fn seed(&mut self) -> Result<()> {
        let names = self.store.catalog().homes().identities()?;
        let names = names.collect::<keystore::Result<Vec<_>>>()?;
        let (store, all) = (&self.store, names.len());
        let offered = parallel::map(names, self.jobs, |name_email| {
            let stopped = || "the keys that are left are offered by the next run".into();
            let offered = interrupt::check(stopped).and_then(|()| store.offer(&name_email));
            (name_email, offered)
        });
        let mut taken = 0;
        for (name_email, offered) in offered {
            match offered {
                Ok(Offered::Taken) => taken += 1,
                Ok(Offered::Known) => {}
                Err(e @ (Error::Interrupted { .. } | Error::Settings(_))) => return Err(e),
                Err(e) => {
                    log::error!("{name_email}: {e}");
                    let refused = Refused { why: e.to_string(), revision: self.followed.revision };
                    self.refused.insert(name_email.to_string(), refused);
                }
            }
        }
        log::info!("{} of {} told to the other hosts", taken, output::keys(all));
        Ok(())
    }

    pub(super) fn write(&mut self) -> Result<()> {
        self.followed.time = clock::now()?;
        self.followed.refused = self.refused.len();
        // Record a revision before the oldest key that is still missing here, so that the
        // next process fetches it.
        let waiting = self.refused.values().map(|refused| &refused.revision);
        let oldest = waiting.chain(self.in_use.values()).min();
        let complete = oldest.map_or(u64::MAX, |revision| revision.saturating_sub(1));
        let revision = self.followed.revision.min(complete);
        let work = self.store.workplace()?;
        Followed { revision, ..self.followed.clone() }.write(&self.settings.state_dir, work.path())
    }
}
