//! How many requests may be inside of the slow rooms at once. Together they leave connections free for what is
//! quickly answered; the listener checks that against its own limit when it is compiled.

/// Requests that may make a key, or wait for one that is being made.
pub const INSIDE_MAX: usize = 192;

/// Requests that may look at a key with gpg, or wait for that.
pub const LOOKS_MAX: usize = 32;
