//! Metrics in the text format of Prometheus (0.0.4): how many keys there are and how long they last.
//! `GET /metrics` returns them, and a file has them for node_exporter. They contain no names of keys.

use std::fmt::{Display, Write as _};
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::time::Duration;

use gpg::KeyLength;
use gpg::clock::DAY;
use gpg::text::keys;
use keystore::{Catalog, Filter, pool_count, rename};

use crate::error::{Error, Result};

/// The periods, in days from now, for which expiring keys are counted.
const WITHIN_DAYS: [u64; 3] = [30, 90, 365];

/// The first bytes of a metrics file, in all versions of copr-keygen.
const BEGINNING: &[u8] = b"# HELP copr_keygen_";

/// The numbers of keys.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyCounts {
    /// The number of readable keys, including expired ones.
    pub keys: u64,
    /// The number of keys that expire within 30, 90 and 365 days and have not expired yet.
    pub expiring: [u64; WITHIN_DAYS.len()],
    /// The number of expired keys.
    pub expired: u64,
    /// The number of homes whose key cannot be read.
    pub unreadable: u64,
    /// The number of keys made in advance, by length in the order of [`KeyLength::ALL`].
    pub pool: [u64; KeyLength::ALL.len()],
    /// When the keys were counted (Unix time).
    pub counted: u64,
}

impl KeyCounts {
    /// Counts the keys of the state directory by reading each of them. If some cannot be read, logs one line
    /// with their number and the first error.
    pub fn count(catalog: &Catalog, state_dir: &Path, now: u64) -> Result<Self> {
        let mut counts = Self { counted: now, ..Self::default() };
        let mut first_trouble = None;
        for key in catalog.keys(Filter::default())? {
            match key {
                Ok(key) => counts.add(key.record.expires, now),
                Err(error) => {
                    counts.unreadable += 1;
                    first_trouble.get_or_insert(error);
                }
            }
        }
        if let Some(error) = first_trouble {
            let keys = keys(counts.unreadable);
            log::warn!("{keys} could not be counted, the first: {error}");
        }
        for (length, count) in KeyLength::ALL.into_iter().zip(&mut counts.pool) {
            *count = pool_count(state_dir, length)? as u64;
        }
        Ok(counts)
    }

    fn add(&mut self, expires: Option<u64>, now: u64) {
        self.keys += 1;
        match expires {
            None => {}
            Some(at) if at <= now => self.expired += 1,
            Some(at) => {
                for (days, count) in WITHIN_DAYS.into_iter().zip(&mut self.expiring) {
                    *count += u64::from(at <= now.saturating_add(days * DAY));
                }
            }
        }
    }

    /// Writes the gauges of the keys and of the pool.
    pub fn write_to(&self, text: &mut Exposition) {
        text.gauge("copr_keygen_keys", "Keys, expired ones among them.", self.keys);
        let help = "Keys that expire within so many days and have not yet.";
        text.family("copr_keygen_keys_expiring", "gauge", help);
        for (days, count) in WITHIN_DAYS.into_iter().zip(self.expiring) {
            text.sample("copr_keygen_keys_expiring", &[("within_days", &days)], count);
        }
        text.gauge("copr_keygen_keys_expired", "Keys that have expired.", self.expired);
        let help = "Homes whose key cannot be read; the log names the first.";
        text.gauge("copr_keygen_keys_unreadable", help, self.unreadable);
        let help = "Secret keys made in advance, by the length of the RSA modulus.";
        text.family("copr_keygen_pool_keys", "gauge", help);
        for (length, count) in KeyLength::ALL.into_iter().zip(self.pool) {
            text.sample("copr_keygen_pool_keys", &[("bits", &length.bits())], count);
        }
    }
}

/// A histogram of durations.
#[derive(Debug)]
pub struct Histogram {
    /// The upper bounds of the buckets, in seconds.
    bounds: &'static [f64],
    /// The number of durations in each bucket: those at most its bound, and above the bound of the bucket
    /// before.
    counts: Vec<u64>,
    /// The number of all durations, including those above the last bound.
    count: u64,
    sum: Duration,
}

impl Histogram {
    /// Creates an empty histogram. `bounds` are in seconds, in ascending order.
    pub fn new(bounds: &'static [f64]) -> Self {
        Self { bounds, counts: vec![0; bounds.len()], count: 0, sum: Duration::ZERO }
    }

