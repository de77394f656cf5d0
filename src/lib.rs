//! copr-keygen makes and keeps the OpenPGP signing keys of a build system, in one ordinary GnuPG home per
//! identity.
//!
//! The crate `keystore` keeps the keys, and the crate `gpg` runs GnuPG for it. This crate holds the two
//! programs around them:
//!
//! - `program` sets up a process and runs a mode.
//! - `cli` and `settings` describe the command line and the configuration.
//! - `commands` holds the modes, one file each.
//! - `server` accepts connections.
//! - `http` answers HTTP requests.
//! - `signd` answers the clients of obs-signd; the crate `signer` makes the signatures.
//! - `metrics` counts keys.
//! - `systemd` talks to the host: sockets, signals, credentials, the journal.

pub mod access_rule;
pub mod cli;
pub mod commands;
pub mod error;
pub mod http;
pub mod listen_address;
pub mod metrics;
pub mod pattern;
pub mod privileges;
pub mod program;
pub mod server;
pub mod settings;
pub mod signd;
pub mod systemd;
pub mod users;
