//! A panic of another thread does not spoil what a lock guards: nothing here is ever left half-changed.

use std::sync::{LockResult, PoisonError};

/// What a lock guards, whether a thread has panicked with it or not. For `lock`, `wait` and `into_inner`.
pub fn unpoisoned<T>(locked: LockResult<T>) -> T {
    locked.unwrap_or_else(PoisonError::into_inner)
}
