//! Keys that come and go: from and to the layout of the old service, from and to an archive.

pub mod archive;
pub(crate) mod export;
pub(crate) mod import;
pub(crate) mod in_place;
pub(crate) mod report;
mod try_keys;
