//! The start and the end that modes share: opening the state, and reporting that some of many keys failed.

use std::io;
use std::path::Path;

use gpg::Gpg;
use keystore::remedy::quote_path;
use keystore::{Key, NameEmail, Store};
use nix::unistd::geteuid;
use serde_json::Value;

use super::output;
use crate::error::{Error, Result};
use crate::settings::Settings;
use crate::systemd::systemctl;

/// Opens the state for a mode that works on its keys.
pub fn open(settings: &Settings) -> Result<Store> {
    Store::open(&settings.keystore()?, settings.gnupg()?)
}

/// Opens the state like [`open`], but fails if gpg does not work. For a mode that must not begin without it.
pub fn open_with_gpg(settings: &Settings) -> Result<Store> {
    Store::open(&settings.keystore()?, working_gpg(settings)?)
}

/// Opens the state like [`open_with_gpg`], but accepts one that has lost its keys. For a
/// mode that brings the missing keys back.
pub fn open_to_fill(settings: &Settings) -> Result<Store> {
    Store::open_to_fill(&settings.keystore()?, working_gpg(settings)?)
}

/// Returns gpg after checking that it is installed and what version it has.
pub fn working_gpg(settings: &Settings) -> Result<Gpg> {
    let gpg = settings.gnupg()?;
    gpg.check_installed()?;
    Ok(gpg)
}

/// Yields the keys that can be read. Logs each other one and counts it in `unreadable`.
pub fn readable(
    keys: impl Iterator<Item = Result<Key>>,
    unreadable: &mut usize,
) -> impl Iterator<Item = Key> {
    keys.filter_map(|key| {
        key.inspect_err(|e| {
            log::error!("{e}");
            *unreadable += 1;
        })
        .ok()
    })
}

/// Returns the result of a mode that works on many keys: [`Error::Partly`] with `words` unless `is_so`. The
/// mode has already reported each failure; `words` says how many there were.
pub fn all_done(is_so: bool, words: impl FnOnce() -> String) -> Result<()> {
    if is_so { Ok(()) } else { Err(Error::Partly(words())) }
}

/// Does `work` for each name that the operator gave. With a single name, a failure ends the mode. With
/// several, each failure is logged and returned as a JSON entry, and the others go on.
pub fn each<T>(
    names: &[NameEmail],
    mut work: impl FnMut(&NameEmail) -> Result<T>,
) -> Result<(Vec<T>, Vec<Value>)> {
    let (mut done, mut failed) = (Vec::new(), Vec::new());
    for name_email in names {
        match work(name_email) {
            Ok(result) => done.push(result),
            Err(e) if names.len() == 1 || matches!(e, Error::Interrupted { .. }) => return Err(e),
            Err(e) => {
                log::error!("{name_email}: {e}");
                failed.push(output::failure(name_email, &e));
            }
        }
    }
    Ok((done, failed))
}

/// Returns the result of a mode after [`each`]; `what` names the failure, like "could not be shown".
pub fn all_named(failed: &[Value], names: &[NameEmail], what: &str) -> Result<()> {
    let (failed, all) = (failed.len(), names.len());
    all_done(failed == 0, || format!("{failed} of {all} keys {what}, see above"))
}

/// Fails if the directory `state` holds no state. `keys/` decides: tmpfiles.d creates it
/// on a new host, and nothing removes it.
pub fn require_state(state: &Path) -> Result<()> {
    let keys = state.join("keys");
    let why = match std::fs::metadata(&keys) {
        Ok(found) if found.is_dir() => return Ok(()),
        Ok(_) => "keys in it is not a directory",
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            if state.is_dir() {
                "it holds no keys/"
            } else {
                "no such directory"
            }
        }
        Err(e) => return Err(Error::io(format!("looking at {}", keys.display()), e)),
    };
    // If the keys of the old service are there, say so: that explains more than a missing state.
    Store::check_is_ours(state)?;
    Err(Error::Settings(format!(
        "there is no state at {}: {why}; is the setting state_dir right? The modes serve, import and \
         restore make a state, no other does",
        state.display()
    )))
}

/// Fails if systemd knows of a volume for the state that is not mounted. The units ensure the mount
/// themselves; this check is for an operator. tmpfiles.d creates `keys/` below the mount point, and a key
/// that exists on the volume would be made anew there.
pub fn require_mounted(state: &Path) -> Result<()> {
    if !geteuid().is_root() || !Path::new("/run/systemd/system").is_dir() {
        return Ok(());
    }
    match systemctl::unmounted(state) {
        None => Ok(()),
        Some(place) => Err(Error::Settings(format!(
            "{place}: what is to be mounted there is not, so the keys are elsewhere; to mount it: \
             systemctl start {}",
            quote_path(Path::new(&place))
        ))),
    }
}
