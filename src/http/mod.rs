//! The HTTP interface: one request per connection, every read and write under a deadline, every
//! resource bounded. Knows the key store; never runs gpg and never touches a key itself.

mod access_log;
pub mod auth;
mod connection;
mod connection_table;
mod counters;
mod delayed_refusal;
pub mod error;
mod exchange;
pub mod gen_key;
pub mod keys;
mod listener;
mod metrics;
pub mod peers;
mod protocol;
mod readiness;
pub mod request;
mod response;
mod routes;
mod server;
mod service;
pub mod stream;
pub mod target;
pub mod tokens;
mod workers;

pub use auth::Access;
pub use listener::Listener;
pub use server::{Protocol, Server, Stop};
pub use service::Service;
