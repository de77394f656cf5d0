//! The value that hosts exchange about the key of an identity: the files of its home, or the fact that it was
//! removed. It is a JSON object, and nothing in it is trusted.

use std::collections::BTreeMap;

use base64ct::{Base64, Encoding};
use gpg::{Fingerprint, Protection};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::error::{Error, Result};
use crate::home::home_files::{HomeFileName, HomeFiles};
use crate::secrets::sealing_key::is_sealed;

/// The version of the format.
const VERSION: u32 = 1;
/// The limit on removed keys of one identity, larger than any real number of them.
const REMOVED_MAX: usize = 1000;

/// The shared value of an identity.
#[derive(Debug, Default)]
pub struct Shared {
    /// The removed keys of this identity. A host that still has one of them moves it to its trash.
    pub removed: Vec<Fingerprint>,
    /// The files of the home. `None` if the key was removed and there is no other.
    pub files: Option<HomeFiles>,
}

#[derive(Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    version: u32,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    removed: Vec<String>,
    /// The files whose content is UTF-8, verbatim.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    files: BTreeMap<String, Zeroizing<String>>,
    /// All other files, in Base64.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    base64: BTreeMap<String, Zeroizing<String>>,
}

impl Shared {
    /// Whether the key with this fingerprint was removed.
    pub fn has_removed(&self, fingerprint: &Fingerprint) -> bool {
        self.removed.contains(fingerprint)
    }

    /// Records that a key was removed. Beyond the limit, the oldest removals are forgotten.
    pub fn add_removed(&mut self, fingerprint: Fingerprint) {
        self.removed.retain(|known| *known != fingerprint);
        self.removed.push(fingerprint);
        let most = self.removed.len().saturating_sub(REMOVED_MAX);
        self.removed.drain(..most);
    }

    /// Serializes the value. Fails with [`Error::Refused`] if the files would allow anybody to sign without the
    /// passphrase key that all hosts have.
    pub fn write(&self) -> Result<Zeroizing<Vec<u8>>> {
        if self.files.as_ref().is_some_and(can_sign) {
            return Err(Error::Refused(
                "other hosts are told of keys with sealed passphrases only, and this one's is in the clear; to seal \
                 it: `copr-keygen seal`"
                    .into(),
            ));
        }
        let mut written = Written {
            version: VERSION,
            removed: self.removed.iter().map(ToString::to_string).collect(),
            ..Written::default()
        };
        for (name, bytes) in self.files.iter().flat_map(HomeFiles::iter) {
            let (files, text) = match std::str::from_utf8(bytes) {
                Ok(text) => (&mut written.files, text.to_owned()),
                Err(_) => (&mut written.base64, Base64::encode_string(bytes)),
            };
            files.insert(name.to_string(), Zeroizing::new(text));
        }
        let text = serde_json::to_vec(&written);
        text.map(Zeroizing::new).map_err(|e| Error::io("writing what all hosts share", e.into()))
    }

    /// Parses a serialized value.
    pub fn parse(text: &[u8]) -> Result<Self> {
        let refused =
            |why: &str| Error::Refused(format!("what all hosts share is not understood: {why}"));
        let written: Written = serde_json::from_slice(text)
            .map_err(|e| refused(&gpg::text::printable(&e.to_string())))?;
        if written.version != VERSION {
            return Err(refused(&format!(
                "it is of format {}, and this program knows {VERSION} only",
                written.version
            )));
        }
        let removed = written.removed.iter().map(|text| Fingerprint::parse(text));
        let removed: Option<Vec<_>> = removed.take(REMOVED_MAX).collect();
        let removed = removed.ok_or_else(|| refused("it holds a fingerprint that is none"))?;
        if written.files.is_empty() && written.base64.is_empty() {
            return Ok(Self { removed, files: None });
        }
        let mut files = HomeFiles::default();
        let mut add = |name: &str, bytes: Vec<u8>| {
            let file = HomeFileName::parse(name)
                .ok_or_else(|| refused("it holds a file that belongs into no home"))?;
            let is_long = u64::try_from(bytes.len()).map_or(true, |length| length > file.limit());
            match is_long || !files.add(file, bytes) {
                true => Err(refused("it holds more than a home does")),
                false => Ok(()),
            }
        };
        for (name, text) in &written.files {
            add(name, text.as_bytes().to_vec())?;
        }
        for (name, text) in &written.base64 {
            add(
                name,
                Base64::decode_vec(text).map_err(|_| refused("it holds what is no Base64"))?,
            )?;
        }
        if can_sign(&files) {
            return Err(refused(
                "it holds a secret key that is not protected, or a passphrase in the clear",
            ));
        }
        let fingerprint = files.record().map(|record| record.fingerprint);
        if fingerprint.is_some_and(|fingerprint| removed.contains(&fingerprint)) {
            return Err(refused("its key is among those that were removed"));
        }
        Ok(Self { removed, files: Some(files) })
    }
}

