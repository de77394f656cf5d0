//! copr-keygen makes and keeps the OpenPGP signing keys of a build system: one identity, one
//! ordinary GnuPG home.
//!
//! The crate `keystore` keeps the keys, and the crate `gpg` runs GnuPG for it. This crate is the two programs around
//! them: `program` starts them, `cli` and `settings` say what to do, `commands` do it, one file a mode, `server` accepts
//! connections, `http` answers requests on them, `signd` has the crate `signer` sign for the clients of obs-signd,
//! `metrics` counts keys, and `systemd` is the rest of the world: sockets, signals, credentials, the journal.

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
