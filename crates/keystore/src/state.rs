//! The state directory: its parts, their owner, and the free space on its file system.

pub(crate) mod directory;
pub(crate) mod elsewhere;
pub(crate) mod foreign_files;
pub(crate) mod free_space;
pub(crate) mod host_mark;
pub mod lost_keys;
pub mod nested;
pub(crate) mod old_keyring;
pub(crate) mod opened;
