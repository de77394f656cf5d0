//! The files of one home in memory. They are read as they were at one moment, while `prolong` and `remove` go
//! on. They have known names and limited sizes, and can be written into a staged home.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use gpg::{Fingerprint, Keygrip, Protection};
use zeroize::Zeroizing;

use crate::error::{Error, Result};
use crate::files::durable::{replace, write_new};
use crate::files::small_files::read_file;
use crate::files::{FileId, FileVersion, look, make_directory};
use crate::home::record::{KeyRecord, RECORD_MAX};
use crate::layout::{PASSPHRASE, PUBRING, RECORD, REVOCATIONS, SECRET_KEYS};

/// How often a home is read if it changes during each read.
const TRIES: usize = 10;
/// The size limit of any file of a home, in bytes.
const FILE_MAX: u64 = 16 * 1024 * 1024;
/// The limit on the number of files. No key of ours has as many secret keys or revocation certificates.
const FILES_MAX: usize = 16;

/// The name of a file that belongs into a home.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum HomeFileName {
    /// `key.json`
    Record,
    /// `openpgp-revocs.d/<FINGERPRINT>.rev`
    Revocation(Fingerprint),
    /// `private-keys-v1.d/<KEYGRIP>.key`
    SecretKey(Keygrip),
    /// `passphrase`
    Passphrase,
    /// `pubring.kbx`
    Pubring,
}

impl HomeFileName {
    /// Parses a path that is relative to a home.
    pub fn parse(path: &str) -> Option<Self> {
        match (path, path.split_once('/')) {
            (RECORD, _) => Some(Self::Record),
            (PASSPHRASE, _) => Some(Self::Passphrase),
            (PUBRING, _) => Some(Self::Pubring),
            (_, Some((SECRET_KEYS, name))) => {
                Keygrip::parse(name.strip_suffix(".key")?).map(Self::SecretKey)
            }
            (_, Some((REVOCATIONS, name))) => {
                Fingerprint::parse(name.strip_suffix(".rev")?).map(Self::Revocation)
            }
            _ => None,
        }
    }

    /// The size limit of the file, in bytes. Keyrings grow with every signature they keep.
    pub fn limit(&self) -> u64 {
        match self {
            Self::Record => RECORD_MAX,
            Self::Passphrase => 4096,
            Self::Revocation(_) | Self::SecretKey(_) => 64 * 1024,
            Self::Pubring => 4 * 1024 * 1024,
        }
    }
}

impl fmt::Display for HomeFileName {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Record => out.write_str(RECORD),
            Self::Passphrase => out.write_str(PASSPHRASE),
            Self::Pubring => out.write_str(PUBRING),
            Self::SecretKey(grip) => write!(out, "{SECRET_KEYS}/{grip}.key"),
            Self::Revocation(fingerprint) => write!(out, "{REVOCATIONS}/{fingerprint}.rev"),
        }
    }
}

/// All files of a home.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct HomeFiles(BTreeMap<HomeFileName, Zeroizing<Vec<u8>>>);

/// Shows the names, never the contents.
impl fmt::Debug for HomeFiles {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_set().entries(self.0.keys()).finish()
    }
}

impl HomeFiles {
    /// Reads a home as it was at one moment; `None` if there is no home (any more).
    ///
    /// Takes no lock, so that neither `prolong` nor `remove` ever waits or fails because of a backup.
    /// `prolong` renames `pubring.kbx` into place and then `key.json`, so both are looked at again after
    /// everything was read. If the directory is not the same one any more, the home was removed.
    pub fn read(home: &Path) -> Result<Option<Self>> {
        let mut tries = 0;
        loop {
            let flags = libc::O_DIRECTORY | libc::O_NOFOLLOW;
            // Hold the directory open: as long as it is, no other directory can have its inode number.
            let held = match OpenOptions::new().read(true).custom_flags(flags).open(home) {
                Ok(held) => held,
                Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
                Err(e) if matches!(e.raw_os_error(), Some(libc::ENOTDIR | libc::ELOOP)) => {
                    return Err(Error::damaged(home, "is not a directory"));
                }
                Err(e) => return Err(Error::at("opening", home)(e)),
            };
            let before = stamps(home);
            let files = Self::read_once(home);
            let is_same = fs::symlink_metadata(home)
                .and_then(|now| Ok(FileId::from(&now) == FileId::from(&held.metadata()?)))
                .unwrap_or(false);
            if is_same && stamps(home) == before {
                return files.map(Some);
            }
            tries += 1;
            if tries == TRIES {
                return Err(Error::busy(format!("{} changes all the time", home.display())));
            }
        }
    }

