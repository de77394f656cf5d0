//! `copr-keygen serve`: answers HTTP requests for keys, on sockets passed by systemd or on its own.

use std::sync::Arc;
use std::time::Duration;

use keystore::{CREDENTIAL, Homes, Passphrases, Store, check_root};

use super::fill_pool::Filler;
use super::state;
use crate::error::{Error, Result};
use crate::http::{Access, Service};
use crate::privileges;
use crate::server::{Listener, Server};
use crate::settings::Settings;
use crate::systemd::notify::Notifier;
use crate::systemd::signals::Signals;
use crate::systemd::sockets;

/// Serves until a signal; on sockets passed by systemd, also ends after `idle_timeout` without a request.
pub fn run(mut settings: Settings) -> Result<()> {
    // Only root may be able to read these credentials, so read them before privileges are dropped.
    settings.find_sealing_key()?;
    settings.find_cluster()?;
    let access = Access::load(&settings)?;
    check_values(&settings)?;
    state::require_mounted(&settings.state_dir)?;
    if settings.state_dir.exists() {
        privileges::become_owner(&settings.state_dir)?;
    }
    check_root(&settings.state_dir)?;
    check_sealing(&settings)?;
    let signals = Signals::take()?;
    let mut notifier = Notifier::from_env();
    let passed = sockets::passed()?;
    // Only sockets held by systemd stay open while the service does not run.
    let alone = passed.is_empty();
    if alone {
        settings.listen.get()?;
    }

    if let Some(cluster) = &settings.cluster_directory {
        match cluster.prove() {
            Err(e @ Error::NoAgreement(_)) => log::error!("{e}; until then no key is made"),
            proven => proven?,
        }
    }
    let gpg = settings.gnupg()?;
    if let Err(e) = gpg.check_installed() {
        log::error!("{e}; until then no key can be made");
    }
    let store = Store::open(&settings.keystore()?, gpg)?;
    store.prepare_phrases()?;

    let (listeners, idle_timeout) = match alone {
        true => (Listener::bind("listen", settings.listen.get()?)?, Duration::ZERO),
        false => (Listener::take_over(passed)?, *settings.idle_timeout.get()?),
    };
    access.check(&listeners)?;
    let service = Arc::new(Service::new(store, access, &settings)?);
    if alone {
        for address in settings.listen.get()? {
            log::info!("listening at {address}, keys are kept in {}", settings.state_dir.display());
        }
    }
    let idle_timeout = (!idle_timeout.is_zero()).then_some(idle_timeout);

    // Under systemd, a unit fills the pool; without it, a thread does.
    let filler = match &settings.pool.get()?[..] {
        stock if alone && !stock.is_empty() => {
            Some(Filler::start(Arc::clone(&service), stock.to_vec())?)
        }
        _ => None,
    };

    settings.warn_of_faults();
    notifier.ready();
    let end =
        Server::new(Arc::clone(&service), listeners).run(idle_timeout, &signals, &mut notifier)?;
    drop(filler);
    service.store().clear_staging();
    end.told()
}

/// Checks the key that seals passphrases before anything is changed. A signing key made with the wrong
/// credential could never be used with the right one.
fn check_sealing(settings: &Settings) -> Result<()> {
    let passphrases = Passphrases::new(&settings.keystore()?);
    passphrases.verify_state(&Homes::new(&settings.state_dir))?;
    if settings.sealing_key.is_some() && passphrases.marker()?.is_none() {
        log::warn!(
            "a {CREDENTIAL} is given, but the passphrases are not sealed: `copr-keygen seal` does it"
        );
    }
    Ok(())
}

/// Checks the settings that requests need later, before anything is changed.
fn check_values(settings: &Settings) -> Result<()> {
    settings.jobs.get()?;
    settings.queue_timeout.get()?;
    settings.idle_timeout.get()?;
    settings.pool.get()?;
    settings.pool_max_age.get()?;
    settings.key_length.get()?;
    settings.check_expire()
}
