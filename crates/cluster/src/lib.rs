//! Several sign hosts with the same keys: etcd decides which key of an identity counts, every host keeps homes of
//! its own.
//!
//! [`endpoint`] is where etcd is and how this host proves who it is, `gateway` speaks to it, [`client`] reads and
//! changes values, [`watch`] waits for changes, [`lease`] holds a name for as long as a process lives, and
//! [`members`] says how the members of etcd are. [`directory`] is the names in etcd that hosts share.

pub mod client;
pub mod directory;
pub mod endpoint;
pub mod error;
mod gateway;
pub mod lease;
pub mod members;
pub mod watch;

pub use client::{Etcd, Put, Stored};
pub use directory::Directory;
pub use endpoint::{Connection, Endpoint};
pub use error::{Error, Result};
pub use lease::Lease;