    fn read_once(home: &Path) -> Result<Self> {
        let mut files = Self::default();
        let mut names = vec![HomeFileName::Record, HomeFileName::Passphrase, HomeFileName::Pubring];
        names.extend(names_in(home, SECRET_KEYS)?);
        names.extend(names_in(home, REVOCATIONS)?);
        for name in names {
            let path = home.join(name.to_string());
            match read_file(&path, name.limit()) {
                Ok(bytes) => drop(files.0.insert(name, bytes)),
                // `key.json` is a cache that can be made again.
                Err(e) if e.is_damage() && name == HomeFileName::Record => {}
                Err(e) => return Err(e),
            }
        }
        match files.problem() {
            None => Ok(files),
            Some(problem) => Err(Error::damaged(home, problem)),
        }
    }

    /// Returns what keeps these files from being a whole key, if anything does.
    pub fn problem(&self) -> Option<&'static str> {
        let Some(record) = self.record() else {
            return Some("holds no single secret key with its revocation certificate");
        };
        let needed = [
            (HomeFileName::Pubring, "holds no pubring.kbx"),
            (HomeFileName::Passphrase, "holds no passphrase"),
            (HomeFileName::SecretKey(record.keygrip.clone()), "holds no secret key"),
            (
                HomeFileName::Revocation(record.fingerprint.clone()),
                "holds no revocation certificate of its key",
            ),
        ];
        let is_missing =
            |name: &HomeFileName| self.0.get(name).is_none_or(|bytes| bytes.is_empty());
        needed.iter().find(|(name, _)| is_missing(name)).map(|(_, problem)| *problem)
    }

    /// Returns the record in `key.json` if it names a secret key that is here. Otherwise makes a record from
    /// the names of the files. The record is not yet compared with the certificate.
    pub fn record(&self) -> Option<KeyRecord> {
        let cached = self.0.get(&HomeFileName::Record).and_then(|text| KeyRecord::parse(text));
        let revocations = self.0.keys().filter_map(|name| match name {
            HomeFileName::Revocation(fingerprint) => Some(fingerprint.clone()),
            _ => None,
        });
        let grips: Vec<_> = self.secret_keys().cloned().collect();
        KeyRecord::told_by(cached, &grips, &revocations.collect::<Vec<_>>())
    }

    /// Adds a file. Returns `false` if it was there already, or if there are too many files.
    pub fn add(&mut self, name: HomeFileName, bytes: Vec<u8>) -> bool {
        self.0.len() < FILES_MAX && self.0.insert(name, Zeroizing::new(bytes)).is_none()
    }

    /// Puts a file in place of the one that is there.
    pub fn put(&mut self, name: HomeFileName, bytes: Zeroizing<Vec<u8>>) {
        self.0.insert(name, bytes);
    }

    /// The content of `pubring.kbx`.
    pub fn pubring(&self) -> &[u8] {
        self.0.get(&HomeFileName::Pubring).map_or(&[], |bytes| bytes.as_slice())
    }

    /// The content of `passphrase`.
    pub fn passphrase(&self) -> &[u8] {
        self.0.get(&HomeFileName::Passphrase).map_or(&[], |bytes| bytes.as_slice())
    }

    /// How the first secret key, by keygrip, is protected; `None` if its file holds no secret key.
    pub fn protection(&self) -> Option<Protection> {
        self.protections().next().flatten()
    }

    /// How each secret key is protected, in the order of the keygrips.
    pub fn protections(&self) -> impl Iterator<Item = Option<Protection>> {
        self.secrets().map(|(_, bytes)| Protection::of(bytes))
    }

    /// The keygrips of the secret keys, in ascending order.
    pub fn secret_keys(&self) -> impl Iterator<Item = &Keygrip> {
        self.secrets().map(|(grip, _)| grip)
    }

    fn secrets(&self) -> impl Iterator<Item = (&Keygrip, &[u8])> {
        self.iter().filter_map(|(name, bytes)| match name {
            HomeFileName::SecretKey(grip) => Some((grip, bytes)),
            _ => None,
        })
    }

    /// Returns every file, in an order that never changes.
    pub fn iter(&self) -> impl Iterator<Item = (&HomeFileName, &[u8])> {
        self.0.iter().map(|(name, bytes)| (name, bytes.as_slice()))
    }

    /// Writes all files but `key.json` and `passphrase` into a staged home.
    pub fn write(&self, home: &Path) -> Result<()> {
        for directory in [SECRET_KEYS, REVOCATIONS] {
            make_directory(&home.join(directory))?;
        }
        let is_copied =
            |name: &HomeFileName| !matches!(name, HomeFileName::Record | HomeFileName::Passphrase);
        for (name, bytes) in self.iter().filter(|(name, _)| is_copied(name)) {
            write_new(&home.join(name.to_string()), bytes)?;
        }
        Ok(())
    }
}

