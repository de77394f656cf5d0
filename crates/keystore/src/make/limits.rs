//! Limits on what requests for keys may take of this host. Even if all these requests come at once, they
//! leave connections free for requests that are answered quickly. The listener checks that against its own
//! limit at compile time.

use std::time::Duration;

/// The time limit for all of gpg's work on one key. The setting `gpg_timeout` limits each run of gpg as well.
pub const KEY_TIME: Duration = Duration::from_secs(60);

/// The number of requests that may make a key, or wait for a key that is being made.
pub const INSIDE_MAX: usize = 192;

/// The number of requests that may look at a key with gpg, or wait for that.
pub const LOOKS_MAX: usize = 32;
