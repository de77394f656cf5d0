//! Finds stray cleartext copies of passphrases in a state. An administrator or a backup tool made them, or a
//! link was replaced by the file that it led to. They are reported and never removed: this program cannot know
//! whether a foreign file is worth keeping.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::error::{Error, Result};
use crate::files::if_there;
use crate::keep::passphrase_locations::{PassphraseLocation, keygrip};
use crate::layout::{PASSPHRASE, PUBRING, RECORD};
use crate::secrets::passphrase::{Passphrases, beginning_of, first_line};
use crate::secrets::sealing_key::is_sealed;
use crate::state::foreign_files::DEPTH_MAX;

/// Returns the files below the state directory `root` whose first line is the passphrase of one of `locations`,
/// sorted. The passphrase files of these locations themselves are not included.
pub fn find(
    root: &Path,
    locations: &[PassphraseLocation],
    passphrases: &Passphrases,
) -> Result<Vec<PathBuf>> {
    let mut known = KnownPhrases { phrases: HashSet::new(), homes: HashSet::new() };
    for PassphraseLocation { home, .. } in locations {
        known.homes.insert(home.join(PASSPHRASE));
        let Some(keygrip) = keygrip(home)? else { continue };
        // A passphrase that cannot be read has been reported already.
        if let Ok(phrase) = passphrases.read(home, &keygrip) {
            known.phrases.insert(Sha256::digest(&*phrase).into());
        }
    }
    let mut copies = Vec::new();
    known.walk(root, 0, &mut copies)?;
    copies.sort();
    Ok(copies)
}

struct KnownPhrases {
    /// The SHA-256 of every passphrase.
    phrases: HashSet<[u8; 32]>,
    /// The passphrase files of the homes.
    homes: HashSet<PathBuf>,
}

impl KnownPhrases {
    fn walk(&self, directory: &Path, depth: usize, copies: &mut Vec<PathBuf>) -> Result<()> {
        let failed = Error::at("reading", directory);
        // The directory may have gone, as work in staging may at any time.
        let entries = if_there(fs::read_dir(directory)).map_err(failed)?;
        for entry in entries.into_iter().flatten() {
            let entry = entry.map_err(failed)?;
            let path = entry.path();
            let Some(kind) = if_there(entry.file_type()).map_err(failed)? else { continue };
            if kind.is_dir() && depth < DEPTH_MAX {
                self.walk(&path, depth + 1, copies)?;
            } else if kind.is_file() && !self.is_ours(&path) && self.holds_phrase(&path)? {
                copies.push(path);
            }
        }
        Ok(())
    }

    /// Whether the file need not be searched. It is the passphrase file of a home, or has the name of a file
    /// that every home holds.
    fn is_ours(&self, path: &Path) -> bool {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let is_of_home = [PUBRING, RECORD].contains(&name);
        let ends = [".key", ".rev"].iter().any(|end| name.ends_with(end));
        is_of_home || ends || self.homes.contains(path)
    }

    fn holds_phrase(&self, path: &Path) -> Result<bool> {
        let Some(content) = beginning_of(path)? else { return Ok(false) };
        let line = first_line(&content);
        let is_one = || self.phrases.contains(&<[u8; 32]>::from(Sha256::digest(line)));
        Ok(!is_sealed(line) && is_one())
    }
}
