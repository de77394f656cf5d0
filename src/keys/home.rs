//! A published home: what belongs into it, where it is and whether it is whole.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::record::{KeyRecord, RECORD};
use crate::error::{Error, Result};
use crate::gpg::Keygrip;
use crate::identity::NameEmail;

/// The public keyring.
pub const PUBRING: &str = "pubring.kbx";
/// The passphrase of the secret key, one line.
pub const PASSPHRASE: &str = "passphrase";
/// The directory of the secret key.
pub const SECRET_KEYS: &str = "private-keys-v1.d";
/// The directory of the revocation certificate.
pub const REVOCATIONS: &str = "openpgp-revocs.d";
/// `keys/`: all published homes.
#[derive(Clone, Debug)]
pub struct Homes {
    directory: PathBuf,
}

impl Homes {
    /// The homes of the state directory `root`.
    pub fn new(root: &Path) -> Self {
        Self { directory: root.join("keys") }
    }

    /// The directory the homes are renamed into.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Where the home of an identity is, or will be.
    pub fn path(&self, name_email: &NameEmail) -> PathBuf {
        self.directory.join(name_email.as_str())
    }

    /// Where the public keyring of an identity is.
    pub fn pubring(&self, name_email: &NameEmail) -> PathBuf {
        self.path(name_email).join(PUBRING)
    }

    /// Every identity that has a home, in the order of the file system. Names that no identity has
    /// are passed over.
    pub fn identities(&self) -> Result<impl Iterator<Item = Result<NameEmail>>> {
        let reading = |e| Error::io(format!("reading {}", self.directory.display()), e);
        let entries = fs::read_dir(&self.directory).map_err(reading)?;
        Ok(entries.filter_map(move |entry| match entry {
            Ok(entry) => NameEmail::parse(entry.file_name().to_str()?).ok().map(Ok),
            Err(e) => Some(Err(reading(e))),
        }))
    }

    /// The key whose fingerprint ends in `digits`. Looks at every key; a home that is damaged is an error
    /// only when no other one holds it. [`Error::Arguments`] when two keys end in these digits.
    pub fn find_by_key_id(&self, digits: &str) -> Result<Option<(NameEmail, KeyRecord)>> {
        let mut found: Option<(NameEmail, KeyRecord)> = None;
        let mut damaged = None;
        for name_email in self.identities()? {
            let name_email = name_email?;
            let record = match self.find(&name_email) {
                Ok(Some(record)) if record.fingerprint.as_str().ends_with(digits) => record,
                Ok(_) => continue,
                Err(e @ Error::DamagedHome { .. }) => {
                    damaged = Some(e);
                    continue;
                }
                Err(e) => return Err(e),
            };
            match &found {
                Some((other, first)) if first.fingerprint != record.fingerprint => {
                    return Err(Error::Arguments(format!(
                        "the key ID {digits} is that of two keys: {} of {other}, and {} of \
                         {name_email}; name one by its name or all 40 digits",
                        first.fingerprint, record.fingerprint
                    )));
                }
                Some(_) => {}
                None => found = Some((name_email, record)),
            }
        }
        match (found, damaged) {
            (None, Some(e)) => Err(e),
            (found, _) => Ok(found),
        }
    }

    /// The key of an identity, if there is one. A home that is not complete is an error: it may
    /// hold the only copy of a key, so nothing is ever made in its place.
    pub fn find(&self, name_email: &NameEmail) -> Result<Option<KeyRecord>> {
        loop {
            let inode =
                || fs::symlink_metadata(self.path(name_email)).map(|found| found.ino()).ok();
            let before = inode();
            match self.look(name_email) {
                // It was removed, or removed and made again, while it was looked at.
                Err(Error::DamagedHome { .. }) if inode() != before => {}
                found => return found,
            }
        }
    }

