//! No trust database is in the way, and no keyring that many keys share: what an older service, or a gpg
//! run by hand, has left.

use std::fs;

use keystore::{self, Fault, TRUST_DATABASE};

use super::homes::Survey;
use super::host::Host;
use super::page::Section;

pub fn section(host: &Host, survey: &Survey) -> Section {
    let mut section = Section::new("leftovers of a shared keyring");
    let gnupg = host.part("gnupg");
    let database = gnupg.join(TRUST_DATABASE);
    if host.is_ours() && fs::symlink_metadata(&database).is_ok() {
        // gpg opens one that is there, whatever the trust model: a corrupt one ends every call.
        let message =
            "a trust database, which nothing here needs; once it is corrupt, signing fails";
        let subject = host.name(&database);
        if host.options.repair {
            let removed = fs::remove_file(&database).map_err(|e| {
                crate::error::Error::io(format!("removing {}", database.display()), e)
            });
            section.mended(subject, message, removed);
        } else {
            section.failed(subject, message, host.repair());
        }
    }
    for home in &survey.homes {
        for fault in &home.faults {
            // A published home is not written to for so little.
            if let Fault::TrustDatabase(path) = fault {
                section.warning(
                    host.name(path),
                    "a trust database, made by a gpg that was run by hand; it can be deleted",
                    format!("rm {}", host.quoted(path)),
                );
            }
        }
    }
    old_service(host, &mut section);
    nested(host, survey, &mut section);
    if section.is_well() {
        section.ok("gnupg", "no trust database and no shared keyring");
    }
    section
}

/// The keyring of another service, in whose place ours would be.
fn old_service(host: &Host, section: &mut Section) {
    let importing = host.part(keystore::IMPORTING);
    match keystore::old_keyring(&host.part("gnupg")) {
        Ok(Some(path)) => section.failed(
            host.name(&path),
            "holds keys that no home has, those of another service: no keys are made until they have been \
             taken over",
            host.command("import"),
        ),
        Ok(None) if fs::symlink_metadata(&importing).is_ok() => section.failed(
            host.name(&importing),
            "the keys of the old service have not all been taken over: the import was interrupted",
            host.command("import"),
        ),
        Ok(None) => {}
        Err(e) => section.failed("gnupg", e.to_string(), host.repair()),
    }
    match host.inspector.old_services() {
        Ok(entries) => entries.iter().for_each(|entry| {
            section.note(host.name(entry), "keeps the old service's unprotected keys until purge");
        }),
        Err(e) => section.failed("trash", e.to_string(), host.repair()),
    }
}

/// A state that was moved into this one.
fn nested(host: &Host, survey: &Survey, section: &mut Section) {
    let message = "is a state with keys inside of this one: it was moved there, and nobody uses it";
    for inner in keystore::nested::states(host.state()).unwrap_or_default() {
        let remedy = keystore::nested::put_in_place(host.state(), &inner);
        match survey.homes.is_empty() {
            true => section.failed(host.name(&inner), message, remedy),
            false => section.warning(host.name(&inner), message, remedy),
        }
    }
}
