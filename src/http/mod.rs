//! The HTTP interface: one request per connection, every read and write under a deadline, every
//! resource bounded. Knows the key store; never runs gpg and never touches a key itself.

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
