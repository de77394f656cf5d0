//! Looks at the files of one home: their names, sizes and modes, and `key.json`. Runs no gpg and never
//! changes anything.

use std::ffi::OsString;
use std::fs::{self, Metadata};
use std::io;
use std::path::{Path, PathBuf};

use gpg::{Fingerprint, Keygrip};

use crate::files::look;
use crate::home::Homes;
use crate::home::faults::{Fault, is_whole, judge, rank};
use crate::home::record::KeyRecord;
use crate::identity::NameEmail;
use crate::layout::{
    PASSPHRASE, PUBRING, RECORD, REVOCATIONS, SECRET_KEYS, TRUST_DATABASE, revocation_file,
};

/// A published home, as its files show it.
#[derive(Clone, Debug)]
pub struct Home {
    /// The identity that the home belongs to.
    pub name_email: NameEmail,
    /// The path of the home.
    pub path: PathBuf,
    /// The content of `key.json`, if it can be read.
    pub record: Option<KeyRecord>,
    /// The keygrip of the secret key, if there is one.
    pub keygrip: Option<Keygrip>,
    /// Everything that is not as it should be.
    pub faults: Vec<Fault>,
}

impl Home {
    /// Looks at the home of an identity; `None` if there is none. Anything that does not belong to the user
    /// `owner` is a fault.
    pub fn examine(homes: &Homes, name_email: NameEmail, owner: u32) -> Option<Self> {
        let path = homes.path(&name_email);
        let Contents { record, keygrip, faults, .. } = Contents::of(&path, owner, None)?;
        Some(Self { name_email, path, record, keygrip, faults })
    }

    /// Whether everything needed to sign is there.
    pub fn is_whole(&self) -> bool {
        is_whole(&self.faults)
    }

    /// Returns what is wrong with `key.json`, if anything.
    pub fn record_fault(&self) -> Option<&str> {
        self.faults.iter().find_map(|fault| match fault {
            Fault::Record(why) => Some(why.as_str()),
            _ => None,
        })
    }
}

/// The contents of a home, wherever it is: published, in staging, or in the pool.
#[derive(Debug)]
pub struct Contents {
    path: PathBuf,
    /// The user to whom everything must belong.
    owner: u32,
    /// The content of `key.json`, if it can be read.
    pub record: Option<KeyRecord>,
    /// The keygrip of the secret key. If there are several, it is the one known from elsewhere or named
    /// in `key.json`.
    pub keygrip: Option<Keygrip>,
    /// Everything that is not as it should be, the most important fault first.
    pub faults: Vec<Fault>,
}

impl Contents {
    /// Looks at the home at `path`; `None` if there is none. Anything that does not belong to the user
    /// `owner` is a fault. `keygrip` names the secret key that must be there, if that is known.
    pub fn of(path: &Path, owner: u32, keygrip: Option<Keygrip>) -> Option<Self> {
        let mut home = Self { path: path.into(), owner, record: None, keygrip, faults: Vec::new() };
        match look(path) {
            Ok(Some(found)) if found.is_dir() => home.look(&found),
            Ok(Some(_)) => home.damage(path, "is not a directory"),
            Ok(None) => return None,
            Err(e) => home.damage(path, e.to_string()),
        }
        // The order of directory entries is random, but faults are always in the same order.
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

    /// Finds the secret key of the home: the one that is known, or else the only one.
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

    /// Returns the fingerprint that the revocation certificate is named after. Looks for the one in
    /// `key.json` first, which saves reading a directory.
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

    /// Returns what is wrong with `key.json`, as far as the names of the files show it.
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

    /// Checks a file without which the key cannot be used.
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

    /// Lists a directory. If it cannot be read, that is damage.
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

#[allow(clippy::unwrap_used)]
#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::durable::write_new;
    use crate::files::make_directory;
    use crate::home::finishing::finish;
    use crate::scratch::scratch;
    use nix::unistd::geteuid;

    const KEY: &str = "0123456789ABCDEF0123456789ABCDEF01234567";
    const OTHER: &str = "89ABCDEF0123456789ABCDEF0123456789ABCDEF";

    fn make_whole(home: &Path) -> KeyRecord {
        for directory in ["", SECRET_KEYS, REVOCATIONS] {
            make_directory(&home.join(directory)).unwrap();
        }
        let record = KeyRecord {
            fingerprint: Fingerprint::parse(KEY).unwrap(),
            keygrip: Keygrip::parse(KEY).unwrap(),
            algorithm: "rsa2048".into(),
            created: 1,
            expires: None,
            changed: 1,
        };
        let revocation = home.join(REVOCATIONS).join(revocation_file(&record.fingerprint));
        for file in [home.join(PUBRING), home.join(PASSPHRASE), record.secret_key(home), revocation]
        {
            write_new(&file, b"x").unwrap();
        }
        record
    }

    fn faults(home: &Path) -> Vec<Fault> {
        Contents::of(home, geteuid().as_raw(), None).unwrap().faults
    }

    #[test]
    fn what_is_published_has_every_file_and_is_for_nobody_else() {
        let lacks = |what: &str| {
            let root = scratch();
            let home = root.path().join("home");
            let record = make_whole(&home);
            let path = home.join(what);
            match look(&path).unwrap() {
                Some(found) if found.is_dir() => fs::remove_dir_all(&path).unwrap(),
                _ => fs::remove_file(&path).unwrap(),
            }
            finish(&home, &record).unwrap_err().to_string()
        };
        for what in [PUBRING, PASSPHRASE, SECRET_KEYS] {
            assert!(lacks(what).contains("is missing"), "{what}: {}", lacks(what));
        }
        assert!(lacks(REVOCATIONS).contains("holds no revocation certificate"));

        let root = scratch();
        let home = root.path().join("home");
        let record = make_whole(&home);
        write_new(&home.join(TRUST_DATABASE), b"x").unwrap();
        finish(&home, &record).unwrap();
        assert_eq!(faults(&home), []);
        assert_eq!(KeyRecord::read(&home), Some(record.clone()));
        fs::remove_file(home.join(RECORD)).unwrap();
        let open = std::os::unix::fs::PermissionsExt::from_mode(0o644);
        fs::set_permissions(record.secret_key(&home), open).unwrap();
        assert!(finish(&home, &record).unwrap_err().to_string().contains("others could read it"));
    }

    #[test]
    fn of_several_secret_keys_that_of_the_record_counts() {
        let root = scratch();
        let home = root.path().join("home");
        let record = make_whole(&home);
        let other = home.join(SECRET_KEYS).join(format!("{OTHER}.key"));
        write_new(&other, b"x").unwrap();
        let two = faults(&home);
        assert!(
            matches!(&two[..], [Fault::Damage(_, why)] if why.starts_with("holds 2")),
            "{two:?}"
        );
        record.write(&home).unwrap();
        assert_eq!(faults(&home), [Fault::Strange(other.clone())]);
        assert_eq!(KeyRecord::of(&home).unwrap(), Some(record.clone()));
        fs::remove_file(record.secret_key(&home)).unwrap();
        let Some(found) = Contents::of(&home, geteuid().as_raw(), None) else { unreachable!() };
        assert_eq!(found.keygrip, Keygrip::parse(OTHER));
        assert!(
            matches!(&found.faults[..], [Fault::Record(why)] if why.contains("another secret key"))
        );
    }
}
