//! `copr-keygen follow`: this host has every key that other hosts make, change or remove. Here is when it asks etcd;
//! what it does with the answers is in `take_over`.

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
    /// Keys that could not be taken over.
    refused: BTreeMap<String, Refused>,
    /// Keys that another process of this host had in its hands, and the revisions of their values.
    in_use: BTreeMap<NameEmail, u64>,
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
                        // Whoever ends it at once is not asked at once again.
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

/// A key that could not be taken over.
struct Refused {
    why: String,
    /// Of the value in etcd.
    revision: u64,
}

/// When something was done last.
struct Clocks {
    kept: Instant,
    written: Instant,
    retried: Instant,
}
