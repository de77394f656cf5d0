//! One file per mode; each reads like a table of contents.

mod backup;
mod check;
mod fill_pool;
pub mod gpg;
mod hook;
mod look;
mod moving;
mod old_service;
mod output;
mod progress;
mod prolong;
mod remove;
mod restore;
mod seal;
pub mod serve;
mod token;

use std::path::Path;

use crate::cli::{Command, Import};
use crate::error::{Error, Result};
use crate::gpg::Gpg;
use crate::keys::{Homes, Passphrases, Store};
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
    // Else what is wrong has been said.
    if !matches!(result, Err(Error::Settings(_))) {
        settings.warn_of_faults();
    }
    result
}

fn run_with(settings: &mut Settings, command: Command) -> Result<()> {
    find_sealing_key(settings, &command)?;
    let settings = &*settings;
    // Public, and where root keeps them the owner of the state may not look.
    let recipients = match &command {
        Command::Backup(options) => backup::read_recipients(&options.recipient)?,
        _ => Vec::new(),
    };
    // Only root may look at all of it.
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

/// Takes the key of sealed passphrases, which only root may be able to read. A mode that needs them ends
/// here, before anything is touched, when it is not the right one.
fn find_sealing_key(settings: &mut Settings, command: &Command) -> Result<()> {
    match command {
        Command::FillPool
        | Command::Prolong(_)
        | Command::Import(_)
        | Command::Export(_)
        | Command::Restore(_)
        | Command::Undo(_)
        | Command::Phrases(_) => {
            settings.find_sealing_key()?;
            Passphrases::new(settings)?.verify_state(&Homes::new(&settings.state_dir))
        }
        Command::Seal(_) | Command::Unseal(_) => {
            settings.find_sealing_key()?;
            let passphrases = Passphrases::new(settings)?;
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
            match Passphrases::new(settings)?.marker() {
                // The phrase in memory would outlive its key.
                Ok(Some(_)) if removes && settings.phrases_dir.get()?.is_none() => {
                    Err(crate::keys::needs_phrases_dir())
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

/// Opens the store of keys that exist. A state directory that was mistyped is not made.
fn open_existing(settings: &Settings, gpg: Gpg) -> Result<Store> {
    Store::check_is_ours(settings)?;
    check_exists(settings)?;
    Store::open(settings, gpg)
}

/// Whether there is a state at all: a mode that only works with what is there makes none.
fn check_exists(settings: &Settings) -> Result<()> {
    let keys = settings.state_dir.join("keys");
    match std::fs::metadata(&keys) {
        Ok(found) if found.is_dir() => Ok(()),
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::io(format!("looking at {}", keys.display()), e))
        }
        _ => Err(Error::Settings(format!(
            "{}: there is no such directory; is the setting state_dir right?",
            keys.display()
        ))),
    }
}
