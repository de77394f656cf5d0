//! What cannot be read is not taken for something that does not exist.

use std::fs;
use std::os::unix::fs::symlink;

use serde_json::json;

use super::certificate::text;
use super::host::{Host, Transport};
use super::sealing::SealedHost;
use super::shim::Disk;

const ID: &str = "user#project@copr.example.org";

fn host() -> (Host, Disk) {
    let mut host = Host::new(Transport::PassedUnix, &[]);
    let disk = Disk::of(&mut host);
    host.launch();
    (host, disk)
}

#[test]
fn a_home_that_cannot_be_read_now_is_not_said_to_be_damaged() {
    let (host, disk) = host();
    assert_eq!(host.gen_key_patiently(ID, &json!({})).status, 201, "{}", host.log());
    // Without key.json, the names of the files tell which key this is.
    fs::remove_file(host.home(ID).join("key.json")).unwrap();
    for part in ["private-keys-v1.d", "openpgp-revocs.d"] {
        let directory = host.home(ID).join(part);
        disk.make_unreadable(&directory);
        let before = host.log().len();
        assert_eq!(host.gen_key(ID, json!({})).unwrap().status, 500);
        let log = &host.log()[before..];
        assert!(log.contains(&format!("reading {}", directory.display())), "{log}");
        assert!(!log.contains("backup"), "{log}");
        disk.make_readable();
        assert_eq!(host.gen_key(ID, json!({})).unwrap().status, 200, "{}", host.log());
    }
}

#[test]
fn a_pool_that_cannot_be_read_is_not_filled_for_ever() {
    let (host, disk) = host();
    let fill = || host.mode(&["fill-pool"]).env("COPR_KEYGEN_POOL", "2048:1").output().unwrap();
    assert!(fill().status.success());
    let pool = host.state().join("pool/rsa2048");
    disk.make_unreadable(&pool);
    let output = fill();
    assert_eq!(output.status.code(), Some(1), "{}", text(&output));
    assert!(text(&output).contains(pool.to_str().unwrap()), "{}", text(&output));
    assert_eq!(host.entries("pool/rsa2048").len(), 1);
}

#[test]
fn links_of_what_cannot_be_read_are_left_alone() {
    let (host, disk) = host();
    let other = "other#project@copr.example.org";
    assert_eq!(host.gen_key_patiently(other, &json!({})).status, 201, "{}", host.log());
    let links_of_other = host.entries("gnupg/private-keys-v1.d");
    assert_eq!(host.gen_key_patiently(ID, &json!({})).status, 201, "{}", host.log());
    let links = host.entries("gnupg/private-keys-v1.d");
    // Without its home, and with staging/ unreadable, this may be a key in the making.
    fs::rename(host.home(ID), host.scratch().join("home")).unwrap();
    disk.make_unreadable(&host.state().join("staging"));
    let check = ["check", "--repair", "--no-units", "--sign-conf", "/dev/null"];
    let output = host.run(&check);
    assert_eq!(output.status.code(), Some(1), "{}", text(&output));
    assert_eq!(host.entries("gnupg/private-keys-v1.d"), links, "{}", text(&output));
    disk.make_readable();
    host.run(&check);
    assert_eq!(host.entries("gnupg/private-keys-v1.d"), links_of_other);
}

#[test]
fn root_says_what_it_could_not_look_at() {
    if !nix::unistd::geteuid().is_root() {
        return; // only root can give files back
    }
    let (host, disk) = host();
    assert_eq!(host.gen_key_patiently(ID, &json!({})).status, 201, "{}", host.log());
    for directory in [host.home(ID), host.state().join("gnupg")] {
        disk.make_unreadable(&directory);
        let output = host.run(&["check", "--repair", "--no-units", "--sign-conf", "/dev/null"]);
        let page = String::from_utf8_lossy(&output.stdout).into_owned();
        let section = page.split("owners and modes").nth(1).unwrap_or_default();
        let section = section.split("\n\n").next().unwrap_or_default();
        assert!(section.contains("rror") || section.contains("cannot be read"), "{page}");
        assert!(section.contains("FAILED"), "{page}");
        disk.make_readable();
    }
}

#[test]
fn phrases_whose_state_cannot_be_told_are_not_claimed() {
    let mut sealed = SealedHost::new();
    sealed.host.launch();
    assert!(sealed.host.stop().success());
    let owner = sealed.phrases().join(".state");
    fs::remove_file(&owner).unwrap();
    symlink(".state", &owner).unwrap();
    let output = sealed.run(&["phrases"]);
    assert_eq!(output.status.code(), Some(1), "{}", text(&output));
    assert!(text(&output).contains(owner.to_str().unwrap()), "{}", text(&output));
    assert!(fs::symlink_metadata(&owner).unwrap().is_symlink());
}