/// Whether the files would allow somebody without the passphrase key to sign. They do if the passphrase is not
/// sealed, or a secret key is not protected by a passphrase.
fn can_sign(files: &HomeFiles) -> bool {
    !is_sealed(files.passphrase())
        || files.protections().any(|found| found != Some(Protection::Passphrase))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGITS: &str = "0123456789ABCDEF0123456789ABCDEF01234567";
    const SEALED: &str = "sealed:1:AAAA\n";
    const PROTECTED: &str = "Key: (protected-private-key (rsa (n #00#)))\n";
    const CLEAR: &str = "Key: (private-key (rsa (n #00#)))\n";

    fn files(key: &str, passphrase: &str) -> HomeFiles {
        let mut files = HomeFiles::default();
        let secret = format!("private-keys-v1.d/{DIGITS}.key");
        for (name, text) in
            [("pubring.kbx", "\0\u{ff}"), (&secret, key), ("passphrase", passphrase)]
        {
            let added = HomeFileName::parse(name).map(|name| files.add(name, text.into()));
            assert_eq!(added, Some(true));
        }
        files
    }

    #[test]
    fn what_is_written_is_read() -> Result<()> {
        let mut shared = Shared { removed: Vec::new(), files: Some(files(PROTECTED, SEALED)) };
        shared.removed.extend(Fingerprint::parse(DIGITS));
        let read = Shared::parse(&shared.write()?)?;
        assert_eq!((read.files, read.removed.len()), (shared.files, 1));
        let removed = Shared { files: None, ..shared };
        assert!(Shared::parse(&removed.write()?)?.files.is_none());
        Ok(())
    }

    #[test]
    fn what_could_sign_is_told_to_nobody() {
        for (key, passphrase) in
            [(PROTECTED, "phrase\n"), (CLEAR, SEALED), ("nonsense", SEALED), (PROTECTED, "")]
        {
            let shared = Shared { removed: Vec::new(), files: Some(files(key, passphrase)) };
            let why = shared.write().err().map(|e| e.to_string()).unwrap_or_default();
            assert!(why.contains("copr-keygen seal"), "{key} {passphrase}: {why}");
        }
    }

    #[test]
    fn nothing_else_is_believed() {
        for (text, expected) in [
            ("", "EOF"),
            ("[]", "invalid"),
            (r#"{"version":2}"#, "it is of format 2"),
            (r#"{"version":1,"more":1}"#, "unknown field"),
            (r#"{"version":1,"removed":["x"]}"#, "a fingerprint that is none"),
            (r#"{"version":1,"files":{"../passphrase":"AA"}}"#, "belongs into no home"),
            (r#"{"version":1,"base64":{"gpg.conf":"AA=="}}"#, "belongs into no home"),
            (r#"{"version":1,"base64":{"passphrase":"A"}}"#, "no Base64"),
            (r#"{"version":1,"files":{"passphrase":5}}"#, "invalid type"),
            (
                r#"{"version":1,"files":{"passphrase":"AA"},"base64":{"passphrase":"AA=="}}"#,
                "more than a home does",
            ),
        ] {
            let why = Shared::parse(text.as_bytes()).err().map(|e| e.to_string());
            assert!(why.as_ref().is_some_and(|why| why.contains(expected)), "{text}: {why:?}");
        }
        let long = "A".repeat(5000);
        let long = format!(r#"{{"version":1,"files":{{"passphrase":"{long}"}}}}"#);
        let why = Shared::parse(long.as_bytes()).err().map(|e| e.to_string());
        assert!(why.is_some_and(|why| why.contains("more than a home does")));
    }
}
