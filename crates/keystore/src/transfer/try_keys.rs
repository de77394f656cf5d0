//! Tries many keys in parallel.

use std::sync::atomic::{AtomicUsize, Ordering};

use crate::error::{Error, Result};
use crate::{interrupt, parallel};

/// Calls `trial` with every key, on `jobs` threads, and `progress` with the number of keys done and the total.
/// Returns the reason for each trial that failed, and `None` for the others, in the order of `keys`.
///
/// Stops with an error if any other key would fail in the same way, or if a signal arrives. `left` describes
/// what is left then.
pub fn try_keys<K: Sync>(
    keys: &[K],
    jobs: usize,
    progress: &(dyn Fn(usize, usize) + Sync),
    left: impl Fn() -> String + Sync,
    trial: impl Fn(&K) -> Result<()> + Sync,
) -> Result<Vec<Option<String>>> {
    let done = AtomicUsize::new(0);
    let doubts = parallel::map(keys.iter().collect(), jobs, |key: &K| {
        interrupt::check(&left)?;
        let tried = trial(key);
        progress(done.fetch_add(1, Ordering::Relaxed) + 1, keys.len());
        match tried {
            Err(
                e @ (Error::Gpg(gpg::Error::NoSpace { .. } | gpg::Error::Missing { .. })
                | Error::Interrupted { .. }),
            ) => Err(e),
            tried => Ok(tried.err().map(|e| e.to_string())),
        }
    });
    doubts.into_iter().collect()
}
