//! Counts what has been signed since this process started, for `systemctl status` and for Prometheus.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use gpg::locks::unpoisoned;

use crate::error::Result;
use crate::metrics::{Exposition, Histogram, write_text};

/// The upper bounds of the histogram buckets for the duration of a request, in seconds. They range from one
/// RSA-2048 signature to a request that waited for its turn.
const BUCKETS: [f64; 11] = [0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 5.0, 10.0];

/// The counters of the signer.
#[derive(Debug, Default)]
pub struct Counters {
    counted: Mutex<Counted>,
    waiting: AtomicUsize,
}

#[derive(Debug)]
struct Counted {
    /// The number of requests, by result.
    requests: BTreeMap<&'static str, u64>,
    /// The number of signatures, by algorithm.
    signatures: BTreeMap<String, u64>,
    /// The durations of requests that produced signatures.
    signing: Histogram,
}

impl Default for Counted {
    fn default() -> Self {
        // Start with zeros: to Prometheus, the first failure must be an increase.
        let (requests, signatures) = (BTreeMap::from([("ok", 0), ("failed", 0)]), BTreeMap::new());
        Self { requests, signatures, signing: Histogram::new(&BUCKETS) }
    }
}

impl Counters {
    /// Counts a request that was answered with `result`, and its `signatures`, made with a key of this
    /// `algorithm`.
    pub fn answered(
        &self,
        result: &'static str,
        algorithm: &str,
        signatures: usize,
        took: Duration,
    ) {
        let mut counted = unpoisoned(self.counted.lock());
        *counted.requests.entry(result).or_default() += 1;
        if signatures == 0 {
            return;
        }
        *counted.signatures.entry(algorithm.into()).or_default() += signatures as u64;
        counted.signing.add(took);
    }

    /// Sets the number of requests that are waiting now.
    pub fn waiting(&self, count: usize) {
        self.waiting.store(count, Ordering::Relaxed);
    }

    /// Returns the numbers of signatures, of successful requests without a signature, of refused requests and
    /// of failed ones.
    pub fn summary(&self) -> [u64; 4] {
        let counted = unpoisoned(self.counted.lock());
        let of = |result: &str| counted.requests.get(result).copied().unwrap_or_default();
        let all: u64 = counted.requests.values().sum();
        let signatures = counted.signatures.values().sum();
        let (well, failed) = (of("ok"), of("failed"));
        [signatures, well.saturating_sub(counted.signing.count()), all - well - failed, failed]
    }

    /// Writes all metrics to `path`, the file of the setting `signd.metrics_file`.
    pub fn write(&self, path: &Path) -> Result<()> {
        let mut text = Exposition::default();
        self.write_to(&mut text);
        write_text("signd.metrics_file", path, text)
    }

    fn write_to(&self, text: &mut Exposition) {
        let counted = unpoisoned(self.counted.lock());
        let name = "copr_keygen_sign_requests_total";
        text.family(name, "counter", "Requests answered by the signer since it started.");
        for (result, count) in &counted.requests {
            text.sample(name, &[("result", result)], count);
        }
        let name = "copr_keygen_signatures_total";
        text.family(name, "counter", "Signatures made by the signer since it started.");
        for (algorithm, count) in &counted.signatures {
            text.sample(name, &[("algorithm", algorithm)], count);
        }
        let help = "Requests that wait for a processor.";
        text.gauge("copr_keygen_sign_waiting", help, self.waiting.load(Ordering::Relaxed));
        let help = "How long requests took that got signatures.";
        text.histogram("copr_keygen_sign_seconds", help, &counted.signing);
    }
}
