//! Signs for the clients of obs-signd: who may have what signed, and what is logged and counted of it. The crate
//! `signer` does the rest.

mod access;
mod counters;
mod request_log;
mod service;

pub use access::Access;
pub use counters::Counters;
pub use service::Service;
