//! A volume that belongs to root and is open for a group. Modes that root runs work there as the user who
//! owns what is in it. If nothing tells who that is, they do nothing.

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path;
use std::process::Command;

use serde_json::json;

use super::host::{Host, Transport};
use super::old_host::{OldHost, plain};
use super::volumes::volume;

const UID: u32 = 12345;
const GROUP: u32 = 23456;
const MODE: u32 = 0o2770;

fn is_root() -> bool {
    let is_root = nix::unistd::geteuid().is_root();
    if !is_root {
        println!("not run: needs root");
    }
    is_root
}

/// Asserts that the volume of `host` is as it was made, and that all in it, sockets too, belongs to the
/// container's user.
fn assert_is_the_containers(host: &Host) {
    let found = fs::metadata(host.state()).unwrap();
    assert_eq!((found.uid(), found.gid(), found.mode() & 0o7777), (0, GROUP, MODE));
    let mut command = Command::new("find");
    let others = command.arg(host.state()).args(["-mindepth", "1", "!", "-uid", "12345"]).output();
    assert_eq!(String::from_utf8(others.unwrap().stdout).unwrap(), "");
}

/// Runs a mode. Returns its exit status and all it said.
fn end(mut command: Command) -> (Option<i32>, String) {
    let output = command.output().unwrap();
    let said = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap());
    (output.status.code(), said.concat())
}

/// A volume with the keys of the old service, which the user of the container owns.
fn old_volume(ids: &[String]) -> Host {
    let old = OldHost::new(ids);
    old.rest();
    let host = volume(MODE, 0, GROUP);
    for (from, name) in [(old.gnupg(), "gnupg"), (old.phrases(), "phrases")] {
        let to = host.state().join(name);
        fs::rename(from, &to).unwrap();
        let mut chown = Command::new("chown");
        assert!(chown.args(["-R", "12345:23456"]).arg(to).status().unwrap().success());
    }
    host
}

#[test]
fn root_takes_the_old_keys_in_a_volume_over_as_the_user_who_owns_them() {
    if !is_root() {
        return;
    }
    let ids = plain(2);
    let mut host = old_volume(&ids);
    let (_, said) = end(host.mode(&["check", "--repair", "--no-units"]));
    assert_is_the_containers(&host);
    assert!(said.contains("import"), "{said}");

    let gpg_copr = host.scratch().join("gpg-copr");
    symlink(env!("CARGO_BIN_EXE_copr-keygen"), &gpg_copr).unwrap();
    let list = |agent: &str| {
        let mut command = Command::new(&gpg_copr);
        command.env_clear().env("PATH", "/usr/bin:/bin").env("COPR_KEYGEN_CONFIG", "/dev/null");
        command.env("COPR_KEYGEN_STATE_DIR", host.state());
        command.args(["--batch", agent, &ids[0]]);
        end(command)
    };
    // Before the import, this uses the agent of the old service, which leaves sockets.
    let (status, said) = list("--list-secret-keys");
    assert_eq!(status, Some(0), "{said}");
    assert_is_the_containers(&host);

    let (status, said) = end(host.mode(&["import"]));
    assert_eq!(status, Some(0), "{said}");
    assert_is_the_containers(&host);
    let (status, said) = list("--locate-key");
    assert_eq!(status, Some(0), "{said}");
    assert_is_the_containers(&host);

    // The container itself can use the state that root has taken over.
    host.run_as_stranger_in(GROUP);
    host.launch();
    assert_eq!(host.gen_key(&ids[0], json!({})).unwrap().status, 200, "{}", host.log());
    assert!(host.stop().success());
    assert_is_the_containers(&host);
}

#[test]
fn root_touches_nothing_in_a_volume_where_nothing_tells_who_owns_the_keys() {
    if !is_root() {
        return;
    }
    for parts in [&[][..], &["keys", "gnupg", "phrases"]] {
        let mut host = volume(MODE, 0, GROUP);
        for part in parts {
            fs::create_dir(host.state().join(part)).unwrap();
        }
        let install = format!("install -d -m 0700 -o UID {}/keys", host.state().display());
        host.spawn();
        assert_eq!(host.wait().code(), Some(78), "{}", host.log());
        assert!(host.log().contains(&install), "{}", host.log());
        for mode in [&["import"][..], &["check", "--repair", "--no-units"]] {
            let (status, said) = end(host.mode(mode));
            let expected = if mode[0] == "check" { 1 } else { 78 };
            assert_eq!(status, Some(expected), "{mode:?}: {said}");
            assert!(said.contains(&install), "{mode:?}: {said}");
            let found = fs::metadata(host.state()).unwrap();
            assert_eq!((found.uid(), found.mode() & 0o7777), (0, MODE), "{mode:?}");
            assert_eq!(host.entries("").len(), parts.len(), "{mode:?}");
        }
        // The command in the message works as printed.
        let install = install.replace("UID", &UID.to_string());
        assert!(Command::new("sh").args(["-c", &install]).status().unwrap().success());
        end(host.mode(&["check", "--repair", "--no-units"]));
        assert_is_the_containers(&host);
        host.launch();
        assert_eq!(host.gen_key_patiently(&plain(1)[0], &json!({})).status, 201, "{}", host.log());
        assert!(host.stop().success());
        assert_is_the_containers(&host);
    }
}

#[test]
fn another_user_of_the_group_is_told_whose_the_keys_are() {
    if !is_root() {
        return;
    }
    let old = old_volume(&plain(1));
    let mut new = volume(MODE, 0, GROUP);
    fs::create_dir(new.state().join("keys")).unwrap();
    std::os::unix::fs::chown(new.state().join("keys"), Some(54321), Some(GROUP)).unwrap();
    new.run_as_stranger_in(GROUP);
    let chown = Command::new("chown").args(["-R", "54321"]).arg(old.state().join("gnupg")).status();
    assert!(chown.unwrap().success());
    let mut old_host = Host::new(Transport::PassedUnix, &[]);
    old_host.set("COPR_KEYGEN_STATE_DIR", old.state().display());
    old_host.run_as_stranger_in(GROUP);
    for (host, state, modes) in [
        (&new, new.state(), &[&["serve"][..], &["list"], &["import"], &["prolong"]][..]),
        (&old_host, old.state(), &[&["serve"], &["import"], &["list"]]),
    ] {
        fs::set_permissions(&state, std::os::unix::fs::PermissionsExt::from_mode(MODE)).unwrap();
        for mode in modes {
            let (status, said) = end(host.mode(mode));
            assert_eq!(status, Some(78), "{mode:?}: {said}");
            assert!(said.contains("belongs to uid 54321, this process is uid 12345"), "{said}");
            assert!(!said.contains("Permission denied"), "{mode:?}: {said}");
        }
        let gpg = ["gpg", "--", "--locate-key", &plain(1)[0]];
        let (status, said) = end(host.mode(&gpg));
        assert_eq!(status, Some(78), "{said}");
        assert!(said.contains("run it as uid 54321"), "{said}");
        let (status, said) = end(host.mode(&["check", "--no-units"]));
        assert_eq!(status, Some(1), "{said}");
        assert!(Path::new(&state).exists() && said.contains("54321"), "{said}");
    }
}
