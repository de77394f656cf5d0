//! The free space on the file system of the state directory.

use std::path::Path;

use gpg::text;
use nix::sys::statvfs::statvfs;

use crate::error::{Error, Result};

/// With less free space, no key is begun: on a full disk, gpg leaves more to clean up than it makes.
const FREE_BYTES_MIN: u64 = 256 * 1024;
const FREE_INODES_MIN: u64 = 32;

/// The space that a published key takes on a file system with blocks of 4 KiB: three directories, five
/// files, two links.
const KEY_BYTES: u64 = 10 * 4096;
const KEY_INODES: u64 = 10;

/// The space that is free for users other than root.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space {
    /// Free bytes.
    pub bytes: u64,
    /// Free inodes; `None` on a file system that has no table of them.
    pub inodes: Option<u64>,
}

impl Space {
    /// Returns the space that is free on the file system of `directory`.
    pub fn of(directory: &Path) -> Result<Self> {
        let found = statvfs(directory).map_err(Error::at("looking at", directory))?;
        Ok(Self {
            bytes: found.blocks_available().saturating_mul(found.fragment_size()),
            // File systems without a table of inodes report a total of none.
            inodes: (found.files() > 0).then_some(found.files_available()),
        })
    }

    /// Whether there is enough space to begin another key.
    pub fn is_enough(&self) -> bool {
        self.bytes >= FREE_BYTES_MIN && self.inodes.is_none_or(|free| free >= FREE_INODES_MIN)
    }

    /// Returns about how many more keys there is room for.
    pub fn keys(&self) -> u64 {
        let beyond = |free: u64, least: u64, each: u64| free.saturating_sub(least) / each;
        let inodes = self.inodes.map_or(u64::MAX, |free| beyond(free, FREE_INODES_MIN, KEY_INODES));
        beyond(self.bytes, FREE_BYTES_MIN, KEY_BYTES).min(inodes)
    }
}

impl std::fmt::Display for Space {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let bytes = text::size(self.bytes);
        match self.inodes {
            Some(inodes) => write!(out, "{bytes} and {inodes} inodes are free"),
            None => write!(out, "{bytes} are free"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_little_of_either_is_too_little() {
        let space = |bytes, inodes| Space { bytes, inodes };
        assert!(space(FREE_BYTES_MIN, Some(FREE_INODES_MIN)).is_enough());
        assert!(space(FREE_BYTES_MIN, None).is_enough());
        assert!(!space(FREE_BYTES_MIN - 1, Some(u64::MAX)).is_enough());
        assert!(!space(u64::MAX, Some(FREE_INODES_MIN - 1)).is_enough());
        assert!(!space(0, None).is_enough());
    }

    #[test]
    fn room_is_counted_in_keys() {
        let space = |bytes, inodes| Space { bytes, inodes }.keys();
        let (bytes, inodes) = (FREE_BYTES_MIN + 7 * KEY_BYTES, FREE_INODES_MIN + 5 * KEY_INODES);
        assert_eq!(space(bytes, None), 7);
        assert_eq!(space(bytes, Some(inodes)), 5);
        assert_eq!(space(FREE_BYTES_MIN - 1, None), 0);
        assert_eq!(space(u64::MAX, Some(0)), 0);
    }
}
