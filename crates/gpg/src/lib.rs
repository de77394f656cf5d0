//! Runs gpg, the only OpenPGP implementation here: under a deadline, in a home that is named, with
//! an agent of its own, and never with a secret in its arguments or its environment.

pub mod agent;
pub mod arguments;
mod bulk;
mod call;
mod certificate;
pub mod clock;
mod encrypt;
pub mod error;
mod feed;
mod generate;
mod inspect;
mod key;
pub mod keybox;
pub mod listing;
pub mod packets;
pub mod parameters;
pub mod process;
mod secret;
mod signature;
pub mod status;
mod user_id;
mod version;

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Serialize;

pub use certificate::Keyring;
pub use encrypt::Encryption;
pub use error::{Error, Place, Result, Shortage};
pub use generate::Generated;
pub use inspect::believable_at;
pub use key::{KeyLength, Lifetime};
pub use listing::{Certificate, Signature};
pub use parameters::KeyParameters;
pub use secret::Protection;
pub use signature::time_of_signature;
pub use user_id::{PART_MAX, UserId};
pub use version::Version;

/// The GnuPG programs of this host.
#[derive(Clone, Debug)]
pub struct Gpg {
    gpg: PathBuf,
    agent: PathBuf,
    timeout: Duration,
}

impl Gpg {
    /// The programs `gpg` and `agent`. One run of gpg takes no longer than `timeout`. This process adopts the
    /// orphans of the processes that it starts from now on, so that it can wait for each of them.
    pub fn new(gpg: PathBuf, agent: PathBuf, timeout: Duration) -> Result<Self> {
        process::adopt_orphans().map_err(|e| Error::io("becoming the reaper of gpg-agents", e))?;
        Ok(Self { gpg, agent, timeout })
    }

    /// The programs gpg and gpg-agent.
    pub fn programs(&self) -> [&Path; 2] {
        [&self.gpg, &self.agent]
    }

    /// Whether both programs are there to be run.
    pub fn check_installed(&self) -> Result<()> {
        is_program(&self.gpg, "gpg")?;
        is_program(&self.agent, "gpg_agent")
    }
}

fn is_program(path: &Path, setting: &'static str) -> Result<()> {
    nix::unistd::access(path, nix::unistd::AccessFlags::X_OK).map_err(|errno| Error::Missing {
        program: path.into(),
        setting,
        source: errno.into(),
    })
}

/// The fingerprint of an OpenPGP version 4 key: 40 upper-case hexadecimal digits (RFC 9580,
/// 5.5.4.2).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Fingerprint(String);

/// gpg-agent's name of a secret key: 40 upper-case hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Keygrip(String);

impl Fingerprint {
    /// Parses the form gpg prints; anything else is `None`.
    pub fn parse(text: &str) -> Option<Self> {
        is_sha1_hex(text).then(|| Self(text.into()))
    }

    /// The 40 digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Keygrip {
    /// Parses the form gpg uses for file names; anything else is `None`.
    pub fn parse(text: &str) -> Option<Self> {
        is_sha1_hex(text).then(|| Self(text.into()))
    }

    /// The keygrip a file of `private-keys-v1.d/` is named after.
    pub fn from_file_name(name: &std::ffi::OsStr) -> Option<Self> {
        Self::parse(name.to_str()?.strip_suffix(".key")?)
    }

    /// The 40 digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name of the secret key's file.
    pub fn file_name(&self) -> String {
        format!("{}.key", self.0)
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

impl fmt::Display for Keygrip {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

/// Whether `text` is a fingerprint, or the last 16 digits of one. Eight digits are too few: anybody can
/// make a key that ends in eight given ones.
pub fn is_key_id(text: &str) -> bool {
    matches!(text.len(), 16 | 40) && is_upper_hex(text)
}

fn is_sha1_hex(text: &str) -> bool {
    text.len() == 40 && is_upper_hex(text)
}

fn is_upper_hex(text: &str) -> bool {
    text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'A'..=b'F'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keygrips_and_fingerprints_are_forty_digits() {
        let good = "0123456789ABCDEF0123456789ABCDEF01234567";
        assert_eq!(Fingerprint::parse(good).map(|f| f.to_string()).as_deref(), Some(good));
        assert!(Keygrip::from_file_name(format!("{good}.key").as_ref()).is_some());
        for bad in ["", "0123", &good.to_lowercase(), &format!("{good}0"), &good.replace('0', "/")]
        {
            assert!(Fingerprint::parse(bad).is_none() && Keygrip::parse(bad).is_none(), "{bad}");
        }
        assert!(is_key_id(good) && is_key_id(&good[24..]));
        for bad in ["", &good[32..], &good[1..], &format!("{good}0"), &good.to_lowercase()] {
            assert!(!is_key_id(bad), "{bad}");
        }
        for bad in [good, "a.key", ".key", &format!("{good}.key.tmp")] {
            assert!(Keygrip::from_file_name(bad.as_ref()).is_none(), "{bad}");
        }
    }
}
