//! Everywhere a passphrase is kept: beside the keys of identities, in the pool, in the trash.

use std::fs;
use std::path::{Path, PathBuf};

use gpg::Keygrip;

use crate::error::{Error, Result};
use crate::files::{entries_if_there, if_there};
use crate::home::Homes;
use crate::home::record::{self, KeyRecord};
use crate::identity::NameEmail;
use crate::secrets::passphrase::{Form, form_in};

/// A home with a passphrase, and the directory whose lock keeps others from moving it.
pub struct PassphraseLocation {
    /// The home.
    pub home: PathBuf,
    /// That directory. A home of the pool has none: it is claimed by a rename, not by a lock.
    pub lock: Option<PathBuf>,
}

impl PassphraseLocation {
    /// In which form the passphrase is kept; `None` when there is none that can be read, or no home any more.
    pub fn form(&self) -> Result<Option<Form>> {
        match form_in(&self.home) {
            Err(e) if e.is_damage() => Ok(None),
            form => form.map(Some),
        }
    }
}

/// All of them, in the order in which homes move on: from the pool to keys/, and to the trash.
pub fn all(homes: &Homes, pool: &Path, trash: &Path) -> Result<Vec<PassphraseLocation>> {
    let mut locations = in_pool(pool)?;
    locations.extend(in_keys(homes)?);
    locations.extend(in_trash(trash)?);
    Ok(locations)
}

/// The homes of the pool: secret keys without an identity.
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

/// The homes of identities.
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

/// The homes of removed keys.
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

/// The secret key that the passphrase in `home` opens.
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
