//! The state that requests are answered from, and counters since the start of the service.

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use gpg::{KeyLength, Lifetime};
use keystore::{Catalog, Followed, Result, Store};

use super::auth::{Access, Caller};
use super::counters::{CachedCounts, Counters};
use super::readiness::Readiness;
use super::request::Head;
use super::stream::StreamLimit;
use crate::server::{DelayedRefusals, FloodLimit};
use crate::settings::Settings;

/// The HTTP service: the state shared by all requests.
#[derive(Debug)]
pub struct Service {
    pub(super) store: Store,
    /// The rules that decide which clients are let in.
    pub(super) access: Access,
    /// Limits the log lines about clients that were not let in.
    pub(super) flood: FloodLimit,
    /// The answers to such clients, which are sent after a delay.
    pub(super) delayed_refusals: Arc<DelayedRefusals>,
    /// The keys, for read access.
    pub(super) catalog: Catalog,
    pub(super) state_dir: PathBuf,
    /// Whether this host shares its keys with others.
    has_others: bool,
    /// The length of a key whose request gives none.
    pub(super) key_length: KeyLength,
    /// The lifetime of a key whose request gives none.
    pub(super) lifetime: Lifetime,
    pub(super) counters: Counters,
    pub(super) key_counts: Arc<CachedCounts>,
    pub(super) readiness: Readiness,
    pub(super) streams: StreamLimit,
    /// When the service began to stop.
    pub(super) stopping: OnceLock<Instant>,
}

impl Service {
    /// Creates a service for the keys in `store` and the clients that `access` lets in.
    pub fn new(store: Store, access: Access, settings: &Settings) -> Result<Self> {
        Ok(Self {
            access,
            flood: FloodLimit::default(),
            delayed_refusals: Arc::default(),
            catalog: store.shared_catalog(),
            store,
            state_dir: settings.state_dir.clone(),
            has_others: settings.cluster_directory.is_some(),
            key_length: *settings.key_length.get()?,
            lifetime: *settings.expire.get()?,
            counters: Counters::new(),
            key_counts: Arc::default(),
            readiness: Readiness::default(),
            streams: StreamLimit::default(),
            stopping: OnceLock::new(),
        })
    }

    /// Returns the key store.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Returns how far this host has followed the other hosts. `None` if it shares no keys, or if nothing is
    /// recorded.
    pub(super) fn followed(&self) -> Option<Followed> {
        self.has_others.then(|| Followed::read(&self.state_dir)).flatten()
    }
}

/// A request that is being answered.
pub struct RequestContext<'s, 'r> {
    pub service: &'s Service,
    pub head: &'r Head,
    pub body: &'r [u8],
    pub caller: &'r Caller,
    /// When the answer must be ready.
    pub deadline: Instant,
}
