//! Accepts connections, TCP or Unix, and gives each to a thread: a bounded number, every read and write under
//! a deadline. Knows nothing of what is said over them; that is for a [`Protocol`].

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
