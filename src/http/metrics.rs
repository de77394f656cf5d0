//! `GET /metrics`. Counting keys means reading each of them, so it is done in the background, by one
//! thread, and no more often than every five minutes; a scrape waits for it only briefly.

use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use gpg::clock;
use keystore::Catalog;

use super::Service;
use super::response::Answer;
use crate::error::Result;
use crate::metrics::{Exposition, KeyCounts};

/// The media type of the text format.
const TEXT_FORMAT: &str = "text/plain; version=0.0.4; charset=utf-8";
/// How long a count is good.
const COUNT_TIME: Duration = Duration::from_secs(300);
/// How long a scrape waits for a count; Prometheus hangs up after ten seconds.
const PATIENCE: Duration = Duration::from_secs(5);
/// Scrapes that wait at once; the others are content with what is there.
const WAITING_MAX: usize = 8;

/// Answers a scrape. Without a count of the keys, their gauges are missing from it.
pub fn answer(service: &Service) -> Answer<'static> {
    let mut text = Exposition::default();
    let counts = service.key_counts.get(&service.catalog, &service.state_dir);
    if let Some(counts) = counts {
        counts.write_to(&mut text);
        let help = "When the keys were counted (Unix time).";
        text.gauge("copr_keygen_keys_counted_timestamp_seconds", help, counts.counted);
    }
    service.counters.write_to(&mut text);
    let (running, waiting) = service.store.load();
    text.gauge("copr_keygen_jobs_running", "gpg jobs that run.", running);
    text.gauge("copr_keygen_jobs_waiting", "Requests that wait for a gpg job to end.", waiting);
    text.family("copr_keygen_build_info", "gauge", "The version that runs.");
    text.sample("copr_keygen_build_info", &[("version", &env!("CARGO_PKG_VERSION"))], 1);
    Answer::whole(200, TEXT_FORMAT, text.into_text())
}

/// The last count of the keys, and who makes the next one.
#[derive(Debug, Default)]
pub struct CachedCounts {
    state: Mutex<State>,
    ended: Condvar,
}

#[derive(Debug, Default)]
struct State {
    counts: Option<KeyCounts>,
    /// When the last count ended, well or not.
    ended: Option<Instant>,
    is_counting: bool,
    waiting: usize,
}

/// Ends a count, however the thread that makes it ends.
struct Counting(Arc<CachedCounts>);

impl CachedCounts {
    /// Whether keys are being counted.
    pub fn is_counting(&self) -> bool {
        self.lock().is_counting
    }

    /// The keys as they were at most five minutes ago; older ones, or none, when counting them takes
    /// longer than a scrape can wait.
    fn get(self: &Arc<Self>, catalog: &Catalog, state_dir: &Path) -> Option<KeyCounts> {
        let mut state = self.lock();
        if state.ended.is_some_and(|at| at.elapsed() < COUNT_TIME) {
            return state.counts.clone();
        }
        if !state.is_counting {
            state.is_counting = true;
            drop(state);
            self.start(catalog.clone(), state_dir.into());
            state = self.lock();
        }
        if state.waiting < WAITING_MAX {
            state.waiting += 1;
            let waited = self.ended.wait_timeout_while(state, PATIENCE, |state| state.is_counting);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
            state.waiting -= 1;
        }
        state.counts.clone()
    }

    fn start(self: &Arc<Self>, catalog: Catalog, state_dir: Box<Path>) {
        let counting = Counting(Arc::clone(self));
        let count = move || {
            let counted = clock::now()
                .map_err(Into::into)
                .and_then(|now| KeyCounts::count(&catalog, &state_dir, now));
            counting.end(counted);
        };
        if let Err(e) = thread::Builder::new().name("count".into()).spawn(count) {
            log::warn!("starting a thread that counts the keys: {e}");
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Counting {
    fn end(self, counted: Result<KeyCounts>) {
        match counted {
            Ok(counts) => self.0.lock().counts = Some(counts),
            Err(e) => log::warn!("counting the keys: {e}"),
        }
    }
}

impl Drop for Counting {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.is_counting = false;
        state.ended = Some(Instant::now());
        drop(state);
        self.0.ended.notify_all();
    }
}
