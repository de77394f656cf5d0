//! The options of a run, from the environment: `BENCH_KEYS`, `BENCH_RUNS`, `BENCH_FULL`, `BENCH_STORE`,
//! `BENCH_OUT`, `BENCH_ONLY`.

use std::env;
use std::path::{Path, PathBuf};

use crate::Result;

/// The longest path of the store in bytes: the socket paths of gpg-agents below it have a limit.
const STORE_MAX: usize = 50;

/// The options of a run, and what follows from them.
#[derive(Debug)]
pub struct Options {
    /// The sizes of the states in identities, ascending.
    pub sizes: Vec<usize>,
    /// The directory for states and scratch homes, an absolute path. States are kept between runs.
    pub store: PathBuf,
    /// The directory for the documents.
    pub out: PathBuf,
    pub cores: usize,
    scale: f64,
    only: Vec<String>,
}

impl Options {
    pub fn from_env() -> Result<Self> {
        let text = |name: &str| env::var(name).ok().filter(|text| !text.is_empty());
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let keys = text("BENCH_KEYS").unwrap_or("0 1000 10000 100000".into());
        let mut sizes = keys
            .split_whitespace()
            .map(|word| word.parse().map_err(|e| format!("BENCH_KEYS: {word}: {e}")))
            .collect::<std::result::Result<Vec<usize>, _>>()?;
        if text("BENCH_FULL").is_some_and(|full| full != "0") {
            sizes.push(1_000_000);
        }
        sizes.push(0);
        sizes.sort_unstable();
        sizes.dedup();
        let scale = text("BENCH_RUNS").unwrap_or("1".into());
        let store = text("BENCH_STORE").map_or(root.join("target/bench"), PathBuf::from);
        if store.is_relative() || store.as_os_str().len() > STORE_MAX {
            return Err(format!(
                "{}: sockets of gpg-agent would not fit below it; set BENCH_STORE to an absolute path of \
                 at most {STORE_MAX} bytes",
                store.display()
            )
            .into());
        }
        Ok(Self {
            sizes,
            store,
            out: text("BENCH_OUT").map_or(root.join("docs"), PathBuf::from),
            cores: std::thread::available_parallelism()?.get(),
            scale: scale.parse().map_err(|e| format!("BENCH_RUNS: {scale}: {e}"))?,
            only: text("BENCH_ONLY")
                .unwrap_or_default()
                .split_whitespace()
                .map(Into::into)
                .collect(),
        })
    }

    /// Returns `normal` rounds, which are enough on a quiet machine, times `BENCH_RUNS`; at least 2.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss)]
    pub fn rounds(&self, normal: usize) -> usize {
        ((normal as f64 * self.scale).round() as usize).max(2)
    }

    /// Whether `part` is to be measured: all parts are, unless `BENCH_ONLY` names some.
    pub fn wants(&self, part: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|only| only == part)
    }

    /// Returns the largest number of identities.
    pub fn largest(&self) -> usize {
        self.sizes.last().copied().unwrap_or_default()
    }
}
