//! One file per mode; each reads like a table of contents.

pub mod gpg;
pub mod serve;
