//! Finds every place where a passphrase is stored: with the keys of identities, in the pool, and in the trash.

use std::fs;
use std::path::{Path, PathBuf};

use gpg::Keygrip;

use crate::error::{Error, Result};
use crate::files::{entries_if_there, if_there};
use crate::home::Homes;
use crate::home::record::{self, KeyRecord};
use crate::identity::NameEmail;
use crate::secrets::passphrase::{Form, form_in};

/// A home with a passphrase, and the directory whose lock keeps other processes from moving the home.
pub struct PassphraseLocation {
    /// The path of the home.
    pub home: PathBuf,
    /// The directory to lock. A home of the pool has none: it is claimed by a rename, not by a lock.
    pub lock: Option<PathBuf>,
}

impl PassphraseLocation {
    /// Returns the form in which the passphrase is stored. Returns `None` if the file is not usable, or the
    /// home has gone.
    pub fn form(&self) -> Result<Option<Form>> {
        match form_in(&self.home) {
            Err(e) if e.is_damage() => Ok(None),
            form => form.map(Some),
        }
    }
}

/// Returns all locations, in the order in which homes move: from the pool to `keys/`, and from there to the
/// trash.
pub fn all(homes: &Homes, pool: &Path, trash: &Path) -> Result<Vec<PassphraseLocation>> {
    let mut locations = in_pool(pool)?;
    locations.extend(in_keys(homes)?);
    locations.extend(in_trash(trash)?);
    Ok(locations)
}

/// Returns the homes of the pool: secret keys without an identity.
pub fn in_pool(pool: &Path) -> Result<Vec<PassphraseLocation>> {
    let mut locations = Vec::new();
    for length in entries_if_there(pool)? {
        for home in entries_if_there(&length)? {
            if is_directory(&home)? {
                locations.push(PassphraseLocation { home, lock: None });
            }
        }
    }
    Ok(locations)
}

/// Returns the homes of identities.
fn in_keys(homes: &Homes) -> Result<Vec<PassphraseLocation>> {
    let mut locations = Vec::new();
    for home in entries_if_there(homes.directory())? {
        let name = home.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if NameEmail::parse(name).is_ok() {
            locations.push(PassphraseLocation { lock: Some(home.clone()), home });
        }
    }
    Ok(locations)
}

/// Returns the homes of removed keys.
pub fn in_trash(trash: &Path) -> Result<Vec<PassphraseLocation>> {
    let mut locations = Vec::new();
    for entry in entries_if_there(trash)? {
        let home = entry.join("home");
        if is_directory(&home)? {
            locations.push(PassphraseLocation { home, lock: Some(entry) });
        }
    }
    Ok(locations)
}

/// Returns the keygrip of the secret key that the passphrase in `home` opens. Returns `None` if `key.json` does
/// not name it and the home does not hold exactly one secret key.
pub fn keygrip(home: &Path) -> Result<Option<Keygrip>> {
    if let Some(record) = KeyRecord::of(home)? {
        return Ok(Some(record.keygrip));
    }
    Ok(<[_; 1]>::try_from(record::secret_keys(home)?).ok().map(|[keygrip]| keygrip))
}

fn is_directory(path: &Path) -> Result<bool> {
    let found = if_there(fs::metadata(path)).map_err(Error::at("looking at", path))?;
    Ok(found.is_some_and(|found| found.is_dir()))
}
