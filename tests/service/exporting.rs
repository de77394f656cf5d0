//! `export` tries what it has written: every key signs there as the old service had it sign, or is named.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

use super::host::Host;
use super::old_host::{
    OldHost, assert_signs_in, keygen, new_host, plain, quick, report, values, words,
};

/// A host with an Ed25519 key for each of `ids`.
fn host_with(ids: &[String]) -> Host {
    let old = OldHost::new(&[]);
    old.generate("%no-protection\n", ids.iter().map(|id| quick(id, "")));
    old.rest();
    let host = new_host();
    let imported = old.import(&host, &[]);
    assert!(imported.status.success(), "{}", words(&imported));
    host
}

fn export(host: &Host, to: &Path, more: &[&str]) -> Output {
    keygen(host).args(["export", "--to"]).arg(to).args(more).output().unwrap()
}

/// Exports all keys. Returns the directory, the report (`--json`) and the exit status.
fn exported(host: &Host) -> (PathBuf, Value, Option<i32>) {
    let to = host.scratch().join("exported");
    let (said, status) = report(&export(host, &to, &["--json"]));
    assert_eq!(host.entries("staging"), [""; 0]);
    (to, said, status)
}

/// Asserts that each of `ids` signs in the directory `to`, and that no other key is there.
fn assert_all_sign(to: &Path, ids: &[String]) {
    for id in ids {
        assert_signs_in(&to.join("gnupg"), &to.join("phrases"), id);
    }
    let mut end = Command::new("gpgconf");
    end.arg("--homedir").arg(to.join("gnupg")).args(["--kill", "all"]);
    assert!(end.status().unwrap().success());
    for part in ["phrases", "gnupg/private-keys-v1.d", "gnupg/openpgp-revocs.d"] {
        assert_eq!(fs::read_dir(to.join(part)).unwrap().count(), ids.len(), "{part}");
    }
}

fn sorted(names: Vec<String>) -> BTreeSet<String> {
    names.into_iter().collect()
}

#[test]
fn homes_with_one_secret_key_keep_no_other_from_being_exported() {
    let ids = plain(3);
    let host = host_with(&ids);
    // Both copies come before the homes whose keys they are, in the order of names.
    let copies = ["a#project@copr.example.org", "a-copy-of-user1#project@copr.example.org"];
    for (copy, id) in copies.iter().zip(&ids) {
        let copied = Command::new("cp").arg("-a").arg(host.home(id)).arg(host.home(copy)).status();
        assert!(copied.unwrap().success());
    }
    let (to, said, status) = exported(&host);
    assert_eq!(status, Some(1), "{said:#}");
    assert_eq!(sorted(values(&said, "exported", "name_email")), sorted(ids.clone()));
    assert_eq!(values(&said, "left_out", "name_email"), copies);
    for (reason, id) in values(&said, "left_out", "reason").iter().zip(&ids) {
        assert!(reason.contains(&format!("holds the secret key of {id}")), "{reason}");
    }
    let marker = fs::read_to_string(to.join("INCOMPLETE")).unwrap();
    assert!(copies.iter().all(|copy| marker.contains(copy)), "{marker}");
    assert_all_sign(&to, &ids);

    let words = words(&export(&host, &host.scratch().join("again"), &[]));
    assert!(copies.iter().all(|copy| words.contains(copy)), "{words}");
    assert!(words.contains("2 keys could not be exported, 0 keys cannot sign"), "{words}");
}

#[test]
fn a_certificate_that_gpg_cannot_read_hides_none_behind_it() {
    let ids = plain(4);
    let host = host_with(&ids);
    let path = host.home(&ids[1]).join("pubring.kbx");
    let mut keyring = fs::read(&path).unwrap();
    // Overwrite the certificate itself and keep the framing. The blob says where the certificate begins
    // (kbx/keybox-blob.c of GnuPG).
    let first = u32::from_be_bytes(keyring[..4].try_into().unwrap()) as usize;
    let number = |at: usize| u32::from_be_bytes(keyring[at..at + 4].try_into().unwrap()) as usize;
    let (begin, length) = (first + number(first + 8), number(first + 12));
    keyring[begin..begin + length].fill(b'A');
    fs::write(&path, keyring).unwrap();

    let (to, said, status) = exported(&host);
    let rest = [&ids[..1], &ids[2..]].concat();
    assert_eq!(status, Some(1), "{said:#}");
    assert_eq!(values(&said, "exported", "name_email"), rest);
    assert_eq!(values(&said, "left_out", "name_email"), ids[1..2]);
    assert_all_sign(&to, &rest);
}

