//! Accepts TCP and Unix connections and hands each to a thread. The number of connections is bounded, and every
//! read and write has a deadline. What is said over the connections is up to a [`Protocol`].

mod accept_loop;
mod connection;
mod connection_table;
mod delayed_refusal;
mod flood_limit;
mod listener;
mod workers;

pub use accept_loop::{Protocol, Server, Stop};
pub use connection::{Connection, Peer};
pub use connection_table::{Admitted, CONNECTIONS_MAX};
pub use delayed_refusal::DelayedRefusals;
pub use flood_limit::FloodLimit;
pub use listener::Listener;
