//! No trust database is in the way, and no keyring that many keys share: what an older service, or a gpg
//! run by hand, has left.

use std::fs;

use super::homes::Survey;
use super::host::Host;
use super::page::Section;
use crate::keys::{Fault, TRUST_DATABASE};

/// A keybox with no key in it is its header and nothing else.
const EMPTY_KEYBOX: u64 = 32;

pub fn section(host: &Host, survey: &Survey) -> Section {
    let mut section = Section::new("leftovers of a shared keyring");
    let gnupg = host.part("gnupg");
    let database = gnupg.join(TRUST_DATABASE);
    if fs::symlink_metadata(&database).is_ok() {
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
    for (name, most) in [("pubring.kbx", EMPTY_KEYBOX), ("pubring.gpg", 0), ("secring.gpg", 0)] {
        let path = gnupg.join(name);
        if fs::metadata(&path).is_ok_and(|found| found.len() > most) {
            let import = format!("import --from {}", host.quoted(&gnupg));
            section.warning(
                host.name(&path),
                "holds keys that no home has, perhaps those of the old service; signd does not see \
                 them",
                format!("{}, then move it away", host.command(&import)),
            );
        }
    }
    if section.is_well() {
        section.ok("gnupg", "no trust database and no shared keyring");
    }
    section
}
