//! The HTTP interface: one request per connection, every read and write under a deadline, every
//! resource bounded. Knows the key store; never runs gpg and never touches a key itself.

pub mod auth;
mod connection;
mod connections;
mod counters;
mod doorstep;
pub mod error;
pub mod gen_key;
pub mod keys;
mod listener;
mod metrics;
pub mod peers;
mod ready;
mod refusals;
pub mod request;
mod response;
mod routes;
mod server;
pub mod stream;
pub mod target;
pub mod tokens;
mod workers;

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use gpg::{KeyLength, Lifetime};
use keystore::{Catalog, Store};

use crate::error::Result;
use crate::settings::Settings;

use counters::Counters;
use doorstep::Doorstep;
use metrics::CachedCounts;
use ready::Readiness;
use refusals::Refusals;
use stream::Streams;

pub use auth::Access;
pub use listener::Listener;
pub use server::{End, Server};

/// What requests are answered from.
#[derive(Debug)]
pub struct Service {
    store: Store,
    /// Who may ask for what.
    access: Access,
    /// Requests that were not let in.
    refusals: Refusals,
    /// Where those wait who are told so.
    doorstep: Arc<Doorstep>,
    /// The keys, to look at.
    catalog: Catalog,
    state_dir: PathBuf,
    /// Length of a key whose request names none.
    key_length: KeyLength,
    /// Lifetime of a key whose request names none.
    lifetime: Lifetime,
    /// What has happened so far.
    counters: Counters,
    key_counts: Arc<CachedCounts>,
    readiness: Readiness,
    streams: Streams,
    /// When it began to stop.
    stopping: OnceLock<Instant>,
}

impl Service {
    /// A service of the keys in `store`, for those whom settings and tokens allow.
    pub fn new(store: Store, access: Access, settings: &Settings) -> Result<Self> {
        Ok(Self {
            access,
            refusals: Refusals::default(),
            doorstep: Arc::default(),
            catalog: store.shared_catalog(),
            store,
            state_dir: settings.state_dir.clone(),
            key_length: *settings.key_length.get()?,
            lifetime: *settings.expire.get()?,
            counters: Counters::new(),
            key_counts: Arc::default(),
            readiness: Readiness::default(),
            streams: Streams::default(),
            stopping: OnceLock::new(),
        })
    }

    /// Refuses sockets that would let anybody in.
    pub fn check_sockets(&self, listeners: &[Listener]) -> Result<()> {
        self.access.check(listeners)
    }

    /// The keys.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// One line for `systemctl status`.
    pub fn status_text(&self) -> String {
        let [made, others, refused, failed] = self.counters.summary();
        let (running, waiting) = self.store.load();
        format!(
            "keys made: {made}, other answers: {others}, refused: {refused}, failed: {failed}; \
             in the making: {running}, waiting: {waiting}"
        )
    }

    /// From now on, long answers are not waited for much longer.
    fn stop(&self) {
        let _ = self.stopping.set(Instant::now()); // the first time counts
        self.doorstep.close();
        let left_out = self.refusals.left_out();
        if left_out > 0 {
            log::warn!("{left_out} more requests that were not let in are not in this log");
        }
    }
}
