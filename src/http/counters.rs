//! What has happened since the service started: answers by their status, and how long the making of
//! keys took. `systemctl status` and `GET /metrics` both read it here.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::metrics::Exposition;

/// Statuses that are there from the start, so that the first of them shows as an increase.
const STATUSES: [u16; 12] = [200, 201, 400, 401, 403, 404, 405, 408, 413, 431, 500, 503];

/// Upper bounds of the buckets for the making of a key, in seconds: from a key of the pool on a fast
/// disk to one that waited for its turn.
const BUCKETS: [f64; 11] = [0.03, 0.06, 0.1, 0.2, 0.4, 0.8, 1.5, 3.0, 6.0, 12.0, 20.0];

/// What has happened since the service started.
#[derive(Debug)]
pub struct Counters {
    answers: Mutex<BTreeMap<u16, u64>>,
    generation: Mutex<Histogram>,
}

#[derive(Debug, Default)]
struct Histogram {
    /// Runs that took at most as long as the bucket says and longer than the one before.
    counts: [u64; BUCKETS.len()],
    /// Runs in any bucket, or longer than all.
    count: u64,
    sum: Duration,
}

impl Counters {
    /// Nothing has happened.
    pub fn new() -> Self {
        let answers = STATUSES.map(|status| (status, 0)).into();
        Self { answers: Mutex::new(answers), generation: Mutex::default() }
    }

    /// A request was answered.
    pub fn answered(&self, status: u16) {
        *lock(&self.answers).entry(status).or_default() += 1;
    }

    /// A key was made; all of it took so long, waiting for a permit as well.
    pub fn made(&self, took: Duration) {
        let mut histogram = lock(&self.generation);
        if let Some(bucket) = BUCKETS.iter().position(|bound| took.as_secs_f64() <= *bound) {
            histogram.counts[bucket] += 1;
        }
        histogram.count += 1;
        histogram.sum += took;
    }

    /// Keys made, other answers, requests refused, and failed.
    pub fn summary(&self) -> [u64; 4] {
        let answers = lock(&self.answers);
        let sum = |statuses: RangeInclusive<u16>| -> u64 {
            answers.range(statuses).map(|(_, count)| count).sum()
        };
        let made = sum(201..=201);
        [made, sum(200..=299) - made, sum(300..=499), sum(500..=599)]
    }

    /// Counter and histogram.
    pub fn write_to(&self, text: &mut Exposition) {
        let name = "copr_keygen_http_requests_total";
        text.family(name, "counter", "Requests answered since the service started.");
        for (status, count) in &*lock(&self.answers) {
            text.sample(name, &[("status", status)], count);
        }
        let name = "copr_keygen_generation_seconds";
        let help = "How long requests for a key took that made one.";
        text.family(name, "histogram", help);
        let histogram = lock(&self.generation);
        let (bucket, mut below) = (format!("{name}_bucket"), 0);
        for (bound, count) in BUCKETS.iter().zip(histogram.counts) {
            below += count;
            text.sample(&bucket, &[("le", bound)], below);
        }
        text.sample(&bucket, &[("le", &"+Inf")], histogram.count);
        text.sample(&format!("{name}_sum"), &[], histogram.sum.as_secs_f64());
        text.sample(&format!("{name}_count"), &[], histogram.count);
    }
}

/// Numbers are never left half-changed, so a panic elsewhere does not spoil them.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
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