    /// Adds a duration.
    pub fn add(&mut self, took: Duration) {
        let bucket = self.bounds.iter().position(|bound| took.as_secs_f64() <= *bound);
        if let Some(bucket) = bucket {
            self.counts[bucket] += 1;
        }
        self.count += 1;
        self.sum += took;
    }

    /// Returns the number of durations.
    pub fn count(&self) -> u64 {
        self.count
    }
}

/// A text in the exposition format of Prometheus. Label values are not escaped; none of them needs it.
#[derive(Debug, Default)]
pub struct Exposition(String);

impl Exposition {
    /// Begins a family of samples. `kind` is `counter`, `gauge` or `histogram`.
    pub fn family(&mut self, name: &str, kind: &str, help: &str) {
        self.push(format_args!("# HELP {name} {help}\n# TYPE {name} {kind}\n"));
    }

    /// Appends a sample with its labels.
    pub fn sample(&mut self, name: &str, labels: &[(&str, &dyn Display)], value: impl Display) {
        self.push(format_args!("{name}"));
        for (number, (label, text)) in labels.iter().enumerate() {
            self.push(format_args!("{}{label}=\"{text}\"", if number == 0 { '{' } else { ',' }));
        }
        self.push(format_args!("{} {value}\n", if labels.is_empty() { "" } else { "}" }));
    }

    /// Appends a family of one gauge without labels.
    pub fn gauge(&mut self, name: &str, help: &str, value: impl Display) {
        self.family(name, "gauge", help);
        self.sample(name, &[], value);
    }

    /// Appends a histogram without labels.
    pub fn histogram(&mut self, name: &str, help: &str, histogram: &Histogram) {
        self.family(name, "histogram", help);
        let (bucket, mut below) = (format!("{name}_bucket"), 0);
        for (bound, count) in histogram.bounds.iter().zip(&histogram.counts) {
            below += count;
            self.sample(&bucket, &[("le", bound)], below);
        }
        self.sample(&bucket, &[("le", &"+Inf")], histogram.count);
        self.sample(&format!("{name}_sum"), &[], histogram.sum.as_secs_f64());
        self.sample(&format!("{name}_count"), &[], histogram.count);
    }

    /// Returns the text.
    pub fn into_text(self) -> String {
        self.0
    }

    fn push(&mut self, text: std::fmt::Arguments) {
        // Writing to a `String` cannot fail.
        let _ = self.0.write_fmt(text);
    }
}

/// Writes the gauges of the keys and of the pool to `path`, for the textfile collector of node_exporter. `now`
/// (Unix time) is when the keys were counted; the file gives it as the time it was written.
pub fn write_file(path: &Path, counts: &KeyCounts, now: u64) -> Result<()> {
    let mut text = Exposition::default();
    counts.write_to(&mut text);
    let help = "When this file was written (Unix time).";
    text.gauge("copr_keygen_metrics_written_timestamp_seconds", help, now);
    write_text("metrics_file", path, text)
}

/// Atomically replaces a file for the textfile collector, with mode 0644. A symbolic link at `path` is
/// replaced, not followed. Fails and leaves a file alone if it is neither empty nor written by copr-keygen.
/// `setting` is the setting that gives `path`.
pub fn write_text(setting: &str, path: &Path, text: Exposition) -> Result<()> {
    let Some(name) = path.file_name() else {
        return Err(Error::Settings(format!("{setting}: {} names no file", path.display())));
    };
    // The collector ignores files whose names do not end in .prom.
    let fresh = format!(".{}.{}", name.to_string_lossy(), std::process::id());
    let fresh = path.with_file_name(fresh);
    let written = replace(path, &fresh, text.into_text().as_bytes());
    written.map_err(|e| {
        let _ = fs::remove_file(&fresh); // it may not exist
        Error::io(format!("writing the metrics to {}, the {setting}", path.display()), e)
    })
}

fn replace(path: &Path, fresh: &Path, text: &[u8]) -> io::Result<()> {
    match fs::remove_file(fresh) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {} // left by a process that had the same PID and died
    }
    // Other users may write to this directory. `create_new` follows no symbolic link that one of them has
    // placed here.
    let mut file: File = OpenOptions::new().write(true).create_new(true).mode(0o600).open(fresh)?;
    file.write_all(text)?;
    file.set_permissions(Permissions::from_mode(0o644))?;
    file.sync_all()?;
    match fs::symlink_metadata(path) {
        // Leave special files alone: a pipe may have a reader, and a device a purpose.
        Ok(found) if !found.is_file() && !found.is_symlink() => {
            let why = "what is there is no regular file, and was left alone; name another file";
            Err(io::Error::other(why))
        }
        Ok(found) if found.is_file() && !is_ours(path)? => {
            let why = "what is there was not written by copr-keygen, and was left alone; name another file";
            Err(io::Error::other(why))
        }
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => rename(fresh, path),
    }
}

