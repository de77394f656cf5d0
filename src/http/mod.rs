//! The HTTP interface: one request per connection, every read and write under a deadline, every
//! resource bounded. Knows the key store; never runs gpg and never touches a key itself.

mod connection;
mod connections;
mod gen_key;
mod listener;
mod request;
mod response;
mod routes;
mod server;

use std::sync::atomic::{AtomicU64, Ordering};

use crate::key_request::{KeyLength, Lifetime};
use crate::keys::Store;

pub use listener::Listener;
pub use server::{End, Server};

/// What requests are answered from.
#[derive(Debug)]
pub struct Service {
    /// The keys.
    pub store: Store,
    /// Length of a key whose request names none.
    pub key_length: KeyLength,
    /// Lifetime of a key whose request names none.
    pub lifetime: Lifetime,
    /// What has happened so far.
    pub counters: Counters,
}

/// What has happened since the service started.
#[derive(Debug, Default)]
pub struct Counters {
    made: AtomicU64,
    existed: AtomicU64,
    refused: AtomicU64,
    failed: AtomicU64,
}

impl Counters {
    fn count(&self, status: u16) {
        let counter = match status {
            201 => &self.made,
            200..=299 => &self.existed,
            500.. => &self.failed,
            _ => &self.refused,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

impl Service {
    /// One line for `systemctl status`.
    pub fn status_text(&self) -> String {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let (running, waiting) = self.store.load();
        format!(
            "keys made: {}, other answers: {}, refused: {}, failed: {}; in the making: {running}, \
             waiting: {waiting}",
            read(&self.counters.made),
            read(&self.counters.existed),
            read(&self.counters.refused),
            read(&self.counters.failed),
        )
    }
}
