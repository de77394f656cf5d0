//! What every request is answered from, and what has happened since the service started.

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

/// What requests are answered from.
#[derive(Debug)]
pub struct Service {
    pub(super) store: Store,
    /// The rules by which clients are let in.
    pub(super) access: Access,
    /// How many requests that were not let in get a line in the log.
    pub(super) flood: FloodLimit,
    /// The answers to those requests, which wait for a moment.
    pub(super) delayed_refusals: Arc<DelayedRefusals>,
    /// The keys, to look at.
    pub(super) catalog: Catalog,
    pub(super) state_dir: PathBuf,
    /// Whether other hosts have these keys too.
    has_others: bool,
    /// Length of a key whose request names none.
    pub(super) key_length: KeyLength,
    /// Lifetime of a key whose request names none.
    pub(super) lifetime: Lifetime,
    pub(super) counters: Counters,
    pub(super) key_counts: Arc<CachedCounts>,
    pub(super) readiness: Readiness,
    pub(super) streams: StreamLimit,
    /// When the service began to stop.
    pub(super) stopping: OnceLock<Instant>,
}

impl Service {
    /// A service of the keys in `store`, for the clients that `access` lets in.
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

    /// The keys.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// How far this host has followed the others, where there are others.
    pub(super) fn followed(&self) -> Option<Followed> {
        self.has_others.then(|| Followed::read(&self.state_dir)).flatten()
    }
}

/// A request on its way to an answer.
pub struct RequestContext<'s, 'r> {
    pub service: &'s Service,
    pub head: &'r Head,
    pub body: &'r [u8],
    pub caller: &'r Caller,
    /// When the answer is due.
    pub deadline: Instant,
}
