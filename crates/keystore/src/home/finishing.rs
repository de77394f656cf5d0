//! Finishes a staged home. A published home is whole, holds nothing else, and is for its owner only.

use std::path::{Path, PathBuf};

use nix::unistd::geteuid;

use crate::error::{Error, Result};
use crate::files::{durable, entries, is_there, look, remove_file, remove_tree};
use crate::home::contents::Contents;
use crate::home::faults::Fault;
use crate::home::record::KeyRecord;
use crate::layout::{PASSPHRASE, PUBRING, RECORD, REVOCATIONS, SECRET_KEYS, TRUST_DATABASE};

/// The entries of a published home.
const PUBLISHED: [&str; 5] = [PUBRING, PASSPHRASE, SECRET_KEYS, REVOCATIONS, RECORD];

/// Finishes the staged home at `path`, which holds the key `record`. Writes `key.json`, and removes everything
/// that does not belong into a published home. Fails if the home is not whole, or if others could read it.
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

/// Finishes a staged home as [`finish`] does, for a key that gpg has made. If that key is not whole, the
/// error is a failure of gpg.
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
    keep_only(home, &PUBLISHED)
}

/// Moves everything from a home that does not belong into a published one to the directory `aside`. A name
/// that is taken there gets a number.
pub fn set_leftovers_aside(home: &Path, aside: &Path) -> Result<()> {
    for path in entries_except(home, &PUBLISHED)? {
        // gpg makes a trust database wherever it looks at a certificate.
        if path.ends_with(TRUST_DATABASE) && look(&path)?.is_some_and(|found| found.is_file()) {
            remove_file(&path)?;
            continue;
        }
        let name = path.file_name().unwrap_or_default();
        let mut to = aside.join(name);
        let mut number = 1;
        while is_there(&to)? {
            let mut numbered = name.to_owned();
            numbered.push(format!(".{number}"));
            to = aside.join(numbered);
            number += 1;
        }
        durable::rename(&path, &to).map_err(Error::at("setting aside", &path))?;
        log::warn!("{}: does not belong into a home; it is {} now", path.display(), to.display());
    }
    Ok(())
}

/// Removes everything from a staged home except the entries named in `keep`.
pub fn keep_only(home: &Path, keep: &[&str]) -> Result<()> {
    for path in entries_except(home, keep)? {
        match look(&path)? {
            Some(found) if found.is_dir() => remove_tree(&path)?,
            _ => remove_file(&path)?,
        }
    }
    Ok(())
}

fn entries_except(home: &Path, names: &[&str]) -> Result<Vec<PathBuf>> {
    let mut found = entries(home)?;
    found.retain(|path| !names.iter().any(|name| path.ends_with(name)));
    Ok(found)
}