/// Copies a file of a home. It must be a regular file with content.
pub fn copy(from: &Path, to: &Path) -> Result<()> {
    write_new(to, &read_file(from, FILE_MAX)?)
}

/// Replaces the certificate and the record of a published home with those of a staged one, durably. The
/// certificate comes first: a `key.json` that is behind makes the next run look again.
pub fn replace_certificate(staged: &Path, home: &Path) -> Result<()> {
    [PUBRING, RECORD].iter().try_for_each(|file| replace(&staged.join(file), &home.join(file)))
}

/// Returns the versions of the two files that `prolong` replaces.
fn stamps(home: &Path) -> [Option<FileVersion>; 2] {
    [PUBRING, RECORD].map(|name| FileVersion::of(&fs::symlink_metadata(home.join(name)).ok()?).ok())
}

/// Lists the files of a directory in a home that belong there.
fn names_in(home: &Path, directory: &str) -> Result<Vec<HomeFileName>> {
    let path = home.join(directory);
    match look(&path)? {
        Some(found) if found.is_dir() => {}
        Some(_) => return Err(Error::damaged(&path, "is not a directory")),
        None => return Ok(Vec::new()),
    }
    let reading = Error::at("reading", &path);
    let mut names = Vec::new();
    for entry in fs::read_dir(&path).map_err(reading)? {
        let name = entry.map_err(reading)?.file_name();
        names.extend(
            name.to_str().and_then(|name| HomeFileName::parse(&format!("{directory}/{name}"))),
        );
        if names.len() > FILES_MAX {
            return Err(Error::damaged(&path, "holds more files than a key has"));
        }
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_a_home_and_nothing_else() {
        let digits = "0123456789ABCDEF0123456789ABCDEF01234567";
        for good in [
            "key.json",
            "passphrase",
            "pubring.kbx",
            &format!("private-keys-v1.d/{digits}.key"),
            &format!("openpgp-revocs.d/{digits}.rev"),
        ] {
            assert_eq!(
                HomeFileName::parse(good).map(|name| name.to_string()).as_deref(),
                Some(good)
            );
        }
        for bad in [
            "",
            "/",
            "./passphrase",
            "passphrase/",
            "passphrase\0",
            "../passphrase",
            "gpg.conf",
            "private-keys-v1.d",
            "private-keys-v1.d/../passphrase",
            "private-keys-v1.d/a.key",
            &format!("private-keys-v1.d//{digits}.key"),
            &format!("private-keys-v1.d/{digits}.rev"),
            &format!("openpgp-revocs.d/{digits}.key"),
            &format!("private-keys-v1.d/{}.key", digits.to_lowercase()),
        ] {
            assert_eq!(HomeFileName::parse(bad), None, "{bad:?}");
        }
    }
}
