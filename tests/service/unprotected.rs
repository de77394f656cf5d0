//! A secret key that had no passphrase is protected when it comes back, from a backup or from the trash.

use std::fs;

use super::certificate::{assert_signs, text};
use super::host::{Host, Transport};
use super::old_host::{OldHost, plain};
use super::safekeeping::Recipient;

/// A host with one key whose secret key has no passphrase, and the name of the key.
fn host() -> (Host, String) {
    let ids = plain(1);
    let old = OldHost::new(&ids);
    let host = Host::start(Transport::PassedUnix);
    let (gnupg, phrases) = (old.gnupg(), old.phrases());
    let output = host.run(&[
        "import",
        "--from",
        gnupg.to_str().unwrap(),
        "--phrases",
        phrases.to_str().unwrap(),
        "--protect",
        "no",
    ]);
    assert!(output.status.success(), "{}", text(&output));
    assert!(!is_protected(&host, &ids[0]));
    (host, ids.into_iter().next().unwrap())
}

fn is_protected(host: &Host, id: &str) -> bool {
    let directory = host.home(id).join("private-keys-v1.d");
    let secret = fs::read_dir(directory).unwrap().next().unwrap().unwrap().path();
    String::from_utf8_lossy(&fs::read(secret).unwrap()).contains("(protected-private-key")
}

#[test]
fn a_restored_key_has_a_passphrase() {
    let (host, id) = host();
    let recipient = Recipient::new();
    let archive = recipient.backup(&host, &[]);
    let other = Host::start(Transport::PassedUnix);
    let file = other.scratch().join("archive");
    fs::write(&file, archive).unwrap();
    let output = other.run(&["restore", "--from", file.to_str().unwrap()]);
    assert!(output.status.success(), "{}", text(&output));
    assert!(text(&output).contains("had no passphrase"), "{}", text(&output));
    assert!(is_protected(&other, &id));
    assert_signs(&other, &id);
}

#[test]
fn a_key_that_comes_back_from_the_trash_has_a_passphrase() {
    let (host, id) = host();
    assert!(host.run(&["remove", "--yes", &id]).status.success());
    let output = host.run(&["undo", &id]);
    assert!(output.status.success(), "{}", text(&output));
    assert!(is_protected(&host, &id));
    assert_signs(&host, &id);
    assert_eq!(host.entries("trash"), [""; 0]);
    assert_eq!(host.entries("staging"), [""; 0]);
}
