//! Tells our `gnupg/` from the GnuPG home of another service, such as the old copr-keygen. The keyring of
//! such a service holds keys. Ours is an empty file that only tells signd of changes.

use std::fs;
use std::path::{Path, PathBuf};

use gpg::keybox;

use crate::error::{Error, Result};
use crate::files::small_files::{Symlinks, open_regular};
use crate::files::{if_there, is_missing};
use crate::layout::PUBRING;

/// The files other than the keybox in which GnuPG 1.4 to 2.4 keeps keys. A file without keys is empty.
const OTHER_FORMS: [&str; 3] = ["pubring.gpg", "secring.gpg", "public-keys.d/pubring.db"];

/// Returns the keyring of another service in the GnuPG home `gnupg`, if there is one.
pub fn find(gnupg: &Path) -> Result<Option<PathBuf>> {
    let keybox = gnupg.join(PUBRING);
    if holds_keys(&keybox)? {
        return Ok(Some(keybox));
    }
    for form in OTHER_FORMS {
        let path = gnupg.join(form);
        let found = if_there(fs::metadata(&path)).map_err(Error::at("looking at", &path))?;
        if found.map_or_else(|| path.is_symlink(), |found| found.len() > 0) {
            return Ok(Some(path));
        }
    }
    Ok(None)
}

/// Whether a `pubring.kbx` holds certificates. It counts as holding some if it cannot be read, or is a link to a
/// file that is not there now.
pub fn holds_keys(keybox: &Path) -> Result<bool> {
    // Nearly always, this one system call is enough.
    match if_there(fs::metadata(keybox)).map_err(Error::at("looking at", keybox))? {
        None => return Ok(keybox.is_symlink()),
        Some(found) if found.len() == 0 => return Ok(false),
        Some(_) => {}
    }
    // A symbolic link that leads to anything but a keybox is not a keyring of another service.
    let is_link = fs::symlink_metadata(keybox).is_ok_and(|found| found.is_symlink());
    match open_regular(keybox, Symlinks::Followed) {
        Ok(None) => Ok(true),
        Ok(Some(file)) if is_link && !keybox::is_keybox(&file) => Ok(false),
        Ok(Some(file)) => Ok(keybox::holds_certificates(file)),
        Err(e) if is_missing(&e) => Ok(false),
        Err(e) => Err(Error::at("looking at", keybox)(e)),
    }
}
