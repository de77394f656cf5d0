//! Signs with the keys of this host, as obs-signd does and in its protocol, without gpg and gpg-agent wherever
//! the system's libcrypto can. Key material is read for each request, and an opened key is gone with the last of the
//! requests for it that are under way at the same time.
//!
//! [`request`] reads what a client wants, [`signer`] decides and does it. Below them, `key_file` and `secret_key`
//! turn the file of a secret key into one that signs, `certificate` and `public_key` say what it may do and verify
//! what it did, and `signature` writes packets.

pub mod algorithm;
mod bytes;
pub mod certificate;
pub mod key_file;
mod open_keys;
pub mod public_key;
mod refusal;
pub mod request;
pub mod secret_key;
pub mod sexp;
pub mod signature;
mod signer;

pub use refusal::Refusal;
pub use signer::{Policy, Reply, Signer};
