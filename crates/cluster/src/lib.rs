//! Lets several sign hosts have the same keys. etcd decides which key of an identity is valid, and every host
//! keeps homes of its own.
//!
//! [`endpoint`] has the addresses of etcd and the credentials of this host. `gateway` sends requests to etcd.
//! [`client`] reads and changes values, and [`watch`] waits for changes. [`lease`] holds a name for as long as
//! a process lives. [`members`] reports the status of etcd's members. [`directory`] defines the names in etcd
//! that hosts share.

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
