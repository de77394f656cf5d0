//! Looks at the files of one published home: names, sizes, modes and `key.json`. It runs no gpg and
//! never changes anything.

use std::ffi::{OsStr, OsString};
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use gpg::{Fingerprint, Keygrip};
use nix::unistd::geteuid;

use crate::error::{Error, Result};
use crate::files::{entries, look, remove_file, remove_tree};
use crate::home::Homes;
use crate::home::record::KeyRecord;
use crate::identity::NameEmail;
use crate::layout::{
    DIRECTORY_MODE, FILE_MODE, PASSPHRASE, PUBRING, RECORD, REVOCATIONS, SECRET_KEYS,
    TRUST_DATABASE, revocation_file,
};

/// Something about a home that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The key cannot be used: this is missing, empty or too much.
    Damage(PathBuf, String),
    /// There is nothing in it at all: what is left of an identity that has no key.
    Empty,
    /// There is no revocation certificate. The key signs without it.
    NoRevocation(PathBuf),
    /// `key.json` is missing or does not agree with the files beside it.
    Record(String),
    /// Path, mode found, mode wanted.
    Mode(PathBuf, u32, u32),
    /// Path and whose it is.
    Owner(PathBuf, u32),
    /// A file that does not belong into a home.
    Strange(PathBuf),
    /// A trust database.
    TrustDatabase(PathBuf),
}

/// A published home as its files tell.
#[derive(Clone, Debug)]
pub struct Home {
    /// Whose it is.
    pub name_email: NameEmail,
    /// Where it is.
    pub path: PathBuf,
    /// What `key.json` says, if it can be read.
    pub record: Option<KeyRecord>,
    /// The secret key, if there is one.
    pub keygrip: Option<Keygrip>,
    /// All that is not as it should be.
    pub faults: Vec<Fault>,
}

impl Home {
    /// Looks at the home of an identity; `None` when there is none. Whatever does not belong to the
    /// user `owner` is a fault.
    pub fn examine(homes: &Homes, name_email: NameEmail, owner: u32) -> Option<Self> {
        let path = homes.path(&name_email);
        let Contents { record, keygrip, faults, .. } = Contents::of(&path, owner, None)?;
        Some(Self { name_email, path, record, keygrip, faults })
    }

    /// Whether everything is there that it takes to sign.
    pub fn is_whole(&self) -> bool {
        is_whole(&self.faults)
    }

    /// What is wrong with `key.json`.
    pub fn record_fault(&self) -> Option<&str> {
        self.faults.iter().find_map(|fault| match fault {
            Fault::Record(why) => Some(why.as_str()),
            _ => None,
        })
    }
}

fn is_whole(faults: &[Fault]) -> bool {
    !faults.iter().any(|fault| matches!(fault, Fault::Damage(..) | Fault::Empty))
}

/// What is in a home, wherever that is: published, in staging, or in the pool.
#[derive(Debug)]
pub struct Contents {
    path: PathBuf,
    /// Whom everything must belong to.
    owner: u32,
    /// What `key.json` says, if it can be read.
    pub record: Option<KeyRecord>,
    /// The secret key. Of several, the one that is known from elsewhere or named by `key.json`.
    pub keygrip: Option<Keygrip>,
    /// All that is not as it should be, that which matters most in front.
    pub faults: Vec<Fault>,
}

impl Contents {
    /// Looks at the home in `path`; `None` when there is none. Whatever does not belong to the user `owner`
    /// is a fault. `keygrip` is the secret key that must be there, if that is known.
    pub fn of(path: &Path, owner: u32, keygrip: Option<Keygrip>) -> Option<Self> {
        let mut home = Self { path: path.into(), owner, record: None, keygrip, faults: Vec::new() };
        match look(path) {
            Ok(Some(found)) if found.is_dir() => home.look(&found),
            Ok(Some(_)) => home.damage(path, "is not a directory"),
            Ok(None) => return None,
            Err(e) => home.damage(path, e.to_string()),
        }
        // The order of a directory is left to chance; this one is not.
        home.faults.sort_by(|a, b| rank(a).cmp(&rank(b)));
        Some(home)
    }

    fn look(&mut self, found: &Metadata) {
        let home = self.path.clone();
        self.judge(&home, found);
        let mut missing = vec![PUBRING, PASSPHRASE, SECRET_KEYS];
        let mut has_record = false;
        let mut revocations = None;
        let Some(entries) = self.list(&home) else { return };
        self.record = KeyRecord::read(&home);
        if entries.is_empty() {
            self.faults.push(Fault::Empty);
            return;
        }
        for (name, found) in entries {
            let path = home.join(&name);
            missing.retain(|known| name != **known);
            match name.to_str() {
                Some(PUBRING | PASSPHRASE) => self.file(&path, &found),
                Some(RECORD) => {
                    has_record = true;
                    self.judge(&path, &found);
                }
                Some(SECRET_KEYS) => self.secret_keys(path, &found),
                Some(REVOCATIONS) => revocations = Some((path, found)),
                Some(TRUST_DATABASE) => {
                    self.judge(&path, &found);
                    self.faults.push(Fault::TrustDatabase(path));
                }
                _ => self.faults.push(Fault::Strange(path)),
            }
        }
        for name in missing {
            self.damage(&home.join(name), "is missing");
        }
        let fingerprint = revocations.and_then(|(path, found)| self.revocation(path, &found));
        if !is_whole(&self.faults) {
            return;
        }
        if fingerprint.is_none() {
            self.faults.push(Fault::NoRevocation(home.join(REVOCATIONS)));
        }
        if let Some(why) = self.disagreement(has_record, fingerprint.as_ref()) {
            self.faults.push(Fault::Record(why));
        }
    }

