//! Checks whether passphrases are sealed and whether each of them opens. A terminal usually lacks the key, so
//! the section reports what can be known without it.

use keystore::remedy;
use keystore::{CREDENTIAL, Form, Home, Sealing};

use super::finding::{Remedy, Section};
use super::homes::RESTORE;
use super::host::Host;
use super::survey::Survey;
use crate::commands::output::number;

const READ_MORE: &str = "see docs/sealing.md; serve does not start";

pub fn section(host: &Host, survey: &Survey) -> Section {
    let mut section = Section::new("passphrases");
    let passphrases = host.inspector.passphrases();
    if let Some(why) = &host.settings.sealing_key_fault {
        section.failed("passphrase-key", why, READ_MORE);
    }
    let is_sealed = |home: &Home| matches!(host.inspector.passphrase_form(home), Ok(Form::Sealed));
    let Some(marker) = section.look("sealing.json", passphrases.marker(), READ_MORE) else {
        return section;
    };
    let marker = match marker {
        Some(marker) => marker,
        None if survey.whole().any(is_sealed) => {
            let message = "is missing, and there are sealed passphrases";
            let remedy = "put it back from a backup; seal makes it anew, with the right key";
            section.failed("sealing.json", message, remedy);
            return section;
        }
        None => {
            let message = "are not sealed: who has the disk or a backup can sign";
            if passphrases.key().is_none() {
                section.note("passphrases", message);
            } else {
                let message = format!("{message}; a {CREDENTIAL} is given");
                let first = "set phrases_dir to a directory in memory, then seal (docs/sealing.md)";
                let can_seal = host.inspector.would_provide_phrases().is_ok();
                let remedy = if can_seal { with_key(host, "seal") } else { first.into() };
                section.warning("passphrases", message, remedy);
            }
            return section;
        }
    };
    let unfinished = match marker.state {
        Sealing::Sealed => None,
        Sealing::Sealing => Some(("sealing has not finished", "seal")),
        Sealing::Unsealing => Some(("unsealing has not finished", "unseal")),
    };
    if let Some((message, words)) = unfinished {
        section.failed("sealing.json", message, with_key(host, words));
    }
    // `links` reports a phrases_dir that is not of this state.
    if !host.who_signs.is_only_ours() && host.inspector.check_phrases_are_ours().is_ok() {
        section.look("phrases_dir", host.inspector.would_provide_phrases(), READ_MORE);
    }
    let has_key = passphrases.key().is_some();
    if !has_key {
        let remedy = with_key(host, "check");
        let command = remedy.text().unwrap_or_default();
        let message = format!("sealed, and not tried without the {CREDENTIAL}: {command}");
        section.note("passphrases", message);
    } else if section.look("passphrases", passphrases.verify(), READ_MORE).is_none() {
        return section;
    }
    survey.whole().for_each(|home| look(host, home, marker.state, has_key, &mut section));
    if marker.state == Sealing::Sealed {
        look_apart(host, &mut section);
    }
    if marker.state != Sealing::Unsealing && has_key {
        look_for_copies(host, &mut section);
    }
    if has_key && section.is_well() {
        let keys = number(survey.whole().count(), "key", "keys");
        section.ok("passphrases", format!("{keys}, each with a sealed passphrase that opens"));
    }
    section
}

/// Returns the command line for a mode that needs the sealing key. Only units get the key from systemd, so
/// without `passphrase_key_file` the mode runs under systemd-run.
fn with_key(host: &Host, words: &str) -> Remedy {
    let command = host.command(words);
    Remedy::Command(match host.settings.passphrase_key_file.get() {
        Ok(Some(_)) => command,
        _ => format!(
            "systemd-run --pipe --wait --property=LoadCredentialEncrypted={CREDENTIAL} {command}"
        ),
    })
}

fn look(host: &Host, home: &Home, state: Sealing, has_key: bool, section: &mut Section) {
    let subject = format!("{}/passphrase", host.name(&home.path));
    let opened = match host.inspector.passphrase_form(home) {
        Ok(Form::Clear) if state == Sealing::Sealed => return clear(host, subject, section),
        Ok(_) if has_key => host.inspector.open_passphrase(home),
        form => form.map(drop),
    };
    section.look(subject, opened, RESTORE);
}

/// Checks the passphrases of the pool, whose keys will sign later, and of the trash, whose keys may come back.
fn look_apart(host: &Host, section: &mut Section) {
    let apart = section.look("pool, trash", host.inspector.passphrases_apart(), host.give_back());
    for (home, form) in apart.unwrap_or_default() {
        if form == Form::Clear {
            clear(host, format!("{}/passphrase", host.name(&home)), section);
        }
    }
}

/// Checks for copies of passphrases in the clear. They can be told from other files only
/// with the key that opens passphrases.
fn look_for_copies(host: &Host, section: &mut Section) {
    let strays = section.look("the state", host.inspector.plaintext_copies(), host.give_back());
    for path in strays.unwrap_or_default() {
        let message = "holds the passphrase of a key in the clear; nobody should need this copy";
        let destroy = Remedy::Command(remedy::destroy_copy(&path));
        section.failed(host.name(&path), message, destroy);
    }
}

fn clear(host: &Host, subject: String, section: &mut Section) {
    let message = "is in the clear in a state that is sealed";
    section.failed(subject, message, with_key(host, "seal"));
}
