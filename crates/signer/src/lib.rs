//! Signs with the keys of this host, speaking the protocol of obs-signd. The system's libcrypto makes the
//! signature; gpg-agent makes those that libcrypto cannot. The key files are read for each request. Concurrent
//! requests for one key share the decrypted key, which is dropped with the last of them.
//!
//! [`request`] parses requests, and [`signer`] decides on them and fulfils them. Below them, `key_file` and
//! `secret_key` turn a secret key file into a key that signs. `certificate` and `public_key` tell what the key
//! may do, and verify its signatures. `signature` writes packets.

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
