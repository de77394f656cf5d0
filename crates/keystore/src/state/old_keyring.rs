//! Tells a `gnupg/` of ours from the home of another service, such as the old copr-keygen: its keyring
//! holds keys. Ours is an empty file that only tells signd of changes.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use gpg::keybox;

use crate::error::{Error, Result};
use crate::home::is_missing;

/// Every form in which GnuPG 1.4 to 2.4 keeps keys, but the keybox. With none in it, a file is empty.
const OTHER_FORMS: [&str; 3] = ["pubring.gpg", "secring.gpg", "public-keys.d/pubring.db"];

/// The keyring of another service in the GnuPG home `gnupg`.
pub fn find(gnupg: &Path) -> Result<Option<PathBuf>> {
    let keybox = gnupg.join("pubring.kbx");
    if holds_keys(&keybox)? {
        return Ok(Some(keybox));
    }
    for form in OTHER_FORMS {
        let path = gnupg.join(form);
        match fs::metadata(&path) {
            Ok(found) if found.len() > 0 => return Ok(Some(path)),
            Err(e) if !is_missing(&e) => return Err(looking(&path, e)),
            _ => {}
        }
    }
    Ok(None)
}

/// Whether a `pubring.kbx` holds certificates, or something that cannot be read.
pub fn holds_keys(keybox: &Path) -> Result<bool> {
    // Nearly always this one system call tells.
    match fs::metadata(keybox) {
        Ok(found) if found.len() == 0 => return Ok(false),
        Ok(found) if !found.is_file() => return Ok(true),
        Err(e) if is_missing(&e) => return Ok(false),
        Err(e) => return Err(looking(keybox, e)),
        Ok(_) => {}
    }
    // What a link leads to is nothing of ours, unless it is a keyring.
    let is_link = fs::symlink_metadata(keybox).is_ok_and(|found| found.is_symlink());
    match File::options().read(true).custom_flags(libc::O_NONBLOCK).open(keybox) {
        Ok(file) if is_link && !keybox::is_keybox(&file) => Ok(false),
        Ok(file) => Ok(keybox::holds_certificates(file)),
        Err(e) if is_missing(&e) => Ok(false),
        Err(e) => Err(looking(keybox, e)),
    }
}

fn looking(path: &Path, error: io::Error) -> Error {
    Error::io(format!("looking at {}", path.display()), error)
}
