//! Counters since the start of the service: answers by status, the time it takes to make keys, and the number
//! of keys. Both `systemctl status` and `GET /metrics` use them.
//!
//! Counting the keys means reading each of them. One thread does this in the background, at most once every
//! five minutes. A scrape waits for it only briefly.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use gpg::clock;
use gpg::locks::unpoisoned;
use keystore::{Catalog, Result};

use crate::metrics::{Exposition, Histogram, KeyCounts};

/// The statuses that are counted from the start, so that the first such answer shows as an increase.
const STATUSES: [u16; 12] = [200, 201, 400, 401, 403, 404, 405, 408, 413, 431, 500, 503];

/// The upper bounds of the histogram buckets for making a key, in seconds. They range from a key of the pool on
/// a fast disk to a request that waited for its turn.
const BUCKETS: [f64; 11] = [0.03, 0.06, 0.1, 0.2, 0.4, 0.8, 1.5, 3.0, 6.0, 12.0, 20.0];

/// How long a count of the keys stays valid.
const COUNT_TIME: Duration = Duration::from_secs(300);
/// How long a scrape waits for a count. Prometheus hangs up after ten seconds.
const PATIENCE: Duration = Duration::from_secs(5);
/// The maximum number of scrapes that wait for a count. Others get the last count.
const WAITING_MAX: usize = 8;

/// The counters since the start of the service.
#[derive(Debug)]
pub struct Counters {
    answers: Mutex<BTreeMap<u16, u64>>,
    generation: Mutex<Histogram>,
}

impl Counters {
    /// Creates the counters, all zero.
    pub fn new() -> Self {
        let answers = STATUSES.map(|status| (status, 0)).into();
        let generation = Mutex::new(Histogram::new(&BUCKETS));
        Self { answers: Mutex::new(answers), generation }
    }

    /// Counts an answer.
    pub fn answered(&self, status: u16) {
        *unpoisoned(self.answers.lock()).entry(status).or_default() += 1;
    }

    /// Counts a key that was made. `took` includes the time spent waiting for a permit.
    pub fn made(&self, took: Duration) {
        unpoisoned(self.generation.lock()).add(took);
    }

    /// Returns the numbers of keys made, of other successful answers, of refused requests and of failed ones.
    pub fn summary(&self) -> [u64; 4] {
        let answers = unpoisoned(self.answers.lock());
        let sum = |statuses: RangeInclusive<u16>| -> u64 {
            answers.range(statuses).map(|(_, count)| count).sum()
        };
        let made = sum(201..=201);
        [made, sum(200..=299) - made, sum(300..=499), sum(500..=599)]
    }

    /// Writes the counter and the histogram.
    pub fn write_to(&self, text: &mut Exposition) {
        let name = "copr_keygen_http_requests_total";
        text.family(name, "counter", "Requests answered since the service started.");
        for (status, count) in &*unpoisoned(self.answers.lock()) {
            text.sample(name, &[("status", status)], count);
        }
        let name = "copr_keygen_generation_seconds";
        let help = "How long requests for a key took that made one.";
        let generation = unpoisoned(self.generation.lock());
        text.histogram(name, help, &generation);
    }
}

/// The last count of the keys, and whether a thread is making the next one.
#[derive(Debug, Default)]
pub struct CachedCounts {
    state: Mutex<CountState>,
    ended: Condvar,
}

#[derive(Debug, Default)]
struct CountState {
    counts: Option<KeyCounts>,
    /// When the last count ended, successfully or not.
    ended: Option<Instant>,
    is_counting: bool,
    waiting: usize,
}

/// A count in progress. Dropping it ends the count, even if its thread panics.
struct Counting(Arc<CachedCounts>);

impl CachedCounts {
    /// Whether the keys are being counted.
    pub fn is_counting(&self) -> bool {
        unpoisoned(self.state.lock()).is_counting
    }

    /// Returns a count of the keys that is at most five minutes old. If counting takes longer than a scrape can
    /// wait, returns an older count, or `None` if there is none.
    pub fn get(self: &Arc<Self>, catalog: &Catalog, state_dir: &Path) -> Option<KeyCounts> {
        let mut state = unpoisoned(self.state.lock());
        if state.ended.is_some_and(|at| at.elapsed() < COUNT_TIME) {
            return state.counts.clone();
        }
        if !state.is_counting {
            state.is_counting = true;
            drop(state);
            self.start(catalog.clone(), state_dir.into());
            state = unpoisoned(self.state.lock());
        }
        if state.waiting < WAITING_MAX {
            state.waiting += 1;
            let counts = |state: &mut CountState| state.is_counting;
            state = unpoisoned(self.ended.wait_timeout_while(state, PATIENCE, counts)).0;
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
}

impl Counting {
    fn end(self, counted: Result<KeyCounts>) {
        match counted {
            Ok(counts) => unpoisoned(self.0.state.lock()).counts = Some(counts),
            Err(e) => log::warn!("counting the keys: {e}"),
        }
    }
}

impl Drop for Counting {
    fn drop(&mut self) {
        let mut state = unpoisoned(self.0.state.lock());
        state.is_counting = false;
        state.ended = Some(Instant::now());
        drop(state);
        self.0.ended.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_count_serves_status_line_and_metrics() {
        let counters = Counters::new();
        for (status, times) in [(201, 1), (200, 2), (404, 3), (400, 1), (503, 5), (418, 1)] {
            (0..times).for_each(|_| counters.answered(status));
        }
        assert_eq!(counters.summary(), [1, 2, 5, 5]);
        let mut text = Exposition::default();
        counters.write_to(&mut text);
        let text = text.into_text();
        for (status, count) in [(200, 2), (201, 1), (404, 3), (405, 0), (418, 1), (503, 5)] {
            let line = format!("copr_keygen_http_requests_total{{status=\"{status}\"}} {count}\n");
            assert!(text.contains(&line), "{line} is not in {text}");
        }
    }

    #[test]
    fn buckets_hold_all_that_is_below_them() {
        let counters = Counters::new();
        for milliseconds in [20, 30, 31, 250, 19_999, 23_000] {
            counters.made(Duration::from_millis(milliseconds));
        }
        let mut text = Exposition::default();
        counters.write_to(&mut text);
        let text = text.into_text();
        for line in [
            "_bucket{le=\"0.03\"} 2\n",
            "_bucket{le=\"0.06\"} 3\n",
            "_bucket{le=\"0.2\"} 3\n",
            "_bucket{le=\"0.4\"} 4\n",
            "_bucket{le=\"12\"} 4\n",
            "_bucket{le=\"20\"} 5\n",
            "_bucket{le=\"+Inf\"} 6\n",
            "_sum 43.33\n",
            "_count 6\n",
        ] {
            assert!(text.contains(&format!("copr_keygen_generation_seconds{line}")), "{text}");
        }
    }
}
