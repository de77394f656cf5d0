//! Every home: complete, and `key.json` in agreement with the names of the files. No gpg is run but to
//! write a `key.json` anew.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::Path;

use gpg::clock;
use keystore::parallel::map_ahead;
use keystore::{self, Fault, Home};

use super::expiry;
use super::host::Host;
use super::owners::wrong_mode;
use super::page::{Section, number};
use crate::error::Error;

/// What is in `keys/`.
#[derive(Default)]
pub struct Survey {
    /// Every home, by name.
    pub homes: Vec<Home>,
    /// Names in `keys/` that no identity has.
    pub strange: Vec<OsString>,
    /// Why `keys/` could not be read.
    pub failure: Option<Error>,
    /// Modes that were wrong: where, what, and why it is so still.
    pub mended_modes: Vec<(String, String, Option<String>)>,
}

impl Survey {
    /// Looks at every home, and mends their modes if that is wanted, as what is closed even to its
    /// owner cannot be looked into.
    pub fn take(host: &Host) -> Self {
        let mut survey = Self {
            homes: Vec::new(),
            strange: Vec::new(),
            failure: None,
            mended_modes: Vec::new(),
        };
        let names = match host.inspector.names() {
            Ok((names, strange)) => {
                survey.strange = strange;
                names
            }
            Err(e) => {
                survey.failure = Some(e);
                return survey;
            }
        };
        let owner = host.owner.uid.as_raw();
        let examine = |name| host.inspector.examine(name, owner);
        survey.homes = map_ahead(names.into_iter(), examine).flatten().collect();
        if host.options.repair {
            for home in &mut survey.homes {
                survey.mended_modes.extend(mend_modes(host, home, owner));
            }
        }
        survey
    }

    /// The homes that hold all it takes to sign.
    pub fn whole(&self) -> impl Iterator<Item = &Home> {
        self.homes.iter().filter(|home| home.is_whole())
    }
}

/// Mends the modes in one home. What was closed is looked into afterwards, hence more than one round.
fn mend_modes(host: &Host, home: &mut Home, owner: u32) -> Vec<(String, String, Option<String>)> {
    let mut done = Vec::new();
    for _ in 0..3 {
        let mut mended = false;
        for fault in &home.faults {
            let Fault::Mode(path, mode, wanted) = fault else { continue };
            let result = keystore::set_mode(path, *wanted);
            mended |= result.is_ok();
            let why = result.err().map(|e| e.to_string());
            done.push((host.name(path), wrong_mode(*mode, *wanted), why));
        }
        home.faults.retain(|fault| !matches!(fault, Fault::Mode(..)));
        if !mended {
            break;
        }
        match host.inspector.examine(home.name_email.clone(), owner) {
            Some(again) => *home = again,
            None => break,
        }
    }
    done
}

pub fn section(host: &Host, survey: &mut Survey) -> Section {
    let mut section = Section::new("homes");
    if let Some(e) = &survey.failure {
        section.failed("keys", e.to_string(), host.repair());
        return section;
    }
    for home in &mut survey.homes {
        report(host, home, &mut section);
        if let Some(why) = home.record_fault().map(str::to_owned) {
            record(host, home, &why, &mut section);
        } else {
            changed_ahead(host, home, &mut section);
        }
    }
    shared_keys(host, survey, &mut section);
    for name in &survey.strange {
        section.note(
            format!("keys/{}", name.to_string_lossy()),
            "is no name of an identity; nothing here looks at it",
        );
    }
    if section.is_well() {
        let count = number(survey.whole().count(), "key", "keys");
        section.ok("keys", format!("{count}, with every file there and key.json in agreement"));
    }
    section
}