#[test]
fn a_home_with_the_certificate_of_another_key_is_left_out() {
    let ids = plain(3);
    let host = host_with(&ids);
    let [mine, other] = [1, 0].map(|at| host.home(&ids[at]));
    fs::copy(other.join("pubring.kbx"), mine.join("pubring.kbx")).unwrap();
    let read = |home: &Path| -> Value {
        serde_json::from_slice(&fs::read(home.join("key.json")).unwrap()).unwrap()
    };
    // key.json names the home's own secret key and the other certificate.
    let mut record = read(&mine);
    record["fingerprint"] = read(&other)["fingerprint"].clone();
    fs::write(mine.join("key.json"), record.to_string()).unwrap();

    let (to, said, status) = exported(&host);
    let rest = [&ids[..1], &ids[2..]].concat();
    assert_eq!(status, Some(1), "{said:#}");
    assert_eq!(values(&said, "exported", "name_email"), rest);
    assert_eq!(values(&said, "left_out", "name_email"), ids[1..2]);
    assert_all_sign(&to, &rest);
}

#[test]
fn a_key_that_does_not_sign_there_is_named() {
    let id = |name: &str| format!("{name}#project@copr.example.org");
    // gpg matches any part of a user ID. Only in the right order of the keyring are all of these keys found.
    let ids = ["xyuser", "user", "yuser", "other"].map(id);
    let host = host_with(&ids);
    let (to, said, status) = exported(&host);
    assert_eq!(status, Some(0), "{said:#}");
    assert!(!to.join("INCOMPLETE").exists());
    assert_all_sign(&to, &ids);
    fs::remove_dir_all(&to).unwrap();

    // Without its revocation certificate, a key signs as before.
    fs::remove_dir_all(host.home(&id("user")).join("openpgp-revocs.d")).unwrap();
    let (to, said, status) = exported(&host);
    assert_eq!((said["exported"].as_array().map(Vec::len), status), (Some(4), Some(0)));
    fs::remove_dir_all(&to).unwrap();

    // A passphrase that no longer opens the secret key.
    fs::write(host.home(&id("other")).join("passphrase"), "wrong\n").unwrap();
    let (to, said, status) = exported(&host);
    assert_eq!(status, Some(1), "{said:#}");
    assert_eq!(said["exported"].as_array().unwrap().len(), 4);
    assert_eq!(values(&said, "not_signing", "name_email"), [id("other")]);
    assert!(values(&said, "not_signing", "reason")[0].contains("plain gpg cannot sign for it"));
    assert!(fs::read_to_string(to.join("INCOMPLETE")).unwrap().contains(&id("other")));
}

#[test]
fn identities_that_gpg_takes_for_one_another_are_named_and_sign_when_exported_apart() {
    let id = |name: &str| format!("{name}#project@copr.example.org");
    // gpg ignores the case of letters, and for a user "@group…" it looks for the part after the "@".
    for pair in [["User", "user"], ["@group", "group"]] {
        let ids = pair.map(id);
        let host = host_with(&ids);
        let (_, said, status) = exported(&host);
        assert_eq!(status, Some(1), "{said:#}");
        let named = values(&said, "not_signing", "name_email");
        let reason = values(&said, "not_signing", "reason").pop().unwrap();
        let other = ids.iter().find(|id| **id != named[0]).unwrap();
        assert!(reason.contains(&format!("with the key of {other}")), "{reason}");
        for (number, id) in ids.iter().enumerate() {
            let to = host.scratch().join(number.to_string());
            let alone = export(&host, &to, &[id]);
            assert!(alone.status.success(), "{}", words(&alone));
            assert_all_sign(&to, std::slice::from_ref(id));
        }
    }
}

#[test]
fn an_export_of_no_key_is_whole() {
    let host = host_with(&plain(1));
    let to = host.scratch().join("none");
    let (said, status) = report(&export(&host, &to, &["--json", "nobody#*"]));
    assert_eq!((said["exported"].as_array().map(Vec::len), status), (Some(0), Some(0)));
    assert!(!to.join("INCOMPLETE").exists() && !to.join("gnupg/pubring.kbx").exists());
}
