//! `copr-keygen follow`: keeps this host up to date with the keys that other hosts make, change or remove.
//! This file decides when to ask etcd; `take_over` acts on the answers.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cluster::directory::LEASE_TIME;
use cluster::lease::KEEP;
use cluster::{Directory, Error as ClusterError, Lease};
use keystore::{Followed, NameEmail, Store, interrupt};

mod take_over;

use super::{output, state};
use crate::cli::Follow;
use crate::error::{Error, Result};
use crate::settings::Settings;
use crate::systemd::notify::Notifier;

/// The interval at which `cluster.json` records how far this host has followed.
const WRITE: Duration = Duration::from_secs(15);
/// The pause before etcd is asked again after a failure.
const PAUSE: Duration = Duration::from_secs(1);
/// The interval at which refused keys are tried again.
const AGAIN: Duration = Duration::from_secs(60);
/// The pause before a key is tried again that another process of this host held.
const SOON: Duration = Duration::from_millis(500);

/// Follows the other hosts until a signal; with `--once` or `--seed`, compares all keys once and returns.
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
        in_use: BTreeMap::new(),
        taken: 0,
        waits_for: String::new(),
    };
    if options.once || options.seed {
        match options.seed {
            true => {
                follower.directory.tell_sealing()?;
                follower.seed()?;
            }
            false => follower.directory.prove()?,
        }
        follower.compare()?;
        follower.write()?;
        return follower.conclude();
    }
    let _alone = Followed::hold(&settings.state_dir)?;
    // Write the number of this host first. A process that restarts after a kill then presents the same
    // number, and can take over its own lease.
    follower.write()?;
    let directory = Arc::clone(&follower.directory);
    // Report readiness before etcd has answered: whether it does is no matter of this host.
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

/// The state of a run of `follow`.
struct Follower<'a> {
    settings: &'a Settings,
    store: Store,
    directory: Arc<Directory>,
    jobs: usize,
    followed: Followed,
    notifier: Notifier,
    /// The keys that could not be taken over, by name.
    refused: BTreeMap<String, Refused>,
    /// The keys that another process of this host held, with the revisions of their values in etcd.
    in_use: BTreeMap<NameEmail, u64>,
    /// The number of keys that this run made, changed or removed here.
    taken: usize,
    /// The reason why this host does not follow at the moment, as it was last logged. Empty while it follows.
    waits_for: String,
}

impl Follower<'_> {
    /// Compares everything once, then watches etcd until a failure or a signal.
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
            // An etcd that was restored from a snapshot while no watch was open is behind this host. A watch
            // stays silent until its revision has caught up, so compare everything instead.
            if self.followed.is_ahead_of(&directory.now()?) {
                lease.keep_while(|| self.compare())?;
                continue;
            }
            let begun = Instant::now();
            loop {
                self.take_used()?;
                self.keep(&lease, &mut clocks)?;
                match watch.wait() {
                    Ok(Some(changes)) => self.take_changes(changes)?,
                    Ok(None) => {
                        // Do not ask in a tight loop when a server ends every watch at once.
                        std::thread::sleep(PAUSE.saturating_sub(begun.elapsed()));
                        break;
                    }
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

    /// Takes the lease on the name of this host. When this host replaces another one, waits until the lease
    /// of that one has expired.
    ///
    /// Fails with [`Error::Settings`] when the name is still taken then: another host uses it.
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

    /// Does the periodic work: tells the watchdog, keeps the lease, writes
    /// `cluster.json`, retries refused keys.
    fn keep(&mut self, lease: &Lease, clocks: &mut Clocks) -> Result<()> {
        self.notifier.alive(&self.words());
        if clocks.kept.elapsed() >= KEEP {
            clocks.kept = Instant::now();
            if !lease.keep(Instant::now() + KEEP)? {
                return Err(Error::NoAgreement("the lease of this host has ended".into()));
            }
            if !lease.has_name(Instant::now() + KEEP)? {
                return Err(Error::NoAgreement(
                    "another host with the name and the state of this one follows: on a host whose state is a copy, \
                     remove cluster.json from it and set cluster.host"
                        .into(),
                ));
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
        let refused = match self.refused.len() + self.in_use.len() {
            0 => String::new(),
            count => format!(", {} could not be taken over", output::keys(count)),
        };
        format!("up to date with revision {}{refused}", self.followed.revision)
    }

    fn conclude(self) -> Result<()> {
        log::info!(
            "up to date with revision {}: {} made, changed or removed here",
            self.followed.revision,
            output::keys(self.taken)
        );
        for name_email in self.in_use.keys() {
            log::error!("{}", Error::InUse(name_email.clone()));
        }
        let left = self.refused.len() + self.in_use.len();
        state::all_done(left == 0, || {
            format!("{} could not be taken over or told, see above", output::keys(left))
        })
    }
}

/// Why a key could not be taken over.
struct Refused {
    why: String,
    /// The revision of its value in etcd.
    revision: u64,
}

/// When each part of the periodic work was last done.
struct Clocks {
    kept: Instant,
    written: Instant,
    retried: Instant,
}
