//! Checks every home: it must be complete, and `key.json` must agree with the names of the files. Runs no gpg.

use std::collections::BTreeMap;
use std::path::Path;

use gpg::clock;
use keystore::remedy;
use keystore::{Fault, Home};
use signer::key_file;

use super::finding::{Mend, Remedy, Section};
use super::host::Host;
use super::survey::Survey;
use crate::commands::output::number;

/// The remedy for a key that cannot be used. It keeps the rest of the home, which may be the only copy.
pub const RESTORE: &str = "stop the socket and the service, keep what is left of its home outside of \
                           keys/, then put the key back from a backup with copr-keygen restore \
                           (docs/backup.md)";

/// The remedy for a file that may hold the only good passphrase of a key.
const TRY_FIRST: &str = "it may be the only good one: the passphrase of the home does not open its key, or that cannot \
                         be seen here; see what check --deep says of it first";

pub fn section(host: &Host, survey: &Survey) -> Section {
    let mut section = Section::new("homes");
    if let Some(e) = &survey.failure {
        section.failed("keys", e.to_string(), host.give_back());
        return section;
    }
    for (place, home) in survey.homes.iter().enumerate() {
        home.faults.iter().for_each(|fault| report(host, home, fault, &mut section));
        if let Some(why) = home.record_fault().map(str::to_owned).or_else(|| changed_ahead(home)) {
            record(host, home, &why, place, &mut section);
        }
    }
    shared_keys(host, survey, &mut section);
    for name in &survey.strange {
        let subject = format!("keys/{}", name.to_string_lossy());
        section.note(subject, "is no name of an identity; nothing here looks at it");
    }
    if section.is_well() {
        let count = number(survey.whole().count(), "key", "keys");
        section.ok("keys", format!("{count}, with every file there and key.json in agreement"));
    }
    section
}

fn report(host: &Host, home: &Home, fault: &Fault, section: &mut Section) {
    match fault {
        Fault::Damage(path, why) => section.failed(host.name(path), why, RESTORE),
        Fault::Empty => {
            let message = "an empty directory; it gives way to the next key of this name";
            section.note(host.name(&home.path), message);
        }
        Fault::NoRevocation(path) => section.warning(
            host.name(path),
            "has no revocation certificate; the key signs without it",
            "restore it from a backup, or make one with gpg --gen-revoke on a copy of the home",
        ),
        Fault::Strange(path) if may_hold_phrase(path) => section.warning(
            host.name(path),
            "does not belong into a home, and may hold a passphrase in the clear; nobody should need it",
            match passphrase_opens(host, home) {
                true => Remedy::Command(remedy::destroy_copy(path)),
                false => TRY_FIRST.into(),
            },
        ),
        Fault::Strange(path) => {
            section.note(host.name(path), "does not belong into a home; it does no harm");
        }
        // Reported elsewhere: `Record` by `section`, the others by `owners` and `trust`.
        Fault::Record(_) | Fault::Owner(..) | Fault::Mode(..) | Fault::TrustDatabase(_) => {}
    }
}

/// Whether the name of a file is like that of a passphrase copy made by an editor or a backup tool.
fn may_hold_phrase(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.is_file() && name.trim_start_matches(['.', '#']).starts_with("passphrase")
}

/// Whether the passphrase of a home opens its secret key. If so, no copy of the passphrase is needed.
fn passphrase_opens(host: &Host, home: &Home) -> bool {
    let Some(keygrip) = &home.keygrip else { return false };
    let secret = host.inspector.secret_key(home, keygrip);
    let phrase = host.inspector.passphrases().read(&home.path, keygrip);
    matches!((secret, phrase), (Ok(secret), Ok(phrase)) if key_file::open(&secret, &phrase).is_ok())
}

/// Returns what is wrong with a `key.json` whose `changed` is in the future: it was last written under a
/// clock that was ahead. A certificate dated in the future is another matter.
fn changed_ahead(home: &Home) -> Option<String> {
    // A clock that cannot be right has a line of its own in `expiry`.
    let now = clock::believed().ok()?;
    let record = home.record.as_ref().filter(|record| record.was_changed_ahead(now))?;
    Some(format!(
        "says {}: the key was last changed under a clock that was ahead; or this one is behind: \
         then set it first",
        clock::timestamp(record.changed)
    ))
}

/// Adds a line for a `key.json` that is wrong for the reason `why`. `place` is the index
/// of its home in the survey.
pub fn record(host: &Host, home: &Home, why: &str, place: usize, section: &mut Section) {
    section.failed(format!("{}/key.json", host.name(&home.path)), why, Mend::Record(place));
}

/// Checks for a secret key that several identities hold. That happens when a home is copied: one identity
/// then signs with the key of the other.
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
                "the user ID in its certificate says whose it is; keep the home of the other \
                 outside of keys/",
            );
        }
    }
}