    /// The secret key of the home: the one that is known, or else the only one.
    fn secret_keys(&mut self, directory: PathBuf, found: &Metadata) {
        let mut grips = Vec::new();
        for (name, found) in self.list_directory(&directory, found) {
            let path = directory.join(&name);
            match Keygrip::from_file_name(&name) {
                Some(grip) => grips.push((grip, path, found)),
                None => self.faults.push(Fault::Strange(path)),
            }
        }
        let told = self.record.as_ref().map(|record| &record.keygrip);
        let known = self.keygrip.take().or_else(|| told.cloned());
        let place = grips.iter().position(|(grip, ..)| Some(grip) == known.as_ref());
        let (grip, path, found) = match (place, grips.len()) {
            (Some(place), _) => grips.swap_remove(place),
            (None, 1) => grips.swap_remove(0),
            (None, 0) => {
                return match known {
                    Some(lost) => self.damage(&directory.join(lost.file_name()), "is missing"),
                    None => self.damage(&directory, "holds no secret key"),
                };
            }
            (None, many) => {
                return self.damage(&directory, format!("holds {many} secret keys instead of one"));
            }
        };
        self.file(&path, &found);
        self.keygrip = Some(grip);
        self.faults.extend(grips.into_iter().map(|(_, path, _)| Fault::Strange(path)));
    }

    /// The fingerprint that the revocation certificate is named after. The one that `key.json` tells is
    /// looked for first, which saves reading a directory.
    fn revocation(&mut self, path: PathBuf, found: &Metadata) -> Option<Fingerprint> {
        let told = self.record.as_ref().map(|record| record.fingerprint.clone());
        if let Some(told) = told.filter(|_| found.is_dir()) {
            let file = path.join(revocation_file(&told));
            if let Ok(found_file) = fs::symlink_metadata(&file) {
                if found_file.is_file() && found_file.len() > 0 {
                    self.judge(&path, found);
                    self.judge(&file, &found_file);
                    return Some(told);
                }
            }
        }
        let mut fingerprint = None;
        for (name, found) in self.list_directory(&path, found) {
            let stem = name.to_str().and_then(|name| name.strip_suffix(".rev"));
            match stem.and_then(Fingerprint::parse) {
                Some(named) => {
                    self.judge(&path.join(&name), &found);
                    if found.is_file() && found.len() > 0 {
                        fingerprint = Some(named);
                    }
                }
                None => self.faults.push(Fault::Strange(path.join(&name))),
            }
        }
        fingerprint
    }

    /// What is wrong with `key.json`, as far as the names of the files tell.
    fn disagreement(&self, is_there: bool, revocation: Option<&Fingerprint>) -> Option<String> {
        let Some(record) = &self.record else {
            return Some(if is_there { "cannot be understood" } else { "is missing" }.into());
        };
        if self.keygrip.as_ref().is_some_and(|grip| *grip != record.keygrip) {
            return Some("names another secret key than the one that is there".into());
        }
        if revocation.is_some_and(|fingerprint| *fingerprint != record.fingerprint) {
            return Some("names another fingerprint than the revocation certificate".into());
        }
        if record.created == 0 || record.expires.is_some_and(|at| at <= record.created) {
            return Some("has times that cannot be".into());
        }
        None
    }

    /// A file that the key cannot do without.
    fn file(&mut self, path: &Path, found: &Metadata) {
        self.judge(path, found);
        if !found.is_file() || found.len() == 0 {
            self.damage(path, "is empty or not a regular file");
        }
    }

    fn list_directory(&mut self, path: &Path, found: &Metadata) -> Vec<(OsString, Metadata)> {
        self.judge(path, found);
        if !found.is_dir() {
            self.damage(path, "is not a directory");
            return Vec::new();
        }
        self.list(path).unwrap_or_default()
    }

    /// What is in a directory. One that cannot be read is a damage.
    fn list(&mut self, path: &Path) -> Option<Vec<(OsString, Metadata)>> {
        let listed: io::Result<Vec<_>> = fs::read_dir(path).and_then(|entries| {
            entries.map(|entry| entry.and_then(|e| Ok((e.file_name(), e.metadata()?)))).collect()
        });
        match listed {
            Ok(entries) => Some(entries),
            Err(e) => {
                self.damage(path, format!("cannot be read: {e}"));
                None
            }
        }
    }

