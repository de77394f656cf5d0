//! Signs for the clients of obs-signd. This module decides who may sign with which keys, and logs and counts
//! requests. The crate `signer` does the rest.

mod access;
mod counters;
mod request_log;
mod service;

pub use access::Access;
pub use counters::Counters;
pub use service::Service;
