//! Archives of keys. An archive is a tar whose members are the files of homes. A header comes first and
//! identifies the archive; a manifest comes last and proves that the archive is whole. Nothing in an archive is
//! trusted.

pub mod format;
mod manifest;
mod pack;
mod restore;
pub mod unpack;

pub use pack::Archived;
pub use restore::{Restored, Summary};
