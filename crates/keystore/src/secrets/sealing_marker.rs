//! `sealing.json`: says that the passphrases of this state are sealed, or are being sealed or unsealed, and
//! with which key. It is written before the first passphrase is sealed, and removed after the last one is
//! unsealed. So no other key can ever be used halfway.

use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::files::durable::{replace_json, sync_parent};
use crate::files::is_there;
use crate::files::small_files::read_file;
use crate::layout::SEALING as MARKER;
use crate::secrets::sealing_key::{CREDENTIAL, SealingKey};

/// The number of the marker's format, which is also the number of the format of sealed passphrases.
const FORMAT: u32 = 1;
/// The size limit of the marker, in bytes.
const MARKER_MAX: u64 = 4096;
/// What the check value is sealed for, and the text that is sealed in it.
const PURPOSE: &[u8] = b"copr-keygen check of the passphrase key 1";
const CONSTANT: &[u8] = b"the passphrases of this state are sealed with this key";

/// How far sealing has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Sealing {
    /// New passphrases are sealed. Some of the older ones are sealed, too.
    Sealing,
    /// All passphrases are sealed.
    Sealed,
    /// New passphrases are in the clear. Some of the older ones are in the clear, too.
    Unsealing,
}

/// The content of the marker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Marker {
    format: u32,
    /// How far sealing has come.
    pub state: Sealing,
    /// The check value: a known text that was sealed, so that only the right key opens it.
    pub check: String,
}

impl Marker {
    /// Makes a marker for `key`.
    pub fn new(state: Sealing, key: &SealingKey) -> Result<Self> {
        Ok(Self { format: FORMAT, state, check: key.seal(PURPOSE, CONSTANT)? })
    }

    /// The path of the marker in the state directory `root`.
    pub fn path(root: &Path) -> PathBuf {
        root.join(MARKER)
    }

    /// Reads the marker; `None` if the state is not sealed. A marker that is not understood is an error,
    /// because nobody can tell in which form passphrases may then be written.
    pub fn read(path: &Path) -> Result<Option<Self>> {
        let wrong = |why: String| {
            Err(Error::Settings(format!(
                "{}: {why}; put it back from a backup of this state",
                path.display()
            )))
        };
        // Nearly all states have no marker, and this look is enough.
        if !is_there(path)? {
            return Ok(None);
        }
        let text = match read_file(path, MARKER_MAX) {
            // The marker was there a moment ago: the state has just been unsealed.
            Err(e) if e.is_damage() && !is_there(path)? => return Ok(None),
            Err(Error::Gpg(gpg::Error::DamagedHome { reason, .. })) => return wrong(reason),
            text => text?,
        };
        match serde_json::from_slice::<Self>(&text) {
            Ok(marker) if marker.format == FORMAT => Ok(Some(marker)),
            Ok(marker) => wrong(format!(
                "is of format {}, and this program knows {FORMAT} only",
                marker.format
            )),
            Err(e) => wrong(format!("is not understood: {e}")),
        }
    }

    /// Writes the marker to `path`, durably. `scratch` is a directory of staging.
    pub fn write(&self, path: &Path, scratch: &Path) -> Result<()> {
        replace_json(self, &scratch.join(MARKER), path)
    }

    /// Removes the marker, durably.
    pub fn remove(path: &Path) -> Result<()> {
        fs::remove_file(path).map_err(Error::at("removing", path))?;
        sync_parent(path)
    }

    /// Fails unless `key` is the key that `what` is sealed with. The error says what to do.
    pub fn check_key(&self, key: Option<&SealingKey>, what: &str) -> Result<()> {
        check_key(&self.check, key, what)
    }
}

/// Proves to other hosts that this host seals with the same key as they do.
#[derive(Clone, Debug)]
pub struct SealingProof {
    marker: Marker,
    key: SealingKey,
}

impl SealingProof {
    /// Makes the proof for a state with this marker.
    pub fn new(marker: Marker, key: SealingKey) -> Self {
        Self { marker, key }
    }

    /// The value that other hosts can check. It tells nothing about the key.
    pub fn check_value(&self) -> &str {
        &self.marker.check
    }

    /// Fails if the check value of the other hosts was made with another key.
    pub fn compare(&self, theirs: &str) -> Result<()> {
        self.marker.check_key(Some(&self.key), "the state of this host")?;
        check_key(theirs, Some(&self.key), "what all hosts share")
    }
}

/// Fails when `key` does not open the check value of `what`.
pub fn check_key(check: &str, key: Option<&SealingKey>, what: &str) -> Result<()> {
    let Some(key) = key else { return Err(no_key(what)) };
    if key.open(PURPOSE, check.as_bytes()).is_some_and(|found| *found == CONSTANT) {
        return Ok(());
    }
    Err(Error::Settings(format!(
        "the {CREDENTIAL} given to this process is the wrong one: {what} was sealed with another; \
         nothing was changed; give the right one, or put its copy back (docs/sealing.md)"
    )))
}

/// Returns the error of a process that lacks the key with which `what` is sealed.
pub fn no_key(what: &str) -> Error {
    Error::Settings(format!(
        "{what} is sealed, and this process has no {CREDENTIAL}; nothing was changed; its unit gets it \
         from /etc/credstore.encrypted/{CREDENTIAL}, a command by: systemd-run --pipe --wait \
         --property=LoadCredentialEncrypted={CREDENTIAL} copr-keygen …; without systemd, set \
         passphrase_key_file"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_marker_tells_its_key_from_others_and_none() -> Result<()> {
        let parse = |byte: &str| SealingKey::parse(format!("0{}", byte.repeat(63)).as_bytes());
        let (Ok(right), Ok(wrong)) = (parse("a"), parse("b")) else { unreachable!("digits") };
        let marker = Marker::new(Sealing::Sealed, &right)?;
        let words = |key: Option<&SealingKey>| {
            marker.check_key(key, "/state").err().map(|error| match error {
                Error::Settings(words) => words,
                other => panic!("{other}"),
            })
        };
        assert_eq!(words(Some(&right)), None);
        assert!(words(Some(&wrong)).is_some_and(|words| words.contains("wrong one")));
        assert!(words(None).is_some_and(|words| words.contains("has no passphrase-key")));
        Ok(())
    }

    #[test]
    fn what_is_not_understood_is_an_error_and_never_unsealed() {
        let root = crate::scratch::scratch();
        let path = root.path().join(MARKER);
        assert_eq!(Marker::read(&path).ok(), Some(None));
        for bad in ["", "{}", "nonsense", r#"{"format":2,"state":"sealed","check":""}"#] {
            assert!(fs::write(&path, bad).is_ok());
            assert!(matches!(Marker::read(&path), Err(Error::Settings(_))), "{bad}");
        }
    }
}
