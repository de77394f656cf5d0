//! copr-keygen makes and keeps the OpenPGP signing keys of a build system: one identity, one
//! ordinary GnuPG home.
//!
//! `identity` and `key_request` are what comes from outside, parsed once. `http` knows `keys`, `keys`
//! knows `gpg`, `gpg` runs a `process`; `metrics` counts `keys`, and `commands` ties them together, one
//! file a mode. `systemd` is the rest of the world: sockets, signals, the journal. `settings`, `clock`,
//! `error`, `interrupt`, what a signal means to a mode, `remedy` and `ahead`, many small reads at once, are
//! everybody's. `fuzzing` is nobody's: it feeds bytes
//! to all that reads them.

mod ahead;
pub mod cli;
pub mod clock;
pub mod commands;
pub mod error;
#[doc(hidden)]
pub mod fuzzing;
pub mod gpg;
pub mod http;
pub mod identity;
pub mod interrupt;
pub mod key_request;
pub mod keys;
pub mod listen_address;
pub mod metrics;
pub mod privileges;
mod process;
mod remedy;
pub mod settings;
pub mod systemd;
