//! Whether passphrases are sealed, and each of them opens. What there is to be known without the key is
//! told without it, as a terminal has none.

use keystore::{CREDENTIAL, Form, Home, Sealing};

use super::homes::{self, Survey};
use super::host::Host;
use super::page::{Section, number};
use crate::error::Error;

/// The command line of a mode that is to have the key, which units are given by systemd.
fn with_key(host: &Host, words: &str) -> String {
    let command = host.command(words);
    if host.settings.passphrase_key_file.get().is_ok_and(Option::is_some) {
        return command;
    }
    format!("systemd-run --pipe --wait --property=LoadCredentialEncrypted={CREDENTIAL} {command}")
}

pub fn section(host: &Host, survey: &Survey) -> Section {
    let mut section = Section::new("passphrases");
    let passphrases = host.inspector.passphrases();
    if let Some(why) = &host.settings.sealing_key_fault {
        section.failed("passphrase-key", why, "see docs/sealing.md; serve does not start");
    }
    let marker = match passphrases.marker() {
        Ok(Some(marker)) => marker,
        Ok(None) if survey.whole().any(|home| is_sealed(host, home)) => {
            section.failed(
                "sealing.json",
                "is missing, and there are sealed passphrases",
                format!(
                    "put it back from a backup, or make it anew with the right key: {}",
                    with_key(host, "seal")
                ),
            );
            return section;
        }
        Ok(None) => {
            let message = "are not sealed: who has the disk or a backup can sign";
            match passphrases.key() {
                None => section.note("passphrases", message),
                Some(_) => section.warning(
                    "passphrases",
                    format!("{message}; a {CREDENTIAL} is given"),
                    host.command("seal"),
                ),
            }
            return section;
        }
        Err(e) => {
            section.failed("sealing.json", e.to_string(), "see docs/sealing.md");
            return section;
        }
    };
    match marker.state {
        Sealing::Sealed => {}
        Sealing::Sealing => {
            section.failed("sealing.json", "sealing has not finished", with_key(host, "seal"));
        }
        Sealing::Unsealing => {
            section.failed("sealing.json", "unsealing has not finished", with_key(host, "unseal"))
        }
    }
    // A directory that is not ours is named with the links.
    let is_ours = host.inspector.check_phrases_are_ours().is_ok();
    if let Some(e) = host.inspector.would_provide_phrases().err().filter(|_| is_ours) {
        section.failed("phrases_dir", e.to_string(), "see docs/sealing.md; serve does not start");
    }
    let has_key = passphrases.key().is_some();
    if !has_key {
        section.note(
            "passphrases",
            format!("sealed, and not tried without the {CREDENTIAL}: {}", with_key(host, "check")),
        );
    } else if let Err(e) = passphrases.verify() {
        section.failed("passphrases", e.to_string(), "see docs/sealing.md");
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

fn is_sealed(host: &Host, home: &Home) -> bool {
    matches!(host.inspector.passphrase_form(home), Ok(Form::Sealed))
}

fn look(host: &Host, home: &Home, state: Sealing, has_key: bool, section: &mut Section) {
    let subject = format!("{}/passphrase", host.name(&home.path));
    let failed = |section: &mut Section, e: Error| {
        section.failed(&subject, e.to_string(), homes::restore(host, home));
    };
    match host.inspector.passphrase_form(home) {
        Ok(Form::Clear) if state == Sealing::Sealed => clear(host, subject, section),
        Ok(_) if has_key => {
            if let Err(e) = host.inspector.open_passphrase(home) {
                failed(section, e);
            }
        }
        Ok(_) => {}
        Err(e) => failed(section, e),
    }
}

/// Keys in the pool will sign, and removed ones may come back.
fn look_apart(host: &Host, section: &mut Section) {
    match host.inspector.passphrases_apart() {
        Ok(apart) => {
            for (home, _) in apart.iter().filter(|(_, form)| *form == Form::Clear) {
                clear(host, format!("{}/passphrase", host.name(home)), section);
            }
        }
        Err(e) => section.failed("pool, trash", e.to_string(), host.repair()),
    }
}

/// Which can be told from other files only by who can open passphrases.
fn look_for_copies(host: &Host, section: &mut Section) {
    match host.inspector.plaintext_copies() {
        Ok(strays) => {
            for path in strays {
                section.failed(
                    host.name(&path),
                    "holds the passphrase of a key in the clear",
                    format!("if nobody needs this copy: shred -u {}", host.quoted(&path)),
                );
            }
        }
        Err(e) => section.failed("the state", e.to_string(), host.repair()),
    }
}

fn clear(host: &Host, subject: String, section: &mut Section) {
    let message = "is in the clear in a state that is sealed";
    section.failed(subject, message, with_key(host, "seal"));
}
