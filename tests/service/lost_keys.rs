//! Keys that are not where they were. None is made anew, nothing is mended around them, and the command that
//! is printed brings them back.

use std::fs::{self, DirBuilder, Permissions};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::process::Command;

use serde_json::json;

use super::certificate::{assert_signs, text};
use super::check_host::SignHost;
use super::gen_key::snapshot;
use super::host::{Host, Transport};
use super::old_host::words;
use super::years::clock;

const ID: &str = "user#project@copr.example.org";

fn host_with_key() -> Host {
    let mut host = Host::start(Transport::ListenUnix);
    assert_eq!(host.gen_key(ID, json!({})).unwrap().status, 201);
    assert!(host.stop().success());
    host
}

#[test]
fn keys_that_were_moved_away_are_not_made_anew() {
    assert_not_made_anew(host_with_key());
}

#[test]
fn keys_whose_phrases_are_in_memory_are_not_made_anew() {
    let mut host = Host::new(Transport::ListenUnix, &[]);
    let phrases = tempfile::tempdir_in("/dev/shm").unwrap();
    fs::set_permissions(phrases.path(), Permissions::from_mode(0o700)).unwrap();
    host.set("COPR_KEYGEN_PHRASES_DIR", phrases.path().display());
    host.launch();
    assert_eq!(host.gen_key(ID, json!({})).unwrap().status, 201);
    assert!(host.stop().success());
    assert!(host.entries("phrases").is_empty());
    // The old service had the same secret key, and its directories are kept.
    let old = host.state().join("trash/20200101T000000-old-service/gnupg/private-keys-v1.d");
    DirBuilder::new().recursive(true).mode(0o700).create(&old).unwrap();
    let [key] = <[String; 1]>::try_from(host.entries("gnupg/private-keys-v1.d")).unwrap();
    fs::copy(host.state().join("gnupg/private-keys-v1.d").join(&key), old.join(&key)).unwrap();
    assert_not_made_anew(host);
}

fn assert_not_made_anew(mut host: Host) {
    let (keys, aside) = (host.state().join("keys"), host.state().join("keys.old"));
    let fingerprint = host.json(&["show", "--json", ID])["fingerprint"].clone();
    for is_empty in [false, true] {
        fs::rename(&keys, &aside).unwrap();
        if is_empty {
            fs::create_dir(&keys).unwrap();
        }
        let before = snapshot(&host.state());
        let recipient = host.scratch().join("recipient");
        fs::write(&recipient, "a certificate").unwrap();
        let make = ["make", "--real", "x", ID];
        for arguments in [&["serve"][..], &make, &["prolong"], &["fill-pool"]] {
            let refused = host.run(arguments);
            assert_eq!(refused.status.code(), Some(78), "{arguments:?}: {}", words(&refused));
            // Without keys/, other modes find no state at all.
            let said = words(&refused);
            let is_no_state = !is_empty && said.contains("there is no state at");
            assert!(said.contains("lead to keys there") || is_no_state, "{said}");
        }
        for options in [&["check", "--no-units"][..], &["check", "--no-units", "--repair"]] {
            let page = host.run(options);
            assert_eq!(page.status.code(), Some(1), "{}", text(&page));
            assert!(text(&page).contains("put it back with: "), "{}", text(&page));
        }
        assert_eq!(snapshot(&host.state()), before);
        let said = words(&host.run(&["serve"]));
        let command = said.trim().rsplit_once("put it back with: ").unwrap().1;
        assert!(Command::new("sh").args(["-c", command]).status().unwrap().success(), "{command}");
        host.launch();
        assert_eq!(host.gen_key(ID, json!({})).unwrap().status, 200);
        assert_eq!(host.json(&["show", "--json", ID])["fingerprint"], fingerprint);
        assert_signs(&host, ID);
        assert!(host.stop().success());
    }
}

#[test]
fn a_home_that_is_missing_is_named_before_another_key_is_made() {
    let host = Host::start(Transport::ListenUnix);
    assert_eq!(host.gen_key(ID, json!({})).unwrap().status, 201);
    assert!(!host.log().contains("its home is missing"));
    fs::rename(host.home(ID), host.scratch().join("home")).unwrap();
    assert_eq!(host.gen_key(ID, json!({})).unwrap().status, 201);
    assert!(host.log().contains("its home is missing"), "{}", host.log());
}

#[test]
fn nothing_is_removed_under_a_clock_that_cannot_be_right() {
    let mut host = host_with_key();
    let remove =
        host.mode(&["remove", "--yes", ID]).envs(clock("1970-01-02 00:00:00")).output().unwrap();
    assert_eq!(remove.status.code(), Some(1), "{}", words(&remove));
    assert!(words(&remove).contains("clock"), "{}", words(&remove));
    host.launch();
    assert_signs(&host, ID);
}

#[test]
fn the_next_increment_does_not_begin_at_a_time_to_come() {
    let host = host_with_key();
    let recipient = host.scratch().join("recipient");
    fs::write(&recipient, "a certificate").unwrap();
    let to = host.scratch().join("backup.gpg");
    let arguments = ["backup", "--since", "2100-01-01", "--recipient"];
    let mut mode = host.mode(&arguments);
    let refused = mode.arg(&recipient).arg("--to").arg(&to).output().unwrap();
    assert_eq!(refused.status.code(), Some(2), "{}", words(&refused));
    assert!(words(&refused).contains("still to come"), "{}", words(&refused));
    assert!(!to.exists());
}

#[test]
fn the_only_passphrase_that_opens_a_key_is_destroyed_by_no_command_that_check_prints() {
    let sign_host = SignHost::with_keys(&[ID]);
    let home = sign_host.host.home(ID);
    let copy = home.join("passphrase.bak");
    fs::copy(home.join("passphrase"), &copy).unwrap();
    let is_command = || {
        let found = sign_host.check(&[]);
        let line = found.line("warning", "passphrase.bak", "in the clear").unwrap();
        line["is_command"].as_bool().unwrap()
    };
    assert!(is_command(), "the passphrase of the home is good");
    fs::write(home.join("passphrase"), "spoilt\n").unwrap();
    assert!(!is_command());
    fs::remove_file(home.join("passphrase")).unwrap();
    assert!(!is_command());
    fs::rename(&copy, home.join("passphrase")).unwrap();
    sign_host.assert_well(&["--deep"]);
}

#[test]
fn what_only_a_deep_look_finds_is_mended_by_the_command_that_it_prints() {
    let sign_host = SignHost::with_keys(&[]);
    sign_host.host.gen_key_patiently(ID, &json!({"expire": 365}));
    let path = sign_host.host.home(ID).join("key.json");
    let mut record: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    let expires = std::mem::replace(&mut record["expires"], json!(null));
    fs::write(&path, record.to_string()).unwrap();
    let found = sign_host.check(&["--deep"]);
    let line = found.line("failed", "key.json", "").unwrap_or_else(|| panic!("{found:#?}"));
    assert!(line["remedy"].as_str().unwrap().contains("check --repair --deep "), "{line}");
    sign_host.check(&["--repair", "--deep"]);
    let record: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    assert_eq!(record["expires"], expires);
}
