//! Everywhere a passphrase is kept: beside the keys of identities, in the pool, in the trash.

use std::fs;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::gpg::Keygrip;
use crate::identity::NameEmail;
use crate::keys::home::{self, Homes};
use crate::keys::record::KeyRecord;

/// A home with a passphrase, and the directory whose lock keeps others from moving it.
pub struct Place {
    /// The home.
    pub home: PathBuf,
    /// That directory; nobody locks a home of the pool, it is claimed by a rename.
    pub lock: Option<PathBuf>,
}

/// All of them, in the order in which homes move on: from the pool to keys/, and to the trash.
pub fn all(homes: &Homes, pool: &Path, trash: &Path) -> Result<Vec<Place>> {
    let mut places = in_pool(pool)?;
    places.extend(in_keys(homes)?);
    places.extend(in_trash(trash)?);
    Ok(places)
}

/// Those of the pool: secret keys that are nobody's yet.
pub fn in_pool(pool: &Path) -> Result<Vec<Place>> {
    let mut places = Vec::new();
    for length in entries(pool)? {
        let homes = entries(&length)?.into_iter().filter(|home| home.is_dir());
        places.extend(homes.map(|home| Place { home, lock: None }));
    }
    Ok(places)
}

/// Those of identities.
fn in_keys(homes: &Homes) -> Result<Vec<Place>> {
    let mut places = Vec::new();
    for home in entries(homes.directory())? {
        let name = home.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if NameEmail::parse(name).is_ok() {
            places.push(Place { lock: Some(home.clone()), home });
        }
    }
    Ok(places)
}

/// Those of keys that were removed.
pub fn in_trash(trash: &Path) -> Result<Vec<Place>> {
    let entries = entries(trash)?.into_iter();
    let places = entries.map(|entry| Place { home: entry.join("home"), lock: Some(entry) });
    Ok(places.filter(|place| place.home.is_dir()).collect())
}

/// The secret key that the passphrase in `home` opens.
pub fn keygrip(home: &Path) -> Option<Keygrip> {
    KeyRecord::of(home)
        .map(|record| record.keygrip)
        .or_else(|| <[_; 1]>::try_from(home::secret_keys(home)).ok().map(|[keygrip]| keygrip))
}

/// The paths in a directory; none when it is none.
fn entries(directory: &Path) -> Result<Vec<PathBuf>> {
    let failed = |e| Error::io(format!("reading {}", directory.display()), e);
    match fs::read_dir(directory) {
        Ok(entries) => entries.map(|e| e.map(|e| e.path()).map_err(failed)).collect(),
        Err(e) if is_no_directory(&e) => Ok(Vec::new()),
        Err(e) => Err(failed(e)),
    }
}

fn is_no_directory(error: &std::io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENOTDIR))
}
