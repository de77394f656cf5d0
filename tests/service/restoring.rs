//! `copr-keygen restore` of archives that are cut, altered or made to deceive. A key comes back whole or not
//! at all, and an archive that is not whole is never called whole.

use std::fs;
use std::path::PathBuf;
use std::process::Stdio;
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

use super::certificate::assert_signs;
use super::host::{Host, Transport, eventually, kill_child};
use super::safekeeping::{
    Said, assert_links_are_right, copr_keygen, empty_host, restore, run, tree,
};
use super::tars::{A, B, MANIFEST, assert_keys_are_those_of, find, host_with_backup, tar_of};

/// Returns the keys of a host; none if there is no state yet.
fn keys_of(host: &Host) -> Vec<String> {
    if host.state().join("keys").exists() { host.entries("keys") } else { Vec::new() }
}

#[test]
fn an_archive_that_is_cut_anywhere_gives_whole_keys_and_is_not_called_whole() {
    let (original, members) = host_with_backup();
    let archive = tar_of(&members);
    let end = archive.len() - 1024;
    // Cut between members, within headers and files, within the manifest, and anywhere.
    let mut cuts: Vec<usize> = vec![1, 511, 512, 700, end - 513, end - 512, end - 1000];
    cuts.extend((0..14).map(|n| n * end / 14 / 512 * 512));
    cuts.extend((0..10).map(|_| rand::random_range(1..end - 512)));
    let host = empty_host();
    for cut in cuts {
        let said = restore(&host, &archive[..cut]);
        assert_eq!(said.code, Some(1), "{cut}: {}", said.stderr);
        assert!(!said.stderr.contains("is whole"), "{cut}: {}", said.stderr);
        if host.state().join("keys").exists() {
            assert_keys_are_those_of(&host, &original);
        }
    }
    assert_eq!(host.entries("keys"), [A, B], "the longest cuts hold both keys");
    restore(&host, &archive).well();
    // What follows the manifest is only padding.
    restore(&host, &archive[..archive.len() - 512]).well();
    restore(&host, &archive[..archive.len() - 1024]).well();
    assert_signs(&host, A);
}

#[test]
fn bits_that_flip_never_pass_unnoticed() {
    let (original, members) = host_with_backup();
    let archive = tar_of(&members);
    let flips = std::env::var("KEYGEN_TEST_FLIPS").map_or(30, |text| text.parse().unwrap());
    for _ in 0..flips {
        let mut altered = archive.clone();
        let at = rand::random_range(0..altered.len());
        altered[at] ^= 1 << rand::random_range(0..8);
        let host = empty_host();
        let said = restore(&host, &altered);
        if said.code == Some(0) {
            // The flip has hit the padding between members.
            assert_eq!(host.entries("keys"), [A, B], "{at}");
        }
        assert!(matches!(said.code, Some(0 | 1)), "{at}: {}", said.stderr);
        if host.state().join("keys").exists() {
            assert_keys_are_those_of(&host, &original);
        }
    }
}

#[test]
fn a_manifest_that_does_not_fit_is_told() {
    let (original, members) = host_with_backup();
    let manifest = |change: &dyn Fn(&mut Value)| {
        let mut members = members.clone();
        let member = find(&mut members, MANIFEST);
        let mut manifest: Value = serde_json::from_slice(&member.bytes).unwrap();
        change(&mut manifest);
        member.bytes = manifest.to_string().into_bytes();
        tar_of(&members)
    };
    let host = empty_host();
    for (archive, words) in [
        (manifest(&|m| m["keys"][0]["files"]["passphrase"] = json!("0")), "not those that the"),
        (manifest(&|m| m["keys"][0]["files"] = json!(null)), "not those that the"),
        (manifest(&|m| drop(m["keys"].as_array_mut().unwrap().remove(0))), "does not list it"),
        (manifest(&|m| m["keys"][0]["name_email"] = json!("x#y@z")), "x#y@z: the manifest lists"),
        (manifest(&|m| m["keys"][0]["name_email"] = json!("../x")), "no name of a key"),
        (manifest(&|m| m["keys"] = json!(1)), "a manifest that is none"),
        (manifest(&|m| m["keys"][0]["files"] = json!(1)), "a manifest that is none"),
        (manifest(&|m| *m = json!([])), "a manifest that is none"),
    ] {
        restore(&host, &archive).badly(words);
        assert_eq!(host.entries("keys"), [A, B]);
        assert_keys_are_those_of(&host, &original);
    }
    restore(&host, &tar_of(&members)).well();
}

