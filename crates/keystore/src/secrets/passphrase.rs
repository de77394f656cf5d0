//! The passphrase of a secret key: 256 random bits from the kernel, written as 64 hexadecimal digits. It is
//! kept in a file of one line that only its owner can read, either in the clear or sealed. In memory it is
//! zeroed after use.

use std::io;
use std::path::{Path, PathBuf};

use gpg::Keygrip;
use rand::TryRng;
use rand::rngs::SysRng;
use zeroize::Zeroizing;

use crate::error::{Error, Result};
use crate::files::durable::{replace, write_new};
use crate::files::small_files::{self, read_file};
use crate::layout::PASSPHRASE;
use crate::options::Options;
use crate::secrets::sealing_key::{SealingKey, is_sealed};
use crate::secrets::sealing_marker::{Marker, Sealing, no_key};
use gpg::hex;

/// A passphrase in the clear, without a line end.
pub type Phrase = Zeroizing<Vec<u8>>;

/// The size limit of a passphrase file, in bytes.
pub(crate) const FILE_MAX: u64 = 4096;

/// How a passphrase is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// In the clear.
    Clear,
    /// Encrypted under the sealing key.
    Sealed,
}

/// Reads and writes the passphrases of a state.
#[derive(Clone, Debug)]
pub struct Passphrases {
    root: PathBuf,
    key: Option<SealingKey>,
    /// Whether signd reads passphrases in `phrases_dir` and not in the homes.
    apart: bool,
}

impl Passphrases {
    /// Returns the passphrases of the state that `options` describe, with the sealing key in `options`.
    pub fn new(options: &Options) -> Self {
        Self {
            root: options.state_dir.clone(),
            key: options.sealing_key.clone(),
            apart: options.phrases_dir.is_some(),
        }
    }

    /// The state directory.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Generates a passphrase.
    pub fn fresh() -> Result<Phrase> {
        let mut bits = Zeroizing::new([0_u8; 32]);
        SysRng
            .try_fill_bytes(&mut *bits)
            .map_err(|e| Error::io("asking for random numbers", io::Error::other(e)))?;
        let mut digits = hex::encode(&*bits);
        Ok(Zeroizing::new(std::mem::take(&mut *digits).into_bytes()))
    }

    /// The key that passphrases are sealed with, if this process has it.
    pub fn key(&self) -> Option<&SealingKey> {
        self.key.as_ref()
    }

    /// Reads the sealing marker; `None` if the state is not sealed.
    pub fn marker(&self) -> Result<Option<Marker>> {
        Marker::read(&self.marker_path())
    }

    /// The path of the sealing marker.
    pub fn marker_path(&self) -> PathBuf {
        Marker::path(&self.root)
    }

    /// Fails unless this process can read all passphrases. In a sealed state that takes the right sealing key.
    pub fn verify_key(&self) -> Result<()> {
        let Some(marker) = self.marker()? else { return Ok(()) };
        marker.check_key(self.key.as_ref(), &format!("the state {}", self.root.display()))
    }

    /// Fails unless this process can read all passphrases and write new ones where signd finds them. In a
    /// sealed state that takes the right sealing key and `phrases_dir`.
    pub fn verify(&self) -> Result<()> {
        self.verify_key()?;
        if self.apart || self.marker()?.is_none() { Ok(()) } else { Err(needs_directory()) }
    }

    /// Returns the form in which a passphrase must be written now. Reads the marker each time, because
    /// sealing may be turned on or off while other processes work.
    pub fn form(&self) -> Result<Form> {
        let Some(marker) = self.marker()? else { return Ok(Form::Clear) };
        self.verify()?;
        Ok(match marker.state {
            Sealing::Sealing | Sealing::Sealed => Form::Sealed,
            Sealing::Unsealing => Form::Clear,
        })
    }

    /// Reads the passphrase of the secret key `keygrip` in `home`.
    pub fn read(&self, home: &Path, keygrip: &Keygrip) -> Result<Phrase> {
        let path = home.join(PASSPHRASE);
        let content = read_file(&path, FILE_MAX)?;
        self.open(&path, keygrip, &content)
    }

    /// Returns the passphrase in `content`, which is the content of the file at `path`. Unseals it
    /// if it is sealed.
    pub fn open(&self, path: &Path, keygrip: &Keygrip, content: &[u8]) -> Result<Phrase> {
        let line = first_line(content);
        if !is_sealed(line) {
            return Ok(Zeroizing::new(line.to_vec()));
        }
        let Some(key) = &self.key else {
            return Err(no_key(&path.display().to_string()));
        };
        key.open(&purpose(keygrip), line).ok_or_else(|| {
            Error::damaged(
                path,
                "does not open with the passphrase-key: it was changed, is of another key, or was \
                 sealed with another passphrase-key",
            )
        })
    }

