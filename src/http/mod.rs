//! The HTTP interface. A connection carries one request, every read and write has a deadline, and every
//! resource is bounded. This module uses the key store; it never runs gpg or touches a key itself.

mod access_log;
pub mod auth;
mod counters;
pub mod error;
mod exchange;
pub mod gen_key;
pub mod keys;
mod metrics;
pub mod peers;
mod protocol;
mod readiness;
pub mod request;
mod response;
mod routes;
mod service;
pub mod stream;
pub mod target;
pub mod tokens;

pub use auth::Access;
pub use service::Service;
