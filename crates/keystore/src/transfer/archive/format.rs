//! The names and the content of the members of an archive.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::home::home_files::HomeFiles;
use gpg::hex;

/// The name of the first member.
pub const HEADER: &str = "copr-keygen-backup.json";
/// The name of the last member.
pub const MANIFEST: &str = "copr-keygen-manifest.json";
/// The version of this format.
pub const VERSION: u32 = 1;

/// The content of the first member.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// The version of the format.
    pub version: u32,
    /// The name of the host that the keys are from.
    pub host: String,
    /// The Unix time at which the backup began.
    pub time: u64,
    /// The archive holds only homes that changed at this Unix time or later; `None` for all.
    pub since: Option<u64>,
    /// The check value of the key with which the passphrases in the archive are sealed; see `sealing.json`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sealing: Option<String>,
}

/// The name of the first member of every key, which holds the SHA-256 of each file in the format of
/// sha256sum(1). Without it, corruption in a file that gpg does not read would be noticed only with the
/// manifest, after the key was published.
pub const SUMS: &str = "SHA256SUMS";

/// Returns the content of [`SUMS`] for the given digests, by path.
pub fn sums(files: &BTreeMap<String, String>) -> String {
    files.iter().map(|(path, digest)| format!("{digest}  {path}\n")).collect()
}

/// Returns the SHA-256 of every file of a home, by its path in the home.
pub fn digests(files: &HomeFiles) -> BTreeMap<String, String> {
    files.iter().map(|(name, bytes)| (name.to_string(), sha256(bytes))).collect()
}

/// Returns the SHA-256 in hexadecimal digits.
pub fn sha256(bytes: &[u8]) -> String {
    hex::encode(&Sha256::digest(bytes)).to_string()
}
