//! `GET /metrics`, in the text format of Prometheus.

use super::response::Answer;
use super::service::Service;
use crate::metrics::Exposition;

/// The media type of the text format.
const TEXT_FORMAT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Answers a scrape. Leaves out the gauges of the keys if they have not been counted.
pub fn answer(service: &Service) -> Answer<'static> {
    let mut text = Exposition::default();
    let counts = service.key_counts.get(&service.catalog, &service.state_dir);
    if let Some(counts) = counts {
        counts.write_to(&mut text);
        let help = "When the keys were counted (Unix time).";
        text.gauge("copr_keygen_keys_counted_timestamp_seconds", help, counts.counted);
    }
    service.counters.write_to(&mut text);
    if let Some(followed) = service.followed() {
        let help = "When this host was last up to date with the others (Unix time).";
        text.gauge("copr_keygen_cluster_followed_timestamp_seconds", help, followed.time);
        let help = "The revision of etcd up to which this host has every change.";
        text.gauge("copr_keygen_cluster_revision", help, followed.revision);
        let help =
            "Keys of other hosts that could not be taken over; the log of follow names them.";
        text.gauge("copr_keygen_cluster_keys_refused", help, followed.refused);
    }
    let (running, waiting) = service.store.load();
    text.gauge("copr_keygen_jobs_running", "gpg jobs that run.", running);
    text.gauge("copr_keygen_jobs_waiting", "Requests that wait for a gpg job to end.", waiting);
    text.family("copr_keygen_build_info", "gauge", "The version that runs.");
    text.sample("copr_keygen_build_info", &[("version", &env!("CARGO_PKG_VERSION"))], 1);
    Answer::whole(200, TEXT_FORMAT, text.into_text())
}
