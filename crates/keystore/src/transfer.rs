//! Brings keys in and out: from and to the layout of the old service, and from and to an archive.

pub mod archive;
pub(crate) mod export;
pub(crate) mod import;
pub(crate) mod in_place;
pub(crate) mod report;
mod try_keys;