#[test]
fn a_key_that_is_there_is_never_replaced_by_another_one() {
    let (_original, members) = host_with_backup();
    let archive = tar_of(&members);
    let host = Host::start(Transport::PassedUnix);
    assert_eq!(host.gen_key_patiently(A, &json!({})).status, 201, "{}", host.log());
    let mine = tree(&host.home(A));
    let said = restore(&host, &archive).badly("the one here was left alone");
    assert!(said.stderr.contains("1 key restored"), "{}", said.stderr);
    assert_eq!(tree(&host.home(A)), mine);
    assert_links_are_right(&host);
    // For the backend, the restored key simply exists.
    assert_eq!(host.gen_key(B, json!({})).unwrap().status, 200);
    // A damaged home may hold the only key: it is not replaced either.
    fs::remove_file(host.home(B).join("pubring.kbx")).unwrap();
    let said = restore(&host, &archive).badly("move ");
    assert!(said.stderr.contains("pubring.kbx: is missing"), "{}", said.stderr);
    fs::rename(host.home(B), host.scratch().join("aside")).unwrap();
    restore(&host, &archive).badly("the one here was left alone");
    assert_signs(&host, B);
}

#[test]
fn a_restore_that_is_killed_is_finished_by_the_next_one() {
    let (original, members) = host_with_backup();
    let archive = original.scratch().join("archive");
    fs::write(&archive, tar_of(&members)).unwrap();
    let host = empty_host();
    let arguments = ["restore", "--from", archive.to_str().unwrap()];
    for round in 0..12_u64 {
        let mut command = copr_keygen(&host, &arguments);
        let mut child = command.stderr(Stdio::null()).spawn().unwrap();
        thread::sleep(Duration::from_millis(20 * round));
        kill_child(&mut child);
        for id in keys_of(&host) {
            assert_eq!(tree(&host.home(&id)), tree(&original.home(&id)), "{id}");
        }
        if round % 4 == 3 {
            let _ = fs::remove_dir_all(host.home(A));
        }
    }
    // A gpg dies with the restore that started it. Then its staging directory can be cleared.
    eventually("the last restore", || run(&host, &arguments).code.filter(|code| *code == 0));
    assert_eq!(host.entries("keys"), [A, B]);
    assert_keys_are_those_of(&host, &original);
}

#[test]
fn a_full_disk_ends_it_and_the_next_run_goes_on() {
    let (original, members) = host_with_backup();
    let archive = original.scratch().join("archive");
    fs::write(&archive, tar_of(&members)).unwrap();
    let host = empty_host();
    let gpg = super::faults::stand_in(&host, "echo gpg: No space left on device >&2; exit 2");
    let arguments = ["restore", "--from", archive.to_str().unwrap()];
    let mut command = copr_keygen(&host, &arguments);
    let said: Said = command.env("COPR_KEYGEN_GPG", gpg).output().unwrap().into();
    said.badly("no space left");
    assert_eq!(host.entries("keys"), [""; 0]);
    assert_links_are_right(&host);
    run(&host, &arguments).well();
    assert_keys_are_those_of(&host, &original);
}

#[test]
fn what_it_reads_from_can_be_read() {
    let host = empty_host();
    let path: PathBuf = host.scratch().join("missing");
    run(&host, &["restore", "--from", path.to_str().unwrap()]).badly("No such file");
    run(&host, &["restore", "--from", host.scratch().to_str().unwrap()]).badly("directory");
    run(&host, &["restore", "--from", "/dev/null"]).badly("is empty");
}
