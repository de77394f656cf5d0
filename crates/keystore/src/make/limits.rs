//! What requests for keys may take of this host. The numbers of requests together leave connections free for
//! what is quickly answered; the listener checks that against its own limit when it is compiled.

use std::time::Duration;

/// How long all of gpg's work for one key may take, beyond `gpg_timeout` for each run.
pub const KEY_TIME: Duration = Duration::from_secs(60);

/// Requests that may make a key, or wait for one that is being made.
pub const INSIDE_MAX: usize = 192;

/// Requests that may look at a key with gpg, or wait for that.
pub const LOOKS_MAX: usize = 32;
