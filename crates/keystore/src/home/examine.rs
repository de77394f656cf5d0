//! Looks at the files of one published home: names, sizes, modes and `key.json`. It runs no gpg and
//! never changes anything.

use std::ffi::{OsStr, OsString};
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use gpg::{Fingerprint, Keygrip};

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
    /// The secret key, if there is exactly one.
    pub keygrip: Option<Keygrip>,
    /// All that is not as it should be.
    pub faults: Vec<Fault>,
}

impl Home {
    /// Whether everything is there that it takes to sign.
    pub fn is_whole(&self) -> bool {
        !self.faults.iter().any(|fault| matches!(fault, Fault::Damage(..) | Fault::Empty))
    }

    /// What is wrong with `key.json`.
    pub fn record_fault(&self) -> Option<&str> {
        self.faults.iter().find_map(|fault| match fault {
            Fault::Record(why) => Some(why.as_str()),
            _ => None,
        })
    }

    /// Looks at the home of an identity; `None` when there is none. Whatever does not belong to the
    /// user `owner` is a fault.
    pub fn examine(homes: &Homes, name_email: NameEmail, owner: u32) -> Option<Self> {
        let path = homes.path(&name_email);
        let mut home = Self { name_email, record: None, keygrip: None, faults: Vec::new(), path };
        match fs::symlink_metadata(&home.path) {
            Ok(found) if found.is_dir() => home.look(owner, &found),
            Ok(_) => home.damage(home.path.clone(), "is not a directory"),
            Err(e) if e.kind() == io::ErrorKind::NotFound => return None,
            Err(e) => home.damage(home.path.clone(), format!("cannot be looked at: {e}")),
        }
        // A certain order, whatever that of the directory is.
        home.faults.sort_by(|a, b| rank(a).cmp(&rank(b)));
        Some(home)
    }

    fn look(&mut self, owner: u32, found: &Metadata) {
        let home = self.path.clone();
        self.judge(&home, found, owner);
        let mut missing = vec![PUBRING, PASSPHRASE, SECRET_KEYS];
        let mut has_record = false;
        let mut revocations = None;
        let Some(entries) = self.list(&home) else { return };
        if entries.is_empty() {
            self.faults.push(Fault::Empty);
            return;
        }
        for (name, found) in entries {
            let path = home.join(&name);
            missing.retain(|known| name != **known);
            match name.to_str() {
                Some(PUBRING | PASSPHRASE) => self.file(path, &found, owner),
                Some(RECORD) => {
                    has_record = true;
                    self.judge(&path, &found, owner);
                }
                Some(SECRET_KEYS) => self.secret_keys(path, &found, owner),
                Some(REVOCATIONS) => revocations = Some((path, found)),
                Some(TRUST_DATABASE) => {
                    self.judge(&path, &found, owner);
                    self.faults.push(Fault::TrustDatabase(path));
                }
                _ => self.faults.push(Fault::Strange(path)),
            }
        }
        for name in missing {
            self.damage(home.join(name), "is missing");
        }
        if has_record {
            self.record = KeyRecord::read(&home);
        }
        let fingerprint =
            revocations.and_then(|(path, found)| self.revocation(path, &found, owner));
        if !self.is_whole() {
            self.name_lost_secret_key();
            return;
        }
        if fingerprint.is_none() {
            self.faults.push(Fault::NoRevocation(home.join(REVOCATIONS)));
        }
        if let Some(why) = self.disagreement(has_record, fingerprint.as_ref()) {
            self.faults.push(Fault::Record(why));
        }
    }

    /// Every secret key of the home. Exactly one is as it must be.
    fn secret_keys(&mut self, directory: PathBuf, found: &Metadata, owner: u32) {
        let mut grips = Vec::new();
        for (name, found) in self.list_directory(&directory, found, owner) {
            let path = directory.join(&name);
            match Keygrip::from_file_name(&name) {
                Some(grip) => {
                    self.file(path, &found, owner);
                    grips.push(grip);
                }
                None => self.faults.push(Fault::Strange(path)),
            }
        }
        match <[_; 1]>::try_from(grips) {
            Ok([grip]) => self.keygrip = Some(grip),
            Err(none) if none.is_empty() => self.damage(directory, "holds no secret key"),
            Err(many) => {
                self.damage(directory, format!("holds {} secret keys instead of one", many.len()));
            }
        }
    }

    /// The fingerprint that the revocation certificate is named after. The one that `key.json` tells is
    /// looked for first, which saves reading a directory.
    fn revocation(&mut self, path: PathBuf, found: &Metadata, owner: u32) -> Option<Fingerprint> {
        let told = self.record.as_ref().map(|record| record.fingerprint.clone());
        if let Some(told) = told.filter(|_| found.is_dir()) {
            let file = path.join(revocation_file(&told));
            if let Ok(found_file) = fs::symlink_metadata(&file) {
                if found_file.is_file() && found_file.len() > 0 {
                    self.judge(&path, found, owner);
                    self.judge(&file, &found_file, owner);
                    return Some(told);
                }
            }
        }
        let mut fingerprint = None;
        for (name, found) in self.list_directory(&path, found, owner) {
            let stem = name.to_str().and_then(|name| name.strip_suffix(".rev"));
            match stem.and_then(Fingerprint::parse) {
                Some(named) => {
                    self.judge(&path.join(&name), &found, owner);
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

    /// Names the file that is missing, when `key.json` knows it.
    fn name_lost_secret_key(&mut self) {
        let Some(lost) = self.record.as_ref().map(|record| record.secret_key(&self.path)) else {
            return;
        };
        for fault in &mut self.faults {
            if matches!(fault, Fault::Damage(_, why) if why == "holds no secret key") {
                *fault = Fault::Damage(lost.clone(), "is missing".into());
            }
        }
    }

    /// A file that the key cannot do without.
    fn file(&mut self, path: PathBuf, found: &Metadata, owner: u32) {
        self.judge(&path, found, owner);
        if !found.is_file() || found.len() == 0 {
            self.damage(path, "is empty or not a regular file");
        }
    }

    fn list_directory(
        &mut self,
        path: &Path,
        found: &Metadata,
        owner: u32,
    ) -> Vec<(OsString, Metadata)> {
        self.judge(path, found, owner);
        if !found.is_dir() {
            self.damage(path.into(), "is not a directory");
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
                self.damage(path.into(), format!("cannot be read: {e}"));
                None
            }
        }
    }

    fn judge(&mut self, path: &Path, found: &Metadata, owner: u32) {
        self.faults.extend(judge(path, found, owner));
    }

    fn damage(&mut self, path: PathBuf, why: impl Into<String>) {
        self.faults.push(Fault::Damage(path, why.into()));
    }
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
