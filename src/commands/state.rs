//! The beginnings and ends that modes share: opening the state, and saying that some of many things failed.

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

/// Opens the state for a mode that works on it.
pub fn open(settings: &Settings) -> Result<Store> {
    Store::open(&settings.keystore()?, settings.gnupg()?)
}

/// As [`open`], for a mode that must not begin anything without a gpg that works.
pub fn open_with_gpg(settings: &Settings) -> Result<Store> {
    Store::open(&settings.keystore()?, working_gpg(settings)?)
}

/// As [`open_with_gpg`], for a mode that brings keys back that are missing.
pub fn open_to_fill(settings: &Settings) -> Result<Store> {
    Store::open_to_fill(&settings.keystore()?, working_gpg(settings)?)
}

/// gpg, after a look at its version.
pub fn working_gpg(settings: &Settings) -> Result<Gpg> {
    let gpg = settings.gnupg()?;
    gpg.check_installed()?;
    Ok(gpg)
}

/// The keys that can be read. The others are logged and counted.
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

/// Ends a mode that works on many things. Each of those that failed has been reported; `words` says how many
/// there were.
pub fn all_done(is_so: bool, words: impl FnOnce() -> String) -> Result<()> {
    if is_so { Ok(()) } else { Err(Error::Partly(words())) }
}

/// Does `work` for each of the names that an operator gave. The failure of a single name ends the mode. Of
/// several names, each failure is logged and kept as it is reported in JSON.
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

/// Ends a mode after [`each`]; `what` names the failure, like "could not be shown".
pub fn all_named(failed: &[Value], names: &[NameEmail], what: &str) -> Result<()> {
    let (failed, all) = (failed.len(), names.len());
    all_done(failed == 0, || format!("{failed} of {all} keys {what}, see above"))
}

/// Whether there is a state: tmpfiles.d makes `keys/` on a new host, and nothing removes it.
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
    // Keys of the old service explain more than a missing state.
    Store::check_is_ours(state)?;
    Err(Error::Settings(format!(
        "there is no state at {}: {why}; is the setting state_dir right? The modes serve, import and \
         restore make a state, no other does",
        state.display()
    )))
}

/// Sees that the volume of the state is mounted, where systemd knows of one. Its units see to that themselves; this is for
/// an operator. tmpfiles.d makes `keys/` below the mount point, and a key would be made there that exists elsewhere.
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
