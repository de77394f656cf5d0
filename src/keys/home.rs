//! A published home: what belongs into it, where it is and whether it is whole.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
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
        let home = self.path(name_email);
        loop {
            // Held, so that one and the same home is read, wherever it is moved meanwhile.
            let flags = libc::O_PATH | libc::O_NOFOLLOW;
            let held = match File::options().read(true).custom_flags(flags).open(&home) {
                Ok(held) => held,
                Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
                Err(e) => return Err(Error::io(format!("looking for {}", home.display()), e)),
            };
            let found = look(&home, &held);
            // What is wrong with a home that has left is nothing about the one that is there.
            if found.is_ok() || is_at(&held, &home) {
                return found;
            }
        }
    }
}

/// Reads the home `held`, which was at `home` when it was opened.
fn look(home: &Path, held: &File) -> Result<Option<KeyRecord>> {
    let damaged =
        |path: PathBuf, reason: &str| Err(Error::DamagedHome { path, reason: reason.into() });
    let looking = |path: &Path, e| Error::io(format!("looking at {}", path.display()), e);
    match held.metadata().map_err(|e| looking(home, e))? {
        found if !found.is_dir() => return damaged(home.into(), "is not a directory"),
        found if found.uid() != nix::unistd::geteuid().as_raw() => {
            return damaged(home.into(), &format!("belongs to uid {}", found.uid()));
        }
        _ => {}
    }
    let by_descriptor = PathBuf::from(format!("/proc/self/fd/{}", held.as_raw_fd()));
    // Without /proc there is only the name.
    let inside = if by_descriptor.exists() { by_descriptor } else { home.into() };
    let Some(record) = KeyRecord::of(&inside) else {
        // rename(2) puts a home in place of an empty directory, so that one is not in the way.
        if fs::read_dir(&inside).is_ok_and(|mut entries| entries.next().is_none()) {
            return Ok(None);
        }
        return damaged(home.into(), "holds no single secret key with its revocation certificate");
    };
    for file in [record.secret_key(Path::new("")), PUBRING.into(), PASSPHRASE.into()] {
        match fault_of_file(&inside.join(&file)) {
            Ok(None) => {}
            Ok(Some(reason)) => return damaged(home.join(file), reason),
            Err(e) => return Err(looking(&home.join(file), e)),
        }
    }
    Ok(Some(record))
}

/// Whether `held` is what is at `path` now.
fn is_at(held: &File, path: &Path) -> bool {
    let held = held.metadata().map(|found| (found.dev(), found.ino())).ok();
    let there = fs::symlink_metadata(path).map(|found| (found.dev(), found.ino())).ok();
    held.is_some() && held == there
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
    match fault_of_file(&path) {
        Ok(None) => Ok(()),
        Ok(Some(reason)) => Err(Error::DamagedHome { path, reason: reason.into() }),
        Err(e) => Err(Error::io(format!("looking at {}", path.display()), e)),
    }
}

/// What is wrong with a file of a home, if anything is.
fn fault_of_file(path: &Path) -> io::Result<Option<&'static str>> {
    match fs::symlink_metadata(path) {
        Ok(found) if found.is_file() && found.len() > 0 => Ok(None),
        Ok(_) => Ok(Some("is empty or not a regular file")),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Some("is missing")),
        Err(e) => Err(e),
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicBool, Ordering};

    #[test]
    fn a_home_that_comes_and_goes_is_there_or_not_there_and_never_damaged() -> Result<()> {
        let root = std::env::temp_dir().join(format!("ckg-{:016x}", rand::random::<u64>()));
        let (homes, name) = (Homes::new(&root), NameEmail::parse("a#b@c")?);
        let (home, aside) = (homes.path(&name), root.join("aside"));
        let grip = "0123456789ABCDEF0123456789ABCDEF01234567";
        let files = [
            format!("{SECRET_KEYS}/{grip}.key"),
            format!("{REVOCATIONS}/{grip}.rev"),
            PUBRING.to_owned(),
            PASSPHRASE.to_owned(),
        ];
        for file in files.map(|file| home.join(file)) {
            let made = file.parent().map_or(Ok(()), fs::create_dir_all);
            assert!(made.and_then(|()| fs::write(file, "x")).is_ok());
        }
        let (done, mut failed) = (AtomicBool::new(false), Vec::new());
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    let back = fs::rename(&home, &aside).and_then(|()| fs::rename(&aside, &home));
                    assert!(back.is_ok());
                }
            });
            for _ in 0..20_000 {
                if let Err(e) = homes.find(&name) {
                    failed.push(e);
                }
            }
            done.store(true, Ordering::Relaxed);
        });
        assert!(failed.is_empty(), "{failed:?}");
        let _ = fs::remove_dir_all(&root);
        Ok(())
    }
}
