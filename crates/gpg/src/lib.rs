//! Runs GnuPG. Every gpg process has a time limit. A command that needs a secret key normally gets an agent of
//! its own. No secret ever appears in the arguments or the environment of a process.
//!
//! gpg works in *staging homes*: private GnuPG homes below the `staging/` directory of the state, where a key
//! is put together before it is published.

pub mod agent;
pub mod arguments;
mod bulk;
mod call;
mod certificate;
pub mod clock;
mod digest_signature;
mod encrypt;
pub mod error;
mod feed;
mod fingerprint;
mod generate;
pub mod hex;
mod inspect;
mod key;
pub mod keybox;
pub mod listing;
pub mod locks;
pub mod packets;
pub mod parameters;
pub mod process;
mod programs;
mod secret;
pub mod short_rsa;
mod signature;
pub mod status;
pub mod text;
mod user_id;
mod version;

pub use call::Keyring;
pub use encrypt::Encryption;
pub use error::{Error, FullDisk, Result, Shortage};
pub use fingerprint::{Fingerprint, Keygrip, is_key_id};
pub use generate::Generated;
pub use inspect::believable_at;
pub use key::{KeyLength, Lifetime};
pub use listing::{Certificate, Signature};
pub use parameters::KeyParameters;
pub use programs::Gpg;
pub use secret::Protection;
pub use signature::{SAMPLE, SigningAgent, time_of_signature};
pub use user_id::{PART_MAX, UserId};
pub use version::Version;
