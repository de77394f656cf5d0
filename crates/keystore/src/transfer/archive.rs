//! Archives of keys: a tar whose members are the files of homes, a first member that says what it is,
//! and a last one, the manifest, that proves it whole. Nothing in an archive is believed.

pub mod format;
mod manifest;
mod pack;
mod restore;
pub mod unpack;

pub use pack::Archived;
pub use restore::{Restored, Summary};