    fn look(&self, name_email: &NameEmail) -> Result<Option<KeyRecord>> {
        let home = self.path(name_email);
        let damaged =
            |path: PathBuf, reason: &str| Err(Error::DamagedHome { path, reason: reason.into() });
        match fs::symlink_metadata(&home) {
            Ok(found) if !found.is_dir() => return damaged(home, "is not a directory"),
            Ok(found) if found.uid() != nix::unistd::geteuid().as_raw() => {
                return damaged(home, &format!("belongs to uid {}", found.uid()));
            }
            Ok(_) => {}
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(Error::io(format!("looking for {}", home.display()), e)),
        }
        let Some(record) = KeyRecord::of(&home) else {
            // rename(2) puts a home in place of an empty directory, so that one is not in the way.
            if fs::read_dir(&home).is_ok_and(|mut entries| entries.next().is_none()) {
                return Ok(None);
            }
            return damaged(home, "holds no single secret key with its revocation certificate");
        };
        for path in [record.secret_key(&home), home.join(PUBRING), home.join(PASSPHRASE)] {
            check_file(path)?;
        }
        Ok(Some(record))
    }
}

/// Checks a staged home before it is published: nothing is missing, nothing is for others.
pub fn check_complete(home: &Path, record: &KeyRecord) -> Result<()> {
    let revocation = home.join(REVOCATIONS).join(format!("{}.rev", record.fingerprint));
    let files = [PUBRING, PASSPHRASE, RECORD].map(|name| home.join(name));
    let mut files = files.into_iter().chain([record.secret_key(home), revocation]);
    files.try_for_each(|path| check_private(&path))
}

/// A regular file with something in it that only its owner can read.
pub fn check_private(path: &Path) -> Result<()> {
    check_file(path.into())?;
    let mode = fs::symlink_metadata(path)
        .map_err(|e| Error::io(format!("looking at {}", path.display()), e))?
        .mode();
    if mode & 0o077 != 0 {
        let reason = format!("has mode {:03o}, others could read it", mode & 0o777);
        return Err(Error::DamagedHome { path: path.into(), reason });
    }
    Ok(())
}

/// A file of a home must be a regular one with something in it.
pub fn check_file(path: PathBuf) -> Result<()> {
    let reason = match fs::symlink_metadata(&path) {
        Ok(found) if found.is_file() && found.len() > 0 => return Ok(()),
        Ok(_) => "is empty or not a regular file",
        Err(e) if e.kind() == io::ErrorKind::NotFound => "is missing",
        Err(e) => return Err(Error::io(format!("looking at {}", path.display()), e)),
    };
    Err(Error::DamagedHome { path, reason: reason.into() })
}

/// The keygrips of the secret keys in a home, as far as it can be read.
pub fn secret_keys(home: &Path) -> Vec<Keygrip> {
    let entries = fs::read_dir(home.join(SECRET_KEYS)).into_iter().flatten().flatten();
    entries.filter_map(|entry| Keygrip::from_file_name(&entry.file_name())).collect()
}

/// Removes everything from a staged home that does not belong into a published one: sockets, lock
/// files, the trust database, gpg's copy of the keyring.
pub fn remove_leftovers(home: &Path) -> Result<()> {
    keep_only(home, &[PUBRING, PASSPHRASE, SECRET_KEYS, REVOCATIONS, RECORD])
}

/// Removes everything from a staged home but the entries named.
pub fn keep_only(home: &Path, keep: &[&str]) -> Result<()> {
    let reading = |e| Error::io(format!("reading {}", home.display()), e);
    for entry in fs::read_dir(home).map_err(reading)? {
        let entry = entry.map_err(reading)?;
        if keep.iter().any(|name| entry.file_name() == **name) {
            continue;
        }
        let path = entry.path();
        let removed = match entry.file_type() {
            Ok(kind) if kind.is_dir() => fs::remove_dir_all(&path),
            _ => fs::remove_file(&path),
        };
        match removed {
            Err(e) if e.kind() != io::ErrorKind::NotFound => {
                return Err(Error::io(format!("removing {}", path.display()), e));
            }
            _ => {}
        }
    }
    Ok(())
}
