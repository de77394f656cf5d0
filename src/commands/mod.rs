//! The modes of the command line, one file per mode; each reads like a table of contents. `run` does not
//! dispatch to `signd` and `check`: only `copr-keygen-signd`, which links libcrypto, runs them.

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

/// Runs a mode that does one thing and ends. When started as root, the process first becomes the owner of the
/// state directory, so that root never owns a file in it.
pub fn run(settings: Result<Settings>, command: Command) -> Result<()> {
    if let Command::Token(options) = command {
        return token::run(&options); // needs neither settings nor a state directory
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
    // The recipients' certificates may be readable by root only, so read them before privileges are dropped.
    let recipients = match &command {
        Command::Backup(options) => backup::read_recipients(&options.recipient)?,
        _ => Vec::new(),
    };
    // Only root can look everywhere the old service may have left something to do.
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

/// Reads the key that seals passphrases, while this process may still be root: only root may be able to read
/// it. With the wrong key, a mode that needs passphrases fails here, before it has changed anything.
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
                Some(_) => passphrases.verify(), // these modes look at every passphrase
                None => passphrases.verify_state(&Homes::new(&settings.state_dir)),
            }
        }
        // `remove` does without the key as far as it can.
        Command::Remove(_) => {
            if let Err(e) = settings.find_sealing_key() {
                log::warn!("{e}");
            }
            match Passphrases::new(&settings.keystore()?).marker() {
                // Without phrases_dir, `remove` cannot find the phrase in memory, which would outlive its key.
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

/// Connects a mode that needs the agreement of other hosts to their etcd. Refuses, on a host with
/// `cluster.endpoints`, the modes that only a host on its own may run. What the hosts share stays sealed.
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

/// Whether a mode may create the state directory and its parts. Every other mode must refuse a missing one:
/// in a mistyped directory it would find no key and report success.
fn may_make_a_state(command: &Command, settings: &Settings) -> bool {
    match command {
        Command::Serve(_) | Command::Import(_) | Command::Restore(_) => true,
        // An empty directory: `seal` may run on a new host before the first key is made or restored.
        Command::Seal(options) => {
            let found = std::fs::read_dir(&settings.state_dir);
            !options.dry_run && found.is_ok_and(|mut found| found.next().is_none())
        }
        _ => false,
    }
}
