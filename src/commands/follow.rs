//! `copr-keygen follow`: this host has every key that other hosts make, change or remove.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use cluster::directory::{LEASE_TIME, SharedKey};
use cluster::watch::Change;
use cluster::{Directory, Error as ClusterError, Lease};
use gpg::clock;
use keystore::{Adopted, Agreement, Followed, NameEmail, Offered, Store, interrupt, parallel};

use super::{output, state};
use crate::cli::Follow;
use crate::error::{Error, Result};
use crate::settings::Settings;
use crate::systemd::notify::Notifier;

/// How often the lease of this host is kept.
const KEEP: Duration = Duration::from_secs(4);
/// How often it is written how far this host has followed.
const WRITE: Duration = Duration::from_secs(15);
/// How long to wait before etcd is asked again that has not answered.
const PAUSE: Duration = Duration::from_secs(1);
/// How often keys are tried again that could not be taken over.
const AGAIN: Duration = Duration::from_secs(60);
/// How soon, when another process of this host had one in its hands.
const SOON: Duration = Duration::from_millis(500);

/// Follows until it is told to stop, or until this host is whole.
pub fn run(settings: &Settings, options: &Follow) -> Result<()> {
    let Some(directory) = settings.cluster_directory.clone() else {
        return Err(Error::Settings(
            "cluster.endpoints: names no member of etcd, so there is nobody to follow".into(),
        ));
    };
    let host = settings.cluster.host.get()?.clone();
    let jobs = *settings.jobs.get()?;
    let store = state::open_with_gpg(settings)?;
    let _work = interrupt::work();
    let mut follower = Follower {
        settings,
        store,
        directory,
        jobs,
        followed: Followed::read(&settings.state_dir).map_or_else(Followed::fresh, Ok)?,
        notifier: Notifier::from_env(),
        refused: BTreeMap::new(),
        in_use: HashSet::new(),
        taken: 0,
        waits_for: String::new(),
    };
    if options.once || options.seed {
        follower.directory.prove()?;
        if options.seed {
            follower.seed()?;
        }
        follower.compare()?;
        follower.write()?;
        return follower.conclude();
    }
    // The number comes back with a process that was killed.
    follower.write()?;
    let directory = Arc::clone(&follower.directory);
    // Whether etcd answers is no matter of this host.
    follower.notifier.ready();
    loop {
        match follower.session(&directory, &host) {
            Ok(()) | Err(Error::Interrupted { .. }) => {}
            Err(Error::NoAgreement(why)) => {
                if why != follower.waits_for {
                    log::warn!("{why}; it is tried again");
                }
                follower.notifier.alive(&format!("waiting: {why}"));
                follower.waits_for = why;
            }
            Err(e) => return Err(e),
        }
        if interrupt::signal().is_some() {
            follower.notifier.stopping();
            return Ok(());
        }
        std::thread::sleep(PAUSE);
    }
}

/// What follows.
struct Follower<'a> {
    settings: &'a Settings,
    store: Store,
    directory: Arc<Directory>,
    jobs: usize,
    followed: Followed,
    notifier: Notifier,
    /// Keys that could not be taken over, and why.
    refused: BTreeMap<String, String>,
    /// Keys that another process of this host had in its hands.
    in_use: HashSet<NameEmail>,
    /// Keys that were made, changed or removed here.
    taken: usize,
    /// Why it does not follow at the moment, as it was said.
    waits_for: String,
}

