//! copr-keygen makes and keeps the OpenPGP signing keys of a build system: one identity, one
//! ordinary GnuPG home. `http` knows `keys`, `keys` knows `gpg`, `commands` ties them together.

pub mod cli;
pub mod commands;
pub mod error;
pub mod gpg;
pub mod http;
pub mod identity;
pub mod key_request;
pub mod keys;
pub mod privileges;
pub mod settings;
pub mod systemd;
