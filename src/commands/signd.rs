//! `copr-keygen signd`: signs for the clients of obs-signd, on sockets passed by systemd or on its own.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use keystore::{Homes, Passphrases, SigningKeys, Store, check_root};
use nix::unistd::geteuid;
use signer::{Policy, Signer};

use super::state;
use crate::error::{Error, Result};
use crate::privileges;
use crate::server::{Listener, Server};
use crate::settings::Settings;
use crate::signd::{Access, Counters, Service};
use crate::systemd::notify::Notifier;
use crate::systemd::signals::Signals;
use crate::systemd::sockets;

/// The interval at which metrics are written.
const METRICS_PAUSE: Duration = Duration::from_secs(15);

/// Signs until a signal; on sockets passed by systemd, also ends after `idle_timeout` without a request.
pub fn run(mut settings: Settings) -> Result<()> {
    // Only root may be able to read this credential, so read it before privileges are dropped.
    settings.find_sealing_key()?;
    let access = Access::load(&settings)?;
    let signd = &settings.signd;
    let policy = Policy { sha1: *signd.sha1.get()?, expired: *signd.expired.get()? };
    let metrics_file = signd.metrics_file.get()?.clone();
    state::require_mounted(&settings.state_dir)?;
    // Another user's state directory cannot even be read, so name the wrong owner first.
    if !geteuid().is_root() {
        check_root(&settings.state_dir)?;
    }
    state::require_state(&settings.state_dir)?;
    privileges::become_owner(&settings.state_dir)?;
    check_root(&settings.state_dir)?;
    Store::check_is_ours(&settings.state_dir)?;
    let options = settings.signing()?;
    Passphrases::new(&options).verify_readable(&Homes::new(&settings.state_dir))?;
    let signals = Signals::take()?;
    let mut notifier = Notifier::from_env();
    let passed = sockets::passed()?;
    // Only sockets held by systemd stay open while the process does not run.
    let alone = passed.is_empty();
    let (listeners, idle_timeout) = match alone {
        true => (Listener::bind("signd.listen", signd.listen.get()?)?, Duration::ZERO),
        false => (Listener::take_over(passed)?, *settings.idle_timeout.get()?),
    };
    if !access.is_open_to_others() {
        for address in listeners.iter().filter_map(Listener::open_address) {
            log::warn!(
                "other hosts can reach {address}, and signd.allow names none that may have anything signed"
            );
        }
    }
    let keys = SigningKeys::new(&options, settings.gnupg()?);
    keys.clear_staging();
    let signer = Signer::new(keys, policy);
    let counters = Arc::new(Counters::default());
    let metrics = metrics_file.map(|file| MetricsWriter::start(file, &counters)).transpose()?;
    let service = Arc::new(Service::new(signer, access, counters));
    if alone {
        for address in signd.listen.get()? {
            log::info!("listening at {address}, keys are in {}", settings.state_dir.display());
        }
    }
    settings.warn_of_faults();
    notifier.ready();
    let idle_timeout = (!idle_timeout.is_zero()).then_some(idle_timeout);
    let end = Server::new(service, listeners).run(idle_timeout, &signals, &mut notifier)?;
    drop(metrics);
    end.told()
}

/// A thread that writes metrics to a file at intervals, and once more when this value is dropped.
struct MetricsWriter {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl MetricsWriter {
    fn start(file: PathBuf, counters: &Arc<Counters>) -> Result<Self> {
        let (stop, stopped) = mpsc::channel::<()>();
        let counters = Arc::clone(counters);
        let write = move || {
            loop {
                let is_last = stopped.recv_timeout(METRICS_PAUSE) != Err(RecvTimeoutError::Timeout);
                if let Err(e) = counters.write(&file) {
                    log::warn!("{e}");
                }
                if is_last {
                    return;
                }
            }
        };
        let thread = thread::Builder::new().name("metrics".into()).spawn(write);
        let thread = thread.map_err(|e| Error::io("starting a thread", e))?;
        Ok(Self { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for MetricsWriter {
    fn drop(&mut self) {
        drop(self.stop.take());
        let _ = self.thread.take().map(JoinHandle::join);
    }
}
