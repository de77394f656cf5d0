//! The signer: it answers the clients of obs-signd.

pub mod access;
