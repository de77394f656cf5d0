//! The members of an archive: what they are called and what is in them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::home::home_files::HomeFiles;
use gpg::hex;

/// The first member.
pub const HEADER: &str = "copr-keygen-backup.json";
/// The last member.
pub const MANIFEST: &str = "copr-keygen-manifest.json";
/// The version of this format.
pub const VERSION: u32 = 1;

/// The first member's content.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// The version of the format.
    pub version: u32,
    /// The host the keys are from.
    pub host: String,
    /// Unix time at which the backup began.
    pub time: u64,
    /// Only homes that changed then (Unix time) or later are in it; `None` for all.
    pub since: Option<u64>,
    /// The check value of the key that passphrases in it are sealed with; see `sealing.json`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sealing: Option<String>,
}

/// The first member of every key: the SHA-256 of each of its files, as sha256sum(1) has it. Without
/// it what gpg does not look at could be spoilt and be published before the manifest tells.
pub const SUMS: &str = "SHA256SUMS";

/// What is in [`SUMS`], for files by their paths.
pub fn sums(files: &BTreeMap<String, String>) -> String {
    files.iter().map(|(path, digest)| format!("{digest}  {path}\n")).collect()
}

/// The SHA-256 of every file of a home, by its path there.
pub fn digests(files: &HomeFiles) -> BTreeMap<String, String> {
    files.iter().map(|(name, bytes)| (name.to_string(), sha256(bytes))).collect()
}

/// SHA-256 in hexadecimal digits.
pub fn sha256(bytes: &[u8]) -> String {
    hex::encode(&Sha256::digest(bytes)).to_string()
}
