//! One file per mode; each reads like a table of contents.

mod backup;
mod check;
mod fill_pool;
pub mod gpg;
mod hook;
mod look;
mod make;
mod moving;
mod old_service;
mod output;
mod progress;
mod prolong;
mod remove;
mod restore;
mod seal;
pub mod serve;
mod sign_conf;
mod token;
mod unread;

use std::io;
use std::path::Path;

use ::gpg::Gpg;
use keystore::{Homes, Key, NameEmail, Passphrases, Store, check_user};
use serde_json::Value;

use crate::cli::{Command, Import};
use crate::error::{Error, Result};
use crate::privileges;
use crate::settings::Settings;

/// Runs a mode that does one thing and ends. Started as root, it becomes the owner of the state
/// first, so that nothing in there ever belongs to root.
pub fn run(settings: Result<Settings>, command: Command) -> Result<()> {
    if let Command::Token(options) = command {
        return token::run(&options); // needs neither settings nor a state
    }
    let mut settings = match (settings, &command) {
        (Err(error), Command::Check(options)) => return check::unconfigured(&[error], options),
        (Ok(settings), Command::Check(options)) if !settings.faults().is_empty() => {
            let faults = settings.faults().iter().cloned().map(Error::Settings);
            return check::unconfigured(&faults.collect::<Vec<_>>(), options);
        }
        (settings, _) => settings?,
    };
    let result = run_with(&mut settings, command);
    // An error in a setting has been reported already.
    if !matches!(result, Err(Error::Settings(_))) {
        settings.warn_of_faults();
    }
    result
}

fn run_with(settings: &mut Settings, command: Command) -> Result<()> {
    // `check` reports the user on its page.
    if !matches!(command, Command::Check(_)) {
        check_user(&settings.state_dir)?;
    }
    if !may_make_a_state(&command, settings) {
        require_state(&settings.state_dir)?;
    }
    find_sealing_key(settings, &command)?;
    let settings = &*settings;
    // Certificates of recipients may lie where only root can read them.
    let recipients = match &command {
        Command::Backup(options) => backup::read_recipients(&options.recipient)?,
        _ => Vec::new(),
    };
    // Only root can look at all the places where something may be left to do.
    let steps = match &command {
        Command::Import(Import { from: None, .. }) => {
            old_service::steps(Path::new("/"), &settings.state_dir)
        }
        _ => Vec::new(),
    };
    if !matches!(command, Command::Check(_)) {
        privileges::become_owner(&settings.state_dir)?;
    }
    match command {
        Command::Serve(_) | Command::Gpg(_) | Command::Token(_) => {
            Err(Error::Usage("this mode is started in another way".into()))
        }
        Command::Check(options) => check::run(settings, &options),
        Command::Make(options) => make::run(settings, &options),
        Command::List(options) => look::list(settings, options),
        Command::Show(options) => look::show(settings, &options),
        Command::Pubkey(options) => look::pubkey(settings, &options),
        Command::Prolong(options) => prolong::run(settings, &options),
        Command::FillPool => fill_pool::run(settings),
        Command::Import(options) => match &options.from {
            Some(from) => moving::import(settings, &options, from),
            None => moving::import_in_place(settings, &options, &steps),
        },
        Command::Export(options) => moving::export(settings, &options),
        Command::Backup(options) => backup::run(settings, &options, &recipients),
        Command::Restore(options) => restore::run(settings, &options),
        Command::Remove(options) => remove::remove(settings, &options),
        Command::Undo(options) => remove::undo(settings, &options),
        Command::Purge(options) => remove::purge(settings, &options),
        Command::Seal(options) => seal::seal(settings, &options),
        Command::Unseal(options) => seal::unseal(settings, &options),
        Command::Phrases(options) => seal::phrases(settings, &options),
    }
}

/// Reads the key of sealed passphrases, which may be readable by root only. A mode that needs passphrases ends
/// here when the key is a wrong one, before it has touched anything.
fn find_sealing_key(settings: &mut Settings, command: &Command) -> Result<()> {
    match command {
        Command::FillPool
        | Command::Make(_)
        | Command::Prolong(_)
        | Command::Import(_)
        | Command::Export(_)
        | Command::Restore(_)
        | Command::Undo(_)
        | Command::Phrases(_) => {
            settings.find_sealing_key()?;
            Passphrases::new(&settings.keystore()?).verify_state(&Homes::new(&settings.state_dir))
        }
        Command::Seal(_) | Command::Unseal(_) => {
            settings.find_sealing_key()?;
            let passphrases = Passphrases::new(&settings.keystore()?);
            match passphrases.key() {
                Some(_) => passphrases.verify(), // these look at every passphrase
                None => passphrases.verify_state(&Homes::new(&settings.state_dir)),
            }
        }
        // These do without the key, as far as they can.
        Command::Check(_) | Command::Remove(_) => {
            if let Err(e) = settings.find_sealing_key() {
                log::warn!("{e}");
                settings.sealing_key_fault = Some(e.to_string());
            }
            let removes = matches!(command, Command::Remove(_));
            match Passphrases::new(&settings.keystore()?).marker() {
                // The phrase in memory would outlive its key.
                Ok(Some(_)) if removes && settings.phrases_dir.get()?.is_none() => {
                    Err(keystore::needs_phrases_dir())
                }
                _ => Ok(()),
            }
        }
        Command::Serve(_)
        | Command::Gpg(_)
        | Command::Token(_)
        | Command::List(_)
        | Command::Show(_)
        | Command::Pubkey(_)
        | Command::Backup(_)
        | Command::Purge(_) => Ok(()),
    }
}

/// Whether a mode may make the state directory and its parts. With a mistyped directory, any other mode would
/// find no key and call that success.
fn may_make_a_state(command: &Command, settings: &Settings) -> bool {
    match command {
        Command::Serve(_) | Command::Import(_) | Command::Restore(_) => true,
        // On a new host, before the first key is made or restored.
        Command::Seal(options) => {
            let found = std::fs::read_dir(&settings.state_dir);
            !options.dry_run && found.is_ok_and(|mut found| found.next().is_none())
        }
        // It makes none, but reports on its page that there is none.
        Command::Check(_) => true,
        _ => false,
    }
}

/// Opens the state for a mode that works on it.
fn open(settings: &Settings) -> Result<Store> {
    Store::open(&settings.keystore()?, settings.gnupg()?)
}

/// As [`open`], for a mode that must not begin anything without a gpg that works.
fn open_with_gpg(settings: &Settings) -> Result<Store> {
    Store::open(&settings.keystore()?, working_gpg(settings)?)
}

/// gpg, after a look at its version.
fn working_gpg(settings: &Settings) -> Result<Gpg> {
    let gpg = settings.gnupg()?;
    gpg.check_installed()?;
    Ok(gpg)
}

/// The keys that can be read. The others are logged and counted.
fn readable(
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
fn all_done(is_so: bool, words: impl FnOnce() -> String) -> Result<()> {
    if is_so { Ok(()) } else { Err(Error::Partly(words())) }
}

/// Does `work` for each of the names that an operator gave. The failure of a single name ends the mode. Of
/// several names, each failure is logged and kept as it is reported in JSON.
fn each<T>(
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
fn all_named(failed: &[Value], names: &[NameEmail], what: &str) -> Result<()> {
    let (failed, all) = (failed.len(), names.len());
    all_done(failed == 0, || format!("{failed} of {all} keys {what}, see above"))
}

/// Whether there is a state: tmpfiles.d makes `keys/` on a new host, and nothing removes it.
fn require_state(state: &Path) -> Result<()> {
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