    fn judge(&mut self, path: &Path, found: &Metadata) {
        self.faults.extend(judge(path, found, self.owner));
    }

    fn damage(&mut self, path: &Path, why: impl Into<String>) {
        self.faults.push(Fault::Damage(path.into(), why.into()));
    }
}

/// Finishes the home of staging in `path`, of the key `record`: writes `key.json`, removes what does not belong
/// into a published home, and fails when it is not whole or others could read it.
pub fn finish(path: &Path, record: &KeyRecord) -> Result<()> {
    record.write(path)?;
    remove_leftovers(path)?;
    let missing = || Error::damaged(path, "is missing");
    let home = Contents::of(path, geteuid().as_raw(), None).ok_or_else(missing)?;
    match home.faults.iter().find(|fault| !matches!(fault, Fault::Strange(_))) {
        None if home.keygrip.as_ref() == Some(&record.keygrip) => Ok(()),
        None => Err(Error::damaged(&record.secret_key(path), "is missing")),
        Some(fault) => Err(fault.error(path)),
    }
}

/// As [`finish`], of a key that gpg has made: it is gpg's failure when that is not whole.
pub fn finish_made(path: &Path, record: &KeyRecord) -> Result<()> {
    finish(path, record).map_err(|error| match error.is_damage() {
        true => Error::Gpg(gpg::Error::Failed {
            how: "what it left is not a whole key".into(),
            words: error.to_string(),
        }),
        false => error,
    })
}

/// Removes everything from a staged home that does not belong into a published one: sockets, lock
/// files, the trust database, gpg's copy of the keyring.
pub fn remove_leftovers(home: &Path) -> Result<()> {
    keep_only(home, &[PUBRING, PASSPHRASE, SECRET_KEYS, REVOCATIONS, RECORD])
}

/// Removes everything from a staged home but the entries named.
pub fn keep_only(home: &Path, keep: &[&str]) -> Result<()> {
    for path in entries(home)? {
        if keep.iter().any(|name| path.ends_with(name)) {
            continue;
        }
        match look(&path)? {
            Some(found) if found.is_dir() => remove_tree(&path)?,
            _ => remove_file(&path)?,
        }
    }
    Ok(())
}

/// Owner and mode of one file or directory of the state.
pub fn judge(path: &Path, found: &Metadata, owner: u32) -> Vec<Fault> {
    let mut faults = Vec::new();
    if owner != found.uid() {
        faults.push(Fault::Owner(path.into(), found.uid()));
    }
    let wanted = match found.file_type() {
        kind if kind.is_dir() => DIRECTORY_MODE,
        kind if kind.is_file() => FILE_MODE,
        _ => return faults,
    };
    // Directories in a volume of a group inherit its set-group-ID bit, which opens them for nobody.
    let inherited = if found.is_dir() { 0o2000 } else { 0 };
    let mode = found.mode() & 0o7777 & !inherited;
    if mode != wanted {
        faults.push(Fault::Mode(path.into(), mode, wanted));
    }
    faults
}

impl Fault {
    /// Whether it says that this file of the home is missing.
    pub fn is_missing(&self, name: &str) -> bool {
        matches!(self, Self::Damage(path, why) if path.ends_with(name) && why == "is missing")
    }

    /// This fault of the home in `home` as an error.
    pub fn error(&self, home: &Path) -> Error {
        match self {
            Self::Damage(path, why) => Error::damaged(path, why.as_str()),
            Self::Empty => Error::damaged(home, "is empty"),
            Self::NoRevocation(path) => Error::damaged(path, "holds no revocation certificate"),
            Self::Record(why) => Error::damaged(&home.join(RECORD), why.as_str()),
            Self::Mode(path, mode, _) if *mode & 0o077 != 0 => {
                Error::damaged(path, format!("has mode {mode:03o}, others could read it"))
            }
            Self::Mode(path, mode, wanted) => {
                Error::damaged(path, format!("has mode {mode:03o} instead of {wanted:03o}"))
            }
            Self::Owner(path, uid) => Error::damaged(path, format!("belongs to uid {uid}")),
            Self::Strange(path) | Self::TrustDatabase(path) => {
                Error::damaged(path, "does not belong into a home")
            }
        }
    }
}

fn rank(fault: &Fault) -> (u8, &OsStr) {
    match fault {
        Fault::Damage(path, _) => (0, path.as_os_str()),
        Fault::Empty => (1, OsStr::new("")),
        Fault::Record(_) => (2, OsStr::new("")),
        Fault::Owner(path, _) => (3, path.as_os_str()),
        Fault::Mode(path, ..) => (4, path.as_os_str()),
        Fault::NoRevocation(path) => (5, path.as_os_str()),
        Fault::TrustDatabase(path) => (6, path.as_os_str()),
        Fault::Strange(path) => (7, path.as_os_str()),
    }
}
