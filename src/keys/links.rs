//! What obs-signd sees of a key, all of it derived: in `gnupg/private-keys-v1.d/` a link to the
//! secret key for its agent, in `phrases/` a link to the passphrase. signd takes every entry of
//! `phrases/` for a user who can sign, so that link is always the last thing that is made.

use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use super::durable;
use crate::error::{Error, Result};
use crate::gpg::Keygrip;
use crate::identity::NameEmail;

/// The two directories of links.
#[derive(Debug)]
pub struct SigndLinks {
    secret_keys: PathBuf,
    phrases: PathBuf,
}

impl SigndLinks {
    /// The links of the state directory `root`.
    pub fn new(root: &Path) -> Self {
        Self { secret_keys: root.join("gnupg/private-keys-v1.d"), phrases: root.join("phrases") }
    }

    /// Links the secret key, durably: a phrase must not survive a power cut that its key's link
    /// did not.
    pub fn add_secret_key(&self, name_email: &NameEmail, keygrip: &Keygrip) -> Result<()> {
        if self.put(&self.secret_key(keygrip), &secret_key_target(name_email, keygrip))? {
            durable::sync(&self.secret_keys)?;
        }
        Ok(())
    }

    /// Links the passphrase; from here on signd knows the key.
    pub fn add_phrase(&self, name_email: &NameEmail) -> Result<()> {
        let target = format!("../keys/{name_email}/passphrase");
        self.put(&self.phrases.join(name_email.as_str()), Path::new(&target)).map(drop)
    }

    /// Removes the link to a secret key that was never published.
    pub fn remove_dangling_secret_key(&self, keygrip: &Keygrip) {
        let link = self.secret_key(keygrip);
        let missing = |e: &io::Error| e.kind() == io::ErrorKind::NotFound;
        if !fs::metadata(&link).is_err_and(|e| missing(&e)) {
            return;
        }
        match fs::remove_file(&link) {
            Err(e) if !missing(&e) => {
                log::warn!("{}: a link to nothing could not be removed: {e}", link.display());
            }
            _ => {}
        }
    }

    fn secret_key(&self, keygrip: &Keygrip) -> PathBuf {
        self.secret_keys.join(keygrip.file_name())
    }

    /// Makes `link` point to `target`; `false` when it already did.
    fn put(&self, link: &Path, target: &Path) -> Result<bool> {
        let failed = |e| Error::io(format!("linking {}", link.display()), e);
        if fs::read_link(link).is_ok_and(|found| found == target) {
            return Ok(false);
        }
        match fs::remove_file(link) {
            Ok(()) => log::warn!("{}: was not our link to the key, replaced it", link.display()),
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(failed(e)),
        }
        match symlink(target, link) {
            Ok(()) => Ok(true),
            // Another request has just made it.
            Err(_) if fs::read_link(link).is_ok_and(|found| found == target) => Ok(true),
            Err(e) => Err(failed(e)),
        }
    }
}

fn secret_key_target(name_email: &NameEmail, keygrip: &Keygrip) -> PathBuf {
    format!("../../keys/{name_email}/private-keys-v1.d/{}", keygrip.file_name()).into()
}
