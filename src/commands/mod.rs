//! One file per mode; each reads like a table of contents. `signd` and `check` are modes of the program with libcrypto, so
//! nothing here leads to them.

mod backup;
pub mod check;
mod fill_pool;
mod follow;
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
pub mod signd;
mod state;
mod token;
mod unread;

use std::path::Path;

use keystore::{Homes, Passphrases, check_user};

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
    let mut settings = settings?;
    let result = run_with(&mut settings, command);
    // An error in a setting has been reported already.
    if !matches!(result, Err(Error::Settings(_))) {
        settings.warn_of_faults();
    }
    result
}

fn run_with(settings: &mut Settings, command: Command) -> Result<()> {
    check_user(&settings.state_dir)?;
    state::require_mounted(&settings.state_dir)?;
    if !may_make_a_state(&command, settings) {
        state::require_state(&settings.state_dir)?;
    }
    find_sealing_key(settings, &command)?;
    find_cluster(settings, &command)?;
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
    privileges::become_owner(&settings.state_dir)?;
    match command {
        Command::Serve(_)
        | Command::Signd(_)
        | Command::Check(_)
        | Command::Gpg(_)
        | Command::Token(_) => Err(Error::Usage("this mode is started in another way".into())),
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
        Command::Follow(options) => follow::run(settings, &options),
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
        | Command::Follow(_)
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
        // It does without the key, as far as it can.
        Command::Remove(_) => {
            if let Err(e) = settings.find_sealing_key() {
                log::warn!("{e}");
            }
            match Passphrases::new(&settings.keystore()?).marker() {
                // The phrase in memory would outlive its key.
                Ok(Some(_)) if settings.phrases_dir.get()?.is_none() => {
                    Err(keystore::needs_phrases_dir())
                }
                _ => Ok(()),
            }
        }
        Command::Serve(_)
        | Command::Signd(_)
        | Command::Check(_)
        | Command::Gpg(_)
        | Command::Token(_)
        | Command::List(_)
        | Command::Show(_)
        | Command::Pubkey(_)
        | Command::Backup(_)
        | Command::Purge(_) => Ok(()),
    }
}

/// Finds what modes need that other hosts must agree to. What all hosts share stays sealed.
fn find_cluster(settings: &mut Settings, command: &Command) -> Result<()> {
    match command {
        Command::Make(_)
        | Command::Prolong(_)
        | Command::Restore(_)
        | Command::Remove(_)
        | Command::Undo(_)
        | Command::Follow(_)
        | Command::Import(Import { from: Some(_), .. }) => settings.find_cluster(),
        Command::Import(Import { from: None, .. }) | Command::Unseal(_)
            if !settings.cluster.endpoints.get()?.is_empty() =>
        {
            Err(Error::Settings(
                "cluster.endpoints: this is done by a host that is alone: take the setting away on this host first, \
                 and put it back afterwards (docs/cluster.md)"
                    .into(),
            ))
        }
        _ => Ok(()),
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
        _ => false,
    }
}
