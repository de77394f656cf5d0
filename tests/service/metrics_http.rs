//! `GET /metrics`: the syntax that Prometheus reads, and numbers that are true.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::thread;

use serde_json::{Value, json};

use super::host::{Host, TRANSPORTS, Transport, now};
use super::keys_http::multiply;

const ID: &str = "user#project@copr.example.org";
const DAY: u64 = 86_400;

fn scrape(host: &Host) -> BTreeMap<String, f64> {
    let reply = host.get("/metrics").unwrap();
    assert_eq!(reply.status, 200, "{reply:?}");
    let kind = reply.header("Content-Type").unwrap();
    assert!(kind.starts_with("text/plain; version=0.0.4"), "{kind}");
    read(&reply.body)
}

/// Reads the text format 0.0.4 as strictly as promtool does: every family has its help and type
/// before its samples, which stand together; names, labels and values have their syntax; nothing is
/// there twice; a histogram adds up.
pub fn read(text: &str) -> BTreeMap<String, f64> {
    assert!(text.ends_with('\n'), "{text}");
    let (mut samples, mut families) = (BTreeMap::new(), BTreeSet::new());
    let (mut family, mut kind, mut helped) = ("", "", "");
    for line in text.lines() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            let (name, help) = help.split_once(' ').unwrap();
            assert!(is_name(name) && help.ends_with('.') || help.contains("(Unix time)"), "{line}");
            assert!(families.insert(name), "{name} is there twice");
            helped = name;
        } else if let Some(declared) = line.strip_prefix("# TYPE ") {
            (family, kind) = declared.split_once(' ').unwrap();
            assert_eq!(family, helped, "{line}");
            assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
            assert_eq!(kind == "counter", family.ends_with("_total"), "{line}");
        } else {
            let (series, value) = line.rsplit_once(' ').unwrap();
            let (name, labels) = series.split_once('{').unwrap_or((series, "}"));
            let of = match name.strip_prefix(family).unwrap_or_else(|| panic!("{line} in {family}"))
            {
                "" => kind != "histogram",
                "_bucket" | "_sum" | "_count" => kind == "histogram",
                _ => false,
            };
            assert!(of && is_name(name), "{line}");
            let labels = labels.strip_suffix('}').unwrap();
            for label in labels.split(',').filter(|label| !label.is_empty()) {
                let (label, text) = label.split_once("=\"").unwrap();
                assert!(is_name(label) && !label.contains(':'), "{line}");
                let text = text.strip_suffix('"').unwrap();
                assert!(!text.contains(['"', '\\']), "{line}");
            }
            let value: f64 = value.parse().unwrap();
            assert!(samples.insert(series.to_owned(), value).is_none(), "{series} twice");
        }
    }
    let name = "copr_keygen_generation_seconds";
    if families.contains(name) {
        let mut buckets: Vec<(f64, f64)> = samples
            .iter()
            .filter_map(|(series, count)| {
                let bound = series.strip_prefix(name)?.strip_prefix("_bucket{le=\"")?;
                Some((bound.strip_suffix("\"}")?.parse().unwrap(), *count))
            })
            .collect();
        buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
        assert!(buckets.windows(2).all(|pair| pair[0].1 <= pair[1].1), "{buckets:?}");
        let last = buckets.last().unwrap();
        assert_eq!(*last, (f64::INFINITY, samples[&format!("{name}_count")]));
    }
    samples
}

fn is_name(name: &str) -> bool {
    let first = name.chars().next().unwrap();
    (first.is_ascii_alphabetic() || first == '_')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == ':')
}

#[test]
fn a_scrape_is_understood_over_every_transport() {
    for transport in TRANSPORTS {
        let host = Host::start(transport);
        let metrics = scrape(&host);
        for (series, value) in [
            ("copr_keygen_keys", 0.0),
            ("copr_keygen_keys_expired", 0.0),
            ("copr_keygen_keys_unreadable", 0.0),
            ("copr_keygen_pool_keys{bits=\"4096\"}", 0.0),
            ("copr_keygen_jobs_running", 0.0),
            ("copr_keygen_jobs_waiting", 0.0),
            ("copr_keygen_generation_seconds_count", 0.0),
            ("copr_keygen_http_requests_total{status=\"503\"}", 0.0),
            (concat!("copr_keygen_build_info{version=\"", env!("CARGO_PKG_VERSION"), "\"}"), 1.0),
        ] {
            assert_eq!(metrics.get(series), Some(&value), "{series} in {metrics:?}");
        }
    }
}