/// A secret key that several identities have: a home was copied, and what one of them signs is signed with the
/// key of the other.
fn shared_keys(host: &Host, survey: &Survey, section: &mut Section) {
    let mut owners: BTreeMap<&str, Vec<&Home>> = BTreeMap::new();
    for home in survey.whole() {
        if let Some(keygrip) = &home.keygrip {
            owners.entry(keygrip.as_str()).or_default().push(home);
        }
    }
    for homes in owners.values().filter(|homes| homes.len() > 1) {
        for home in homes {
            let others = homes.iter().map(|other| &other.name_email);
            let others: Vec<_> = others
                .filter(|other| **other != home.name_email)
                .map(ToString::to_string)
                .collect();
            section.failed(
                host.name(&home.path),
                format!("holds the same secret key as {}", others.join(", ")),
                format!(
                    "the user ID in its certificate says whose it is ({}); mv the other to a safe place \
                     outside of keys/, then {}",
                    host.command("show NAME_EMAIL"),
                    host.repair()
                ),
            );
        }
    }
}

fn report(host: &Host, home: &Home, section: &mut Section) {
    let subject = host.name(&home.path);
    for fault in &home.faults {
        match fault {
            Fault::Damage(path, why) => section.failed(host.name(path), why, restore(host, home)),
            Fault::Empty => {
                section.note(
                    &subject,
                    "an empty directory; it gives way to the next key of this name",
                );
            }
            Fault::NoRevocation(path) => section.warning(
                host.name(path),
                "has no revocation certificate; the key signs without it",
                "restore it from a backup, or make one with gpg --gen-revoke on a copy of the home",
            ),
            Fault::Strange(path) if may_hold_phrase(path) => section.warning(
                host.name(path),
                "does not belong into a home, and may hold a passphrase in the clear",
                format!("if nobody needs this copy: shred -u {}", host.quoted(path)),
            ),
            Fault::Strange(path) => {
                section.note(host.name(path), "does not belong into a home; it does no harm");
            }
            // These are told elsewhere.
            Fault::Record(_) | Fault::Owner(..) | Fault::Mode(..) | Fault::TrustDatabase(_) => {}
        }
    }
}

/// Whether a file is called like a copy of the passphrase, as editors and backup tools make them.
fn may_hold_phrase(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    name.trim_start_matches(['.', '#']).starts_with("passphrase")
}

/// The remedy for a key that cannot be used. What is left of it may be the only copy.
pub fn restore(host: &Host, home: &Home) -> String {
    format!(
        "mv {} to a safe place outside of keys/, then put this one key back from a backup: {}",
        host.quoted(&home.path),
        host.command("restore --from ARCHIVE")
    )
}

/// A `key.json` that was last written under a clock that was ahead. That of the certificate is another matter.
fn changed_ahead(host: &Host, home: &mut Home, section: &mut Section) {
    // A clock that cannot be right has a line of its own.
    let Ok(now) = clock::believed() else { return };
    let Some(record) = home.record.as_ref().filter(|record| record.was_changed_ahead(now)) else {
        return;
    };
    let subject = format!("{}/key.json", host.name(&home.path));
    let why = format!(
        "says {}: the key was last changed under a clock that was ahead, or this one is behind",
        clock::timestamp(record.changed)
    );
    if !host.options.repair {
        section.failed(subject, why, expiry::set_clock_or_repair(host));
        return;
    }
    match host.inspector.rewrite_record(home) {
        Ok(record) => {
            home.record = Some(record);
            section.repaired(subject, why);
        }
        // The certificate itself is dated ahead.
        Err(Error::Gpg(gpg::Error::Clock(words))) => {
            section.failed(subject, words, expiry::SET_CLOCK)
        }
        Err(e) => section.mended(subject, why, Err(e)),
    }
}

/// A `key.json` that is wrong because of `why`.
pub fn record(host: &Host, home: &mut Home, why: &str, section: &mut Section) {
    let subject = format!("{}/key.json", host.name(&home.path));
    if !host.options.repair {
        section.failed(subject, why, host.repair());
        return;
    }
    let result = host.inspector.rewrite_record(home);
    section.mended(subject, why, result.map(|record| home.record = Some(record)));
}