impl Follower<'_> {
    /// Follows until something fails.
    fn session(&mut self, directory: &Directory, host: &str) -> Result<()> {
        directory.prove()?;
        let lease = self.take_host(directory, host)?;
        lease.keep_while(|| self.compare())?;
        self.write()?;
        self.waits_for.clear();
        log::info!("whole up to revision {}: {}", self.followed.revision, self.words());
        let now = Instant::now();
        let mut clocks = Clocks { kept: now, written: now, retried: now };
        while interrupt::signal().is_none() {
            let mut watch = match directory.watch(self.followed.revision + 1) {
                Ok(watch) => watch,
                Err(ClusterError::Compacted(_)) => {
                    lease.keep_while(|| self.compare())?;
                    continue;
                }
                Err(e) => return Err(e.into()),
            };
            // One that was restored while nobody watched says nothing before it has come as far as this host.
            let (source, revision) = directory.now()?;
            if self.followed.is_ahead_of(&source, revision) {
                lease.keep_while(|| self.compare())?;
                continue;
            }
            loop {
                self.take_used()?;
                let seen = watch.wait();
                self.keep(&lease, &mut clocks)?;
                match seen {
                    Ok(Some(changes)) => self.take_changes(changes)?,
                    Ok(None) => break,
                    Err(ClusterError::Compacted(_)) => {
                        lease.keep_while(|| self.compare())?;
                        break;
                    }
                    Err(e) => return Err(e.into()),
                }
                if interrupt::signal().is_some() {
                    break;
                }
            }
        }
        self.write()
    }

    /// Takes the name of this host. A host that was replaced by this one is waited out.
    fn take_host<'d>(&mut self, directory: &'d Directory, host: &str) -> Result<Lease<'d>> {
        let deadline = Instant::now() + LEASE_TIME + KEEP;
        loop {
            if let Some(lease) = directory.take_host(host, &self.followed.number)? {
                return Ok(lease);
            }
            interrupt::check(|| "nothing was begun".into())?;
            if Instant::now() > deadline {
                return Err(Error::Settings(format!(
                    "cluster.host = {host:?}: another host of this name follows; give each host a name of its own"
                )));
            }
            self.notifier.alive("another host of this name has followed a moment ago");
            std::thread::sleep(PAUSE);
        }
    }

    /// What is due now and then.
    fn keep(&mut self, lease: &Lease, clocks: &mut Clocks) -> Result<()> {
        self.notifier.alive(&self.words());
        if clocks.kept.elapsed() >= KEEP {
            clocks.kept = Instant::now();
            if !lease.keep(Instant::now() + KEEP)? {
                return Err(Error::NoAgreement("the lease of this host has ended".into()));
            }
        }
        if clocks.written.elapsed() >= WRITE {
            clocks.written = Instant::now();
            self.write()?;
        }
        if clocks.retried.elapsed() >= AGAIN {
            clocks.retried = Instant::now();
            self.retry()?;
        }
        Ok(())
    }

    fn words(&self) -> String {
        let refused = match self.refused.len() {
            0 => String::new(),
            count => format!(", {} could not be taken over", output::keys(count)),
        };
        format!("up to date with revision {}{refused}", self.followed.revision)
    }

    fn take_changes(&mut self, changes: Vec<Change>) -> Result<()> {
        let revision = changes.iter().map(Change::revision).max().unwrap_or_default();
        let mut newest = BTreeMap::new();
        for change in changes {
            match change {
                Change::Put(stored) => drop(newest.insert(stored.name.clone(), stored)),
                Change::Deleted(stored) => {
                    newest.remove(&stored.name);
                    let shared = self.directory.of_change(stored);
                    let name = shared.name_email.map_or_else(|name| name, |name| name.to_string());
                    log::warn!(
                        "{name}: its key was deleted from etcd by hand; this host keeps it: to put it back: \
                         `copr-keygen follow --seed`; to remove it everywhere: put it back, then `copr-keygen remove`"
                    );
                }
            }
        }
        let keys = newest.into_values().map(|stored| self.directory.of_change(stored)).collect();
        self.take(keys)?;
        self.followed.revision = self.followed.revision.max(revision);
        Ok(())
    }

    /// Has this host keep what counts for these identities.
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
            Some((key.name_email.map_or_else(|name| name, |name| name.to_string()), adopted))
        });
        let mut is_full = None;
        for outcome in adopted {
            let Some((name, adopted)) = outcome else { continue };
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
                Err(Error::InUse(name_email)) => drop(self.in_use.insert(name_email)),
                Err(e) => {
                    if matches!(e, Error::Gpg(gpg::Error::NoSpace { .. })) {
                        is_full = Some(e.to_string());
                    }
                    let why = e.to_string();
                    if self.refused.get(&name) != Some(&why) {
                        log::error!("{name}: {why}");
                    }
                    self.refused.insert(name, why);
                }
            }
        }
        interrupt::check(stopped)?;
        // Nothing that was not taken over counts as followed.
        is_full.map_or(Ok(()), |why| Err(Error::NoAgreement(why)))
    }

    /// Takes over every change since this host has followed last, and every key that it does not have.
    fn compare(&mut self) -> Result<()> {
        let directory = Arc::clone(&self.directory);
        let (source, revision) = directory.now()?;
        if self.followed.is_ahead_of(&source, revision) {
            if !self.followed.source.is_empty() {
                log::warn!(
                    "etcd is another one than before, or was restored from a snapshot (revision {revision}, and this \
                     host has followed up to {}); everything is compared",
                    self.followed.revision
                );
            }
            self.followed.source = source;
            self.followed.revision = 0;
        }
        let since = self.followed.revision + 1;
        let complete = directory.changed(since, |keys| self.take(keys))?;
        self.followed.revision = complete;
        let here = self.here()?;
        let (mut there, mut missing) = (HashSet::new(), Vec::new());
        directory.identities(|name_email| {
            if !here.contains(&name_email) {
                missing.push(name_email.clone());
            }
            there.insert(name_email);
        })?;
        for names in missing.chunks(100) {
            self.fetch(names)?;
        }
        self.take_used()?;
        let only_here = here.iter().filter(|name| !there.contains(name)).count();
        if only_here > 0 {
            log::warn!(
                "{} not known to the other hosts; `copr-keygen follow --seed` tells them",
                output::number(only_here, "key of this host is", "keys of this host are")
            );
        }
        Ok(())
    }

    fn here(&self) -> Result<HashSet<NameEmail>> {
        self.store.catalog().homes().identities()?.collect()
    }

    /// Takes over the keys of these identities.
    fn fetch(&mut self, names: &[NameEmail]) -> Result<()> {
        let mut keys = Vec::new();
        for name_email in names {
            let agreed = self.directory.look(name_email)?;
            if let Some(value) = agreed.value {
                let name_email = Ok(name_email.clone());
                keys.push(SharedKey { name_email, value, revision: agreed.revision });
            }
        }
        self.take(keys)
    }

    /// Takes over the keys that another process of this host had in its hands, when it is done with them.
    fn take_used(&mut self) -> Result<()> {
        while !self.in_use.is_empty() {
            std::thread::sleep(SOON);
            let names: Vec<_> = self.in_use.drain().collect();
            self.fetch(&names)?;
        }
        Ok(())
    }

    /// Tries keys again that could not be taken over.
    fn retry(&mut self) -> Result<()> {
        let names: Vec<_> =
            self.refused.keys().filter_map(|name| NameEmail::parse(name).ok()).collect();
        self.fetch(&names)
    }

    /// Offers every key of this host.
    fn seed(&mut self) -> Result<()> {
        let names: Vec<_> = self.here()?.into_iter().collect();
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
                    self.refused.insert(name_email.to_string(), e.to_string());
                }
            }
        }
        log::info!("{} of {} told to the other hosts", taken, output::keys(all));
        Ok(())
    }

    fn write(&mut self) -> Result<()> {
        self.followed.time = clock::now()?;
        self.followed.refused = self.refused.len();
        let work = self.store.workplace()?;
        self.followed.write(&self.settings.state_dir, work.path())
    }

    fn conclude(self) -> Result<()> {
        log::info!(
            "up to date with revision {}: {} made, changed or removed here",
            self.followed.revision,
            output::keys(self.taken)
        );
        state::all_done(self.refused.is_empty(), || {
            format!(
                "{} could not be taken over or told, see above",
                output::keys(self.refused.len())
            )
        })
    }
}

/// When something was done last.
struct Clocks {
    kept: Instant,
    written: Instant,
    retried: Instant,
}