#[test]
fn keys_are_counted_by_when_they_expire() {
    let host = Host::start(Transport::PassedUnix);
    assert_eq!(host.gen_key(ID, json!({})).unwrap().status, 201);
    let now = now();
    multiply(&host, ID, 12, |number, record: &mut Value| {
        record["expires"] = match number {
            0 => json!(now - 1),
            1 => json!(1),
            2..=4 => json!(now + 29 * DAY),
            5 => json!(now + 31 * DAY),
            6 | 7 => json!(now + 364 * DAY),
            8 => json!(now + 400 * DAY),
            _ => Value::Null,
        };
    });
    let broken = host.home("broken#project@copr.example.org");
    fs::create_dir(&broken).unwrap();
    fs::write(broken.join("key.json"), "{}").unwrap();
    for (bits, grips) in [(2048, 3), (4096, 1)] {
        for number in 0..grips {
            let grip = format!("{number:040X}");
            fs::create_dir_all(host.state().join(format!("pool/rsa{bits}")).join(grip)).unwrap();
        }
    }
    let metrics = scrape(&host);
    for (series, value) in [
        ("copr_keygen_keys", 13.0),
        ("copr_keygen_keys_expired", 2.0),
        ("copr_keygen_keys_expiring{within_days=\"30\"}", 3.0),
        ("copr_keygen_keys_expiring{within_days=\"90\"}", 4.0),
        ("copr_keygen_keys_expiring{within_days=\"365\"}", 6.0),
        ("copr_keygen_keys_unreadable", 1.0),
        ("copr_keygen_pool_keys{bits=\"2048\"}", 3.0),
        ("copr_keygen_pool_keys{bits=\"3072\"}", 0.0),
        ("copr_keygen_pool_keys{bits=\"4096\"}", 1.0),
    ] {
        assert_eq!(metrics.get(series), Some(&value), "{series} in {metrics:?}");
    }
    assert!(host.log().contains("1 key could not be counted"), "{}", host.log());
    let counted = metrics["copr_keygen_keys_counted_timestamp_seconds"];
    assert!((now as f64..=now as f64 + 30.0).contains(&counted), "{counted}");
}

#[test]
fn the_count_is_kept_for_a_while_and_the_rest_is_fresh() {
    let host = Host::start(Transport::PassedUnix);
    let first = scrape(&host);
    assert_eq!(first["copr_keygen_keys"], 0.0);
    assert_eq!(host.gen_key(ID, json!({})).unwrap().status, 201);
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let metrics = scrape(&host);
                assert_eq!(metrics["copr_keygen_keys"], 0.0);
                assert_eq!(metrics["copr_keygen_generation_seconds_count"], 1.0);
                let counted = "copr_keygen_keys_counted_timestamp_seconds";
                assert_eq!(metrics[counted], first[counted]);
            });
        }
    });
}

#[test]
fn scrapes_at_once_make_one_count() {
    let host = Host::start(Transport::PassedTcp);
    assert_eq!(host.gen_key(ID, json!({})).unwrap().status, 201);
    multiply(&host, ID, 1000, |_, _| {});
    // Damage one key, so that each count writes a line to the log.
    fs::remove_dir_all(host.home(ID).join("openpgp-revocs.d")).unwrap();
    fs::remove_file(host.home(ID).join("key.json")).unwrap();
    thread::scope(|scope| {
        for _ in 0..6 {
            scope.spawn(|| assert_eq!(scrape(&host)["copr_keygen_keys"], 1000.0));
        }
    });
    assert_eq!(host.log().matches("1 key could not be counted").count(), 1, "{}", host.log());
}

#[test]
fn requests_are_counted_by_status_as_systemctl_status_shows_them() {
    let host = Host::start(Transport::PassedUnix);
    let before = scrape(&host);
    assert_eq!(host.gen_key(ID, json!({})).unwrap().status, 201);
    for (path, times) in [("/ping", 3), ("/keys", 2), ("/nowhere", 4), ("/gen_key", 1)] {
        (0..times).for_each(|_| drop(host.get(path).unwrap()));
    }
    host.send(b"garbage\r\n\r\n").unwrap();
    fs::write(host.home("b#b@copr.example.org"), "in the way").unwrap();
    assert_eq!(host.get("/keys/b%23b@copr.example.org").unwrap().status, 500);
    let after = scrape(&host);
    for (status, more) in
        [(200, 6.0), (201, 1.0), (400, 1.0), (404, 4.0), (405, 1.0), (500, 1.0), (503, 0.0)]
    {
        let series = format!("copr_keygen_http_requests_total{{status=\"{status}\"}}");
        assert_eq!(after[&series] - before[&series], more, "{series}");
    }
    assert_eq!(after["copr_keygen_generation_seconds_count"], 1.0);
    let sum = after["copr_keygen_generation_seconds_sum"];
    assert!(sum > 0.0 && sum < 24.0, "{sum}");
}