/// Whether the file begins like one of ours, or is empty.
fn is_ours(path: &Path) -> io::Result<bool> {
    // The file may have been replaced since it was examined: follow no symbolic link, and do not block on a
    // named pipe.
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    let mut beginning = Vec::new();
    file.take(BEGINNING.len() as u64).read_to_end(&mut beginning)?;
    Ok(beginning.is_empty() || beginning == BEGINNING)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{MetadataExt, symlink};

    const NOW: u64 = 1_700_000_000;

    fn counts() -> KeyCounts {
        let mut counts = KeyCounts { counted: NOW, pool: [3, 0, 1], ..KeyCounts::default() };
        let days = [0, 30, 31, 90, 365, 366];
        let ends = days.map(|days| Some(NOW + days * DAY));
        ends.into_iter().chain([Some(1), None]).for_each(|expires| counts.add(expires, NOW));
        counts
    }

    #[test]
    fn a_key_counts_in_every_span_that_holds_its_end() {
        let counts = counts();
        assert_eq!((counts.keys, counts.expired, counts.expiring), (8, 2, [1, 3, 4]));
    }

    #[test]
    fn the_text_is_what_prometheus_reads() {
        let mut text = Exposition::default();
        counts().write_to(&mut text);
        text.sample("two", &[("a", &1), ("b", &"c")], 0.5);
        let text = text.into_text();
        for line in [
            "# HELP copr_keygen_keys Keys, expired ones among them.\n",
            "# TYPE copr_keygen_keys gauge\ncopr_keygen_keys 8\n",
            "copr_keygen_keys_expiring{within_days=\"90\"} 3\n",
            "copr_keygen_pool_keys{bits=\"2048\"} 3\n",
            "copr_keygen_pool_keys{bits=\"3072\"} 0\n",
            "two{a=\"1\",b=\"c\"} 0.5\n",
        ] {
            assert!(text.contains(line), "{line:?} is not in {text}");
        }
    }

    #[test]
    fn the_file_is_replaced_whole_and_everybody_may_read_it() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("copr-keygen.prom");
        let elsewhere = directory.path().join("elsewhere");
        fs::write(&elsewhere, "of no concern").unwrap();
        symlink(&elsewhere, &path).unwrap();
        let fresh = format!(".copr-keygen.prom.{}", std::process::id());
        symlink(&elsewhere, directory.path().join(fresh)).unwrap();
        for now in [NOW, NOW + 5] {
            write_file(&path, &counts(), now).unwrap();
            let text = fs::read_to_string(&path).unwrap();
            assert!(text.contains("copr_keygen_keys 8\n"), "{text}");
            let written = format!("copr_keygen_metrics_written_timestamp_seconds {now}\n");
            assert!(text.ends_with(&written), "{text}");
            let found = fs::symlink_metadata(&path).unwrap();
            assert!(found.is_file());
            assert_eq!(found.permissions().mode() & 0o7777, 0o644);
        }
        assert_eq!(fs::read_to_string(elsewhere).unwrap(), "of no concern");
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 2);
    }

    #[test]
    fn what_cannot_be_written_is_said_and_leaves_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("missing/copr-keygen.prom");
        let error = write_file(&path, &counts(), NOW).unwrap_err().to_string();
        assert!(error.contains("missing/copr-keygen.prom"), "{error}");
        let taken = directory.path().join("taken.prom");
        fs::create_dir(&taken).unwrap();
        assert!(write_file(&taken, &counts(), NOW).is_err());
        let pipe = directory.path().join("pipe.prom");
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
        for odd in [&taken, &pipe] {
            let before = fs::symlink_metadata(odd).unwrap().ino();
            let error = write_file(odd, &counts(), NOW).unwrap_err().to_string();
            assert!(error.contains("is no regular file, and was left alone"), "{error}");
            assert_eq!(fs::symlink_metadata(odd).unwrap().ino(), before);
        }
        assert!(write_file(Path::new("/"), &counts(), NOW).is_err());
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 2);
    }
}
