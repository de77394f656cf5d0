//! The state on a volume: open for a group, shared by several hosts, over a network that loses answers, or
//! not mounted.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::PathBuf;
use std::process::Command;
use std::thread;

use nix::sys::signal::Signal;
use serde_json::json;

use super::certificate::assert_signs;
use super::faults::{GATED, stand_in};
use super::host::{Host, Transport, eventually};
use super::safekeeping::{assert_links_are_right, run};

const ID: &str = "user#project@copr.example.org";
const OTHER: &str = "other#project@copr.example.org";

/// Has `host` use the file system through shim.c. Returns the directory with the files that tell the shim
/// what to do.
pub fn shim(host: &mut Host) -> PathBuf {
    let directory = host.scratch().join("shim");
    fs::create_dir(&directory).unwrap();
    let library = directory.join("shim.so");
    let compiled = Command::new("cc")
        .args(["-D_LARGEFILE64_SOURCE", "-shared", "-fPIC", "-o"])
        .arg(&library)
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/service/shim.c"))
        .arg("-ldl")
        .status();
    assert!(compiled.unwrap().success());
    host.set("LD_PRELOAD", library.display());
    host.set("CKG_SHIM", directory.display());
    directory
}

fn shimmed(environment: &[(&str, &str)]) -> (Host, PathBuf) {
    let mut host = Host::new(Transport::PassedUnix, environment);
    let told = shim(&mut host);
    (host, told)
}

/// Another host on the state of `host`. Its service does not run yet.
fn beside(host: &Host) -> Host {
    let state = host.state();
    Host::new(Transport::PassedUnix, &[("COPR_KEYGEN_STATE_DIR", state.to_str().unwrap())])
}

#[test]
fn a_rename_that_is_done_counts_whatever_the_answer_says() {
    let (mut host, told) = shimmed(&[]);
    host.launch();
    let lose = |error: i32, path: &str| {
        fs::write(told.join("rename"), format!("done {error} {path}")).unwrap();
    };
    let is_lost = || !told.join("rename").exists();
    for error in [libc::ESTALE, libc::EIO, libc::ENOENT, libc::ENOTEMPTY, libc::ETIMEDOUT] {
        lose(error, "/keys/");
        let made = host.gen_key_patiently(ID, &json!({}));
        assert!(is_lost() && made.status == 201, "{error}: {made:?} {}", host.log());
        assert_links_are_right(&host);
        assert_signs(&host, ID);
        // Into the trash and back.
        lose(error, "/home");
        run_in(&host, &["remove", "--yes", ID]);
        assert!(is_lost());
        assert_eq!(host.entries("keys"), [""; 0]);
        lose(error, "/keys/");
        run_in(&host, &["undo", ID]);
        assert!(is_lost());
        assert_links_are_right(&host);
        for file in ["pubring.kbx", "key.json"] {
            lose(error, file);
            run_in(&host, &["prolong", "--by", "5y", "--within", "9y"]);
            // A key that never expires is not prolonged, and the marker for signd is not touched. So nothing
            // has been renamed, and the shim has to forget its order.
            let _ = fs::remove_file(told.join("rename"));
        }
        run_in(&host, &["remove", "--yes", ID]);
        lose(error, "/.purging-");
        run_in(&host, &["purge", "--older-than", "0d", "--yes"]);
        assert!(is_lost());
    }
    // A key that expires is prolonged, and a key of the pool is claimed.
    let made = host.gen_key_patiently(OTHER, &json!({"expire": 30}));
    assert_eq!(made.status, 201, "{}", host.log());
    for file in ["/pubring.kbx", "/key.json"] {
        lose(libc::ESTALE, &format!("{OTHER}{file}"));
        run_in(&host, &["prolong", "--by", "5y", "--within", "9y"]);
        assert!(is_lost() || file == "/key.json");
    }
    let pool = || host.entries("pool/rsa2048").len();
    lose(libc::ENOENT, "/pool/");
    let mut fill = host.mode(&["fill-pool"]);
    assert!(fill.env("COPR_KEYGEN_POOL", "2048:1").status().unwrap().success());
    assert!(is_lost() && pool() == 1);
    lose(libc::ENOENT, "/staging/");
    assert_eq!(host.gen_key_patiently(ID, &json!({})).status, 201, "{}", host.log());
    assert!(is_lost() && pool() == 0, "it was claimed and not used");
    assert!(!host.log().contains("cannot be used"), "{}", host.log());
    assert_signs(&host, ID);
    assert_eq!(host.entries("staging"), [""; 0]);
}

