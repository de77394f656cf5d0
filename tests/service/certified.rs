//! Keys with certifications by other keys. A distribution may certify the keys of its builders, for example.
//! GnuPG 2.2.40 crashes when it has to check a signature by a key that it does not know.

use std::fs;
use std::process::Command;
use std::thread;
use std::time::Duration;

use serde_json::json;

use super::certificate::{assert_signs, empty_directory, succeed};
use super::check_host::SignHost;
use super::host::Host;
use super::old_host::{OldHost, new_host, quick, report, values};
use super::safekeeping::{Recipient, empty_host, restore, run};

const ID: &str = "user#certified@copr.example.org";

/// Returns class, creation time and issuer of every signature on the certificate of a key, sorted.
fn signatures(host: &Host, id: &str) -> Vec<String> {
    signatures_in(&host.gpg(id, &["--with-colons", "--list-sigs"]))
}

fn signatures_in(listing: &str) -> Vec<String> {
    let lines = listing.lines().filter(|line| line.starts_with("sig:"));
    let mut found: Vec<_> = lines
        .map(|line| {
            let fields: Vec<_> = line.split(':').collect();
            format!("{} {} {}", fields[10], fields[5], fields[4])
        })
        .collect();
    found.sort();
    found
}

/// An old host whose key is certified by `count` other keys. None of these is in its keyring.
fn certified(count: usize) -> OldHost {
    let old = OldHost::new(&[]);
    old.generate("%no-protection\n", [quick(ID, "")]);
    let fingerprint = old.fingerprint(ID);
    let others = empty_directory();
    let gpg = || {
        let mut gpg = Command::new("gpg");
        gpg.args(["--batch", "--no-tty", "--quiet", "--yes", "--homedir"]).arg(others.path());
        gpg
    };
    let file = others.path().join("certificate");
    old.gpg(&["--output", file.to_str().unwrap(), "--export", &fingerprint]);
    succeed(gpg().arg("--import").arg(&file));
    for number in 0..count {
        let name = format!("certifier{number}@example.org");
        let made = ["--passphrase", "", "--quick-gen-key", &name, "ed25519", "cert"];
        succeed(gpg().args(made));
        succeed(gpg().args(["-u", &name, "--quick-sign-key", &fingerprint]));
    }
    fs::remove_file(&file).unwrap();
    succeed(gpg().arg("--output").arg(&file).args(["--export", &fingerprint]));
    old.gpg(&["--import", file.to_str().unwrap()]);
    let mut end = Command::new("gpgconf");
    succeed(end.arg("--homedir").arg(others.path()).args(["--kill", "all"]));
    old
}

#[test]
fn a_key_that_others_have_certified_moves_in_and_lives_on_with_every_signature() {
    let old = certified(3);
    let before = signatures_in(&old.gpg(&["--with-colons", "--list-sigs"]));
    assert_eq!(before.len(), 4, "{before:?}");
    let picture = old.rest();
    let host = new_host();
    let (moved, status) = report(&old.import(&host, &["--json"]));
    assert_eq!((values(&moved, "imported", "name_email"), status), (vec![ID.into()], Some(0)));
    assert_eq!(old.picture(), picture, "the source was touched");
    assert_eq!(signatures(&host, ID), before);
    assert_signs(&host, ID);

    // Every mode that reads the certificate still works.
    let shown = host.json(&["show", "--json", ID]);
    assert_eq!(shown["self_signatures"].as_array().map(Vec::len), Some(1), "{shown}");
    assert_eq!(shown["self_signatures"][0]["good"], json!(true));
    thread::sleep(Duration::from_millis(1100)); // two self-signatures made in the same second count as one
    let done = host.json(&["prolong", "--within", "6y", "--by", "9y", "--json"]);
    assert_eq!(values(&done, "prolonged", "name_email"), [ID], "{done:#}");
    let prolonged = signatures(&host, ID);
    assert_eq!(prolonged.len(), 5, "{prolonged:?}");
    assert!(before.iter().all(|one| prolonged.contains(one)), "{before:?} {prolonged:?}");

    let archive = Recipient::new().backup(&host, &[]);
    let elsewhere = empty_host();
    restore(&elsewhere, &archive).well();
    assert_eq!(signatures(&elsewhere, ID), prolonged);
    run(&elsewhere, &["remove", "--yes", ID]).well();
    run(&elsewhere, &["undo", ID]).well();
    assert_signs(&elsewhere, ID);

    let sign_host = SignHost::around(host);
    let found = sign_host.check(&["--deep"]);
    assert!(found.has("ok", "keys", "every secret key signs"), "{found:#?}");
}

#[test]
fn many_certifications_are_no_reason_to_leave_a_key_out() {
    // More than fits into a pipe with the smallest capacity.
    let old = certified(40);
    let before = signatures_in(&old.gpg(&["--with-colons", "--list-sigs"]));
    assert_eq!(before.len(), 41);
    old.rest();
    let host = new_host();
    let (moved, status) = report(&old.import(&host, &["--json"]));
    assert_eq!((values(&moved, "imported", "name_email"), status), (vec![ID.into()], Some(0)));
    assert_eq!(signatures(&host, ID), before);
    assert_signs(&host, ID);
}
