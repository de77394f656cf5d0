//! Checks for what an older service, a gpg run by hand, or `mv` has left: a trust database, a keyring that
//! many keys share, or another state.

use std::fs;

use keystore::remedy::quote_path;
use keystore::{Fault, TRUST_DATABASE, nested};

use super::finding::{Mend, Remedy, Section, Verdict};
use super::host::Host;
use super::survey::Survey;

pub fn section(host: &Host, survey: &Survey) -> Section {
    let mut section = Section::new("leftovers of a shared keyring");
    let database = host.part("gnupg").join(TRUST_DATABASE);
    if host.is_ours() && fs::symlink_metadata(&database).is_ok() {
        // gpg opens an existing trust database whatever the trust model, so a corrupt one
        // makes every call fail.
        let message =
            "a trust database, which nothing here needs; once it is corrupt, signing fails";
        section.failed(host.name(&database), message, Mend::TrustDatabase(database));
    }
    for fault in survey.homes.iter().flat_map(|home| &home.faults) {
        // Leave the removal to the operator: this is too little a reason to write to a published home.
        if let Fault::TrustDatabase(path) = fault {
            let message = "a trust database, made by a gpg that was run by hand; it can be deleted";
            let remove = Remedy::Command(format!("rm {}", quote_path(path)));
            section.warning(host.name(path), message, remove);
        }
    }
    old_service(host, &mut section);
    other_states(host, survey, &mut section);
    if section.is_well() {
        section.ok("gnupg", "no trust database and no shared keyring");
    }
    section
}

/// Checks for the keyring of another service in the place of `gnupg/`, and for the
/// directories kept after an import.
fn old_service(host: &Host, section: &mut Section) {
    let import = || Remedy::Command(host.command("import"));
    let importing = host.part(keystore::IMPORTING);
    match section.look("gnupg", keystore::old_keyring(&host.part("gnupg")), host.give_back()) {
        Some(Some(path)) => {
            let message = "holds keys that no home has, those of another service: no keys are made \
                           until they have been taken over";
            let remedy = if path.is_file() { import() } else { host.keep_aside(&path) };
            section.failed(host.name(&path), message, remedy);
        }
        Some(None) if fs::symlink_metadata(&importing).is_ok() => {
            let message = "the keys of the old service have not all been taken over: the import was \
                           interrupted";
            section.failed(host.name(&importing), message, import());
        }
        Some(None) | None => {}
    }
    let kept = section.look("trash", host.inspector.old_services(), host.give_back());
    for entry in kept.unwrap_or_default() {
        section.note(host.name(&entry), "keeps the old service's unprotected keys until purge");
    }
}

/// Checks for states that `mv` has put inside or beside this one: the state in use may be the wrong one.
fn other_states(host: &Host, survey: &Survey, section: &mut Section) {
    let message = "is a state with keys inside of this one: it was moved there, and nobody uses it";
    for inner in nested::states(host.state()).unwrap_or_default() {
        let command = Remedy::Command(nested::put_in_place(host.state(), &inner));
        let (verdict, remedy) = match survey.homes.is_empty() {
            true => (Verdict::Failed, command),
            // If both states have keys, no command can decide which keys count.
            false => (Verdict::Warning, "see which keys only it has, and move it elsewhere".into()),
        };
        section.add(verdict, host.name(&inner), message, remedy);
    }
    if survey.homes.is_empty() && survey.failure.is_none() {
        for aside in nested::states_beside(host.state()) {
            let message = format!(
                "is a state with keys, and {} has none: it was moved away, and keys that exist would be \
                 made anew",
                host.state().display()
            );
            let remedy = Remedy::Command(nested::exchange(host.state(), &aside));
            section.failed(aside.to_string_lossy(), message, remedy);
        }
    }
}
