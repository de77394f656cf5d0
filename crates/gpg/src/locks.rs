//! Locks that ignore poisoning. A thread that panics while it holds a lock never leaves the data half-changed
//! here.

use std::sync::{LockResult, PoisonError};

/// Returns the locked data, even if a thread has panicked while it held the lock. Use it on the results of
/// `lock`, `wait` and `into_inner`.
pub fn unpoisoned<T>(locked: LockResult<T>) -> T {
    locked.unwrap_or_else(PoisonError::into_inner)
}