/// Runs a mode through the shim; it must succeed.
fn run_in(host: &Host, arguments: &[&str]) {
    let output = host.run(arguments);
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn a_race_that_was_lost_to_another_host_ends_with_its_key_whatever_the_answer_says() {
    for error in [libc::ESTALE, libc::EIO, libc::ENOTEMPTY, libc::EEXIST] {
        let (mut host, told) = shimmed(&[]);
        fs::write(told.join("rename"), format!("lost {error} /keys/")).unwrap();
        host.launch();
        let mut rival = beside(&host);
        rival.launch();
        thread::scope(|scope| {
            let request = scope.spawn(|| host.gen_key(ID, json!({})).unwrap());
            eventually("the key to be made", || told.join("reached").exists().then_some(()));
            assert_eq!(rival.gen_key_patiently(ID, &json!({})).status, 201, "{}", rival.log());
            fs::write(told.join("go"), "").unwrap();
            let reply = request.join().unwrap();
            assert_eq!(reply.status, 200, "{error}: {}", host.log());
        });
        assert_links_are_right(&host);
        assert_signs(&host, ID);
        assert_eq!(host.entries("staging"), [""; 0]);
    }
}

#[test]
fn a_link_that_another_makes_and_a_third_removes_is_made_again() {
    let (mut host, told) = shimmed(&[]);
    host.launch();
    fs::write(told.join("symlink"), "").unwrap();
    assert_eq!(host.gen_key_patiently(ID, &json!({})).status, 201, "{}", host.log());
    assert!(!told.join("symlink").exists());
    assert!(!host.log().contains("was not our link"), "{}", host.log());
    assert_links_are_right(&host);
}

#[test]
fn a_clone_whose_locks_are_not_seen_leaves_live_work_alone() {
    let (mut host, here) = shimmed(&[]);
    let mut clone = beside(&host);
    let there = shim(&mut clone);
    for (told, boot) in [(&here, "a"), (&there, "b")] {
        fs::write(told.join("unseen"), "").unwrap();
        fs::write(told.join("machine-id"), "0123456789abcdef0123456789abcdef\n").unwrap();
        fs::write(told.join("boot_id"), format!("{}\n", boot.repeat(36))).unwrap();
    }
    let gpg = stand_in(&host, GATED);
    host.set("COPR_KEYGEN_GPG", gpg.display());
    host.launch();
    thread::scope(|scope| {
        let request = scope.spawn(|| host.gen_key(ID, json!({})).unwrap());
        let began = host.scratch().join("began");
        eventually("gpg runs", || began.exists().then_some(()));
        let work = host.entries("staging");
        assert_eq!(work.len(), 1);
        clone.launch();
        assert_eq!(clone.gen_key_patiently(OTHER, &json!({})).status, 201, "{}", clone.log());
        assert!(clone.stop().success());
        assert_eq!(host.entries("staging"), work, "{}", clone.log());
        fs::write(host.scratch().join("go"), "").unwrap();
        assert_eq!(request.join().unwrap().status, 201, "{}", host.log());
    });
    assert_signs(&host, ID);
    assert_eq!(host.entries("staging"), [""; 0]);
}

#[test]
fn what_a_killed_container_has_left_is_cleared_by_the_next_one_whatever_its_name() {
    let (mut host, told) = shimmed(&[]);
    fs::write(told.join("machine-id"), "0123456789abcdef0123456789abcdef\n").unwrap();
    let gpg = stand_in(&host, GATED);
    host.set("COPR_KEYGEN_GPG", gpg.display());
    host.launch();
    thread::scope(|scope| {
        let request = scope.spawn(|| host.gen_key(ID, json!({})));
        let began = host.scratch().join("began");
        eventually("gpg runs", || began.exists().then_some(()));
        host.signal(Signal::SIGKILL);
        assert!(request.join().unwrap().is_err());
    });
    host.wait();
    assert_eq!(host.entries("staging").len(), 1);
    fs::write(host.scratch().join("go"), "").unwrap();
    // The image of the next container has no machine-id, and its host name is another one.
    fs::write(told.join("machine-id"), "\n").unwrap();
    host.launch();
    assert_eq!(host.entries("staging"), [""; 0], "{}", host.log());
}

#[test]
fn ready_says_why_no_key_could_be_made_and_ping_answers_all_the_same() {
    let host = Host::start(Transport::PassedUnix);
    let ready = |words: &str| {
        let reply = host.get("/ready").unwrap();
        assert_eq!(reply.status, 503, "{reply:?}");
        assert!(reply.body.starts_with("not ready: ") && reply.body.contains(words), "{reply:?}");
        assert!(reply.header("Retry-After").is_some(), "{reply:?}");
        // The client need not know where the keys are.
        assert!(!reply.body.contains("/tmp"), "{reply:?}");
        assert_eq!(host.get("/ping").unwrap().body, "pong\n");
        assert!(host.log().contains(&format!("not ready: {}", &reply.body[11..].trim_end())));
    };
    let is_ready = || {
        let reply = host.get("/ready").unwrap();
        assert_eq!((reply.status, reply.body.as_str()), (200, "ready\n"));
    };
    is_ready();
    let head = host.send(b"HEAD /ready HTTP/1.1\r\n\r\n").unwrap();
    assert_eq!((head.status, head.body.as_str()), (200, ""));
    let post = host.send(b"POST /ready HTTP/1.1\r\nContent-Length: 0\r\n\r\n").unwrap();
    assert_eq!((post.status, post.header("Allow")), (405, Some("GET, HEAD")));

    let (state, away) = (host.state(), host.scratch().join("away"));
    fs::rename(&state, &away).unwrap();
    ready("the state directory is not there");
    // An empty directory, as below a volume that is not mounted.
    fs::create_dir(&state).unwrap();
    ready("the state directory is not the one that was opened");
    fs::remove_dir(&state).unwrap();
    fs::rename(&away, &state).unwrap();
    is_ready();
    for (part, missing) in [
        ("keys", "is not there"),
        ("staging", "cannot be written to"),
        ("gnupg", "cannot be written to"),
        ("gnupg/private-keys-v1.d", "cannot be written to"),
        ("phrases", "cannot be written to"),
    ] {
        fs::rename(state.join(part), &away).unwrap();
        ready(&format!("{part}/ of the state {missing}"));
        // A file in place of the directory stops root as well. A mode would not.
        fs::write(state.join(part), "").unwrap();
        let other = if part == "keys" { "is not the one" } else { "cannot be written to" };
        ready(&format!("{part}/ of the state {other}"));
        fs::remove_file(state.join(part)).unwrap();
        fs::rename(&away, state.join(part)).unwrap();
        is_ready();
    }
    // A keyring of another service, as before its keys are taken over.
    fs::write(state.join("gnupg/pubring.gpg"), "keys").unwrap();
    ready("the keys of another service have not been taken over");
    fs::remove_file(state.join("gnupg/pubring.gpg")).unwrap();
    is_ready();
    assert_eq!(host.log().matches("info: ready again").count(), 7, "{}", host.log());
}

#[test]
fn a_volume_of_a_group_is_used_by_whoever_is_in_it() {
    if !nix::unistd::geteuid().is_root() {
        // Only root can make a directory that belongs to root and is open for a group.
        println!("not run: needs root");
        return;
    }
    const GROUP: u32 = 23456;
    for mode in [0o2770, 0o2775, 0o770, 0o3770] {
        let mut host = volume(mode, 0, GROUP);
        host.run_as_stranger_in(GROUP);
        host.launch();
        let made = host.gen_key_patiently(ID, &json!({}));
        assert_eq!(made.status, 201, "{mode:o}: {}", host.log());
        assert_eq!(host.get("/ready").unwrap().status, 200);
        assert_closed(&host);
        let found = fs::metadata(host.state()).unwrap();
        assert_eq!((found.uid(), found.mode() & 0o7777), (0, mode), "it is not ours to change");
        for arguments in [&["check"][..], &["check", "--deep", "--repair"]] {
            let page = host.run(arguments);
            let said = String::from_utf8_lossy(&page.stdout);
            assert!(!said.contains("mode") || !said.contains("instead of"), "{said}");
            assert!(said.contains("can rename or replace keys/"), "{said}");
            assert!(!said.contains("check as root"), "{said}");
            assert!(said.contains("with every file there"), "{said}");
        }
        assert!(host.stop().success());

        // When a pod restarts, everything on its volume is opened for the group again.
        let open = Command::new("chmod").args(["-R", "g+rwX"]).arg(host.state()).status();
        assert!(open.unwrap().success());
        host.launch();
        assert_eq!(host.gen_key_patiently(OTHER, &json!({})).status, 201, "{}", host.log());
        assert_closed(&host);
        assert_eq!(host.gen_key(ID, json!({})).unwrap().status, 200);
        // A mode that root runs works as the owner of what is in the volume, and not as the owner of the
        // volume.
        assert!(host.stop().success());
        let removed = run(&host, &["remove", "--yes", ID]);
        assert_eq!(removed.code, Some(0), "{}", removed.stderr);
        assert_eq!(fs::metadata(host.state().join("trash")).unwrap().uid(), 12345);
        assert_closed(&host);
    }
}

#[test]
fn a_directory_of_somebody_else_that_is_no_volume_for_us_is_refused_in_words() {
    if !nix::unistd::geteuid().is_root() {
        println!("not run: needs root");
        return;
    }
    for (mode, groups, words) in [
        (0o2770, 34567, "lets group 23456 write in it, and this process, uid 12345, may not"),
        (0o2750, 23456, "this process is uid 12345; run it as the owner"),
        (0o2777, 23456, "may be one below a directory that uid 12345 can write in"),
        (0o1777, 23456, "belongs to uid 0"),
    ] {
        let mut host = volume(mode, 0, 23456);
        host.run_as_stranger_in(groups);
        host.spawn();
        assert_eq!(host.wait().code(), Some(78), "{mode:o}: {}", host.log());
        assert!(host.log().contains(words), "{mode:o}: {}", host.log());
        if mode == 0o2777 {
            // The remedy in the refusal works.
            host.set("COPR_KEYGEN_STATE_DIR", host.state().join("state").display());
            host.launch();
            assert_eq!(host.gen_key_patiently(ID, &json!({})).status, 201, "{}", host.log());
        }
    }
}

/// A host whose state directory exists with this mode, owner and group.
pub fn volume(mode: u32, owner: u32, group: u32) -> Host {
    let host = Host::new(Transport::PassedUnix, &[]);
    fs::create_dir(host.state()).unwrap();
    chown(host.state(), Some(owner), Some(group)).unwrap();
    fs::set_permissions(host.state(), Permissions::from_mode(mode)).unwrap();
    host
}

/// Asserts that every part of the state belongs to user 12345, and is closed to everybody else.
fn assert_closed(host: &Host) {
    let parts = host.entries("");
    assert!(parts.len() >= 5, "{parts:?}");
    for part in parts {
        let found = fs::symlink_metadata(host.state().join(&part)).unwrap();
        assert_eq!((found.uid(), found.mode() & 0o5777), (12345, 0o700), "{part}");
    }
}
