//! Keys that come and go: from and to the layout of the old service, from and to an archive.

pub mod archive;
pub(crate) mod export;
pub(crate) mod import;