    /// Returns the content of a passphrase file in the given form.
    pub fn content(&self, form: Form, keygrip: &Keygrip, phrase: &[u8]) -> Result<Phrase> {
        if is_sealed(phrase) {
            let why = "a passphrase that begins with \"sealed:\" cannot be kept; change it first";
            return Err(Error::Refused(why.into()));
        }
        let sealed = match (form, &self.key) {
            (Form::Clear, _) => None,
            (Form::Sealed, Some(key)) => Some(key.seal(&purpose(keygrip), phrase)?),
            (Form::Sealed, None) => {
                return Err(no_key(&format!("the state {}", self.root.display())));
            }
        };
        let line = sealed.as_deref().map_or(phrase, str::as_bytes);
        let mut content = Zeroizing::new(Vec::with_capacity(line.len() + 1));
        content.extend_from_slice(line);
        content.push(b'\n');
        Ok(content)
    }

    /// Writes the passphrase into a staged home that has none, in the form that is due.
    pub fn write(&self, home: &Path, keygrip: &Keygrip, phrase: &[u8]) -> Result<()> {
        let content = self.content(self.form()?, keygrip, phrase)?;
        write_new(&home.join(PASSPHRASE), &content)
    }

    /// Brings the passphrase in `home` into the form that is due, and returns the passphrase. No other
    /// process may work in that home. `scratch` is a directory of staging, so that a killed process leaves
    /// nothing in the clear.
    pub fn renew(&self, home: &Path, keygrip: &Keygrip, scratch: &Path) -> Result<Phrase> {
        let path = home.join(PASSPHRASE);
        let old = read_file(&path, FILE_MAX)?;
        let phrase = self.open(&path, keygrip, &old)?;
        let form = self.form()?;
        if form_of(&old) != form {
            let content = self.content(form, keygrip, &phrase)?;
            let fresh = scratch.join(PASSPHRASE);
            write_new(&fresh, &content)?;
            replace(&fresh, &path)?;
        }
        Ok(phrase)
    }
}

/// Returns the form in which the passphrase of `home` is kept.
pub fn form_in(home: &Path) -> Result<Form> {
    Ok(form_of(&read_file(&home.join(PASSPHRASE), FILE_MAX)?))
}

fn form_of(content: &[u8]) -> Form {
    if is_sealed(content) { Form::Sealed } else { Form::Clear }
}

/// Reads the beginning of a file that may be a passphrase, a copy of one or anything else. It reads as many
/// bytes as a passphrase file can have. Returns `None` if there is no regular file.
pub(crate) fn beginning_of(path: &Path) -> Result<Option<Phrase>> {
    small_files::beginning_of(path, FILE_MAX)
}

/// Returns the first line of a passphrase file, without the line end.
pub(crate) fn first_line(content: &[u8]) -> &[u8] {
    content.split(|byte| *byte == b'\n').next().unwrap_or_default()
}

/// Returns what a passphrase is sealed for: the key that it unlocks. The key's name, the keygrip, stays the
/// same from the pool to the trash.
fn purpose(keygrip: &Keygrip) -> Vec<u8> {
    format!("copr-keygen passphrase 1 {keygrip}").into_bytes()
}

/// Returns the error for a sealed state without `phrases_dir`: signd cannot open a sealed passphrase.
pub fn needs_directory() -> Error {
    Error::Settings(
        "phrases_dir: must be set where passphrases are sealed, to the tmpfs directory in which signd \
         finds them, like /run/copr-keygen/phrases (docs/sealing.md); nothing was changed"
            .into(),
    )
}

#[allow(clippy::unwrap_used)]
#[cfg(test)]
mod tests {
    use super::*;
    use crate::scratch::scratch;
    use std::fs;

    #[test]
    fn a_passphrase_that_is_renewed_is_in_the_clear_in_staging_only() {
        let root = scratch();
        let (home, scratch) = (root.path().join("home"), root.path().join("scratch"));
        fs::create_dir_all(&home).unwrap();
        let key = SealingKey::parse("0123456789abcdef".repeat(4).as_bytes()).ok();
        let passphrases = Passphrases { root: root.path().into(), key, apart: true };
        let keygrip = Keygrip::parse("0123456789ABCDEF0123456789ABCDEF01234567").unwrap();
        let sealed = passphrases.content(Form::Sealed, &keygrip, b"phrase").unwrap();
        write_new(&home.join(PASSPHRASE), &sealed).unwrap();
        // Without the scratch directory, `renew` ends as early as if it were killed. Nothing is written
        // anywhere else.
        assert!(passphrases.renew(&home, &keygrip, &scratch).is_err());
        assert_eq!(fs::read_dir(&home).unwrap().count(), 1);
        assert_eq!(form_in(&home).unwrap(), Form::Sealed);
        fs::create_dir(&scratch).unwrap();
        assert_eq!(*passphrases.renew(&home, &keygrip, &scratch).unwrap(), b"phrase");
        assert_eq!(fs::read(home.join(PASSPHRASE)).unwrap(), b"phrase\n");
        assert_eq!(fs::read_dir(&scratch).unwrap().count(), 0);
    }
}
