//! `copr-keygen remove`, `undo` and `purge`: a key is in `keys/` or in the trash, whatever happens.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::fcntl::{Flock, FlockArg, OFlag};
use nix::pty::{grantpt, posix_openpt, ptsname_r, unlockpt};
use serde_json::{Value, json};

use super::certificate::assert_signs;
use super::host::{DoneWhenDropped, Host, Transport, eventually, kill_child};
use super::safekeeping::{
    Said, assert_links_are_right, assert_private, copr_keygen, is_revoked, run, tree,
};

const ID: &str = "user#project@copr.example.org";
const OTHER: &str = "other#project@copr.example.org";

fn host_with_keys(ids: &[&str]) -> Host {
    let host = Host::start(Transport::PassedUnix);
    for id in ids {
        assert_eq!(host.gen_key_patiently(id, &json!({})).status, 201, "{}", host.log());
    }
    host
}

fn remove(host: &Host, id: &str) -> Said {
    run(host, &["remove", "--yes", id])
}

fn fingerprint(host: &Host, id: &str) -> String {
    let record = fs::read(host.home(id).join("key.json")).unwrap();
    let record: Value = serde_json::from_slice(&record).unwrap();
    record["fingerprint"].as_str().unwrap().to_owned()
}

/// Returns the path of the only entry of the trash.
fn entry(host: &Host) -> PathBuf {
    let [entry] = <[String; 1]>::try_from(host.entries("trash")).unwrap();
    host.state().join("trash").join(entry)
}

/// Whether `copr-keygen gpg`, called as signd calls it, makes a signature.
fn can_sign(host: &Host, id: &str) -> bool {
    let how = ["--batch", "--pinentry-mode", "loopback", "--passphrase-fd", "0"];
    let what = ["-u", id, "-sbo", "-", "/dev/null"];
    let arguments = [&["gpg", "--"], &how[..], &what].concat();
    let phrase = File::open(host.state().join("phrases").join(id));
    let mut command = copr_keygen(host, &arguments);
    if let Ok(phrase) = phrase {
        command.stdin(phrase);
    }
    let output = command.output().unwrap();
    let mut end = Command::new("gpgconf");
    let _ = end.arg("--homedir").arg(host.state().join("gnupg")).args(["--kill", "all"]).status();
    output.status.success()
}

#[test]
fn a_removed_key_cannot_sign_and_one_that_is_brought_back_can() {
    let host = host_with_keys(&[ID, OTHER]);
    let before = tree(&host.home(ID));
    let fingerprint = fingerprint(&host, ID);
    let marker = fs::metadata(host.state().join("gnupg/pubring.kbx")).unwrap();
    let said = remove(&host, ID).well();
    assert!(said.stderr.contains(&fingerprint) && said.stderr.contains("NEW key"), "{said:?}");
    assert!(!can_sign(&host, ID));
    assert_links_are_right(&host);
    assert_eq!(host.entries("keys"), [OTHER]);
    let changed = fs::metadata(host.state().join("gnupg/pubring.kbx")).unwrap();
    assert_ne!(marker.modified().unwrap(), changed.modified().unwrap(), "signd was not told");

    let entry = entry(&host);
    assert_private(&host.state().join("trash"));
    assert_eq!(tree(&entry.join("home")), before);
    assert!(is_revoked(&entry.join("home"), &entry.join("revoked.asc")));
    let certificate = host.scratch().join("certificate");
    super::host::gpg(
        &entry.join("home"),
        &["--armor", "--output", certificate.to_str().unwrap(), "--export"],
    );
    remove(&host, ID).badly("there is no key of user#project@copr.example.org");

    let said = run(&host, &["undo", ID]).well();
    assert!(said.stderr.contains(&fingerprint), "{}", said.stderr);
    assert_eq!(tree(&host.home(ID)), before);
    assert!(!is_revoked(&host.home(ID), &certificate));
    assert_eq!(host.entries("trash"), [""; 0]);
    assert_links_are_right(&host);
    assert_private(&host.home(ID));
    assert_signs(&host, ID);
    assert_eq!(host.gen_key(ID, json!({})).unwrap().status, 200);
    run(&host, &["undo", ID]).badly("the trash is empty");
}

#[test]
fn a_name_gets_a_new_key_after_a_removal_and_undo_does_not_touch_it() {
    let host = host_with_keys(&[ID]);
    let old = fingerprint(&host, ID);
    remove(&host, ID).well();
    assert_eq!(host.gen_key_patiently(ID, &json!({})).status, 201);
    let new = fingerprint(&host, ID);
    assert_ne!(new, old);
    run(&host, &["undo", ID]).badly(&new);
    run(&host, &["undo", OTHER]).badly(&format!("in the trash are: {ID} (20"));
    assert_eq!(fingerprint(&host, ID), new);
    assert_links_are_right(&host);
    assert_signs(&host, ID);

    // Of two removed keys, `undo` brings the last one back. For the other one, the last one has to be moved
    // away first, as the refusal says.
    remove(&host, ID).well();
    run(&host, &["undo", ID]).well();
    assert_eq!(fingerprint(&host, ID), new);
    remove(&host, ID).well();
    let last = host.entries("trash").pop().unwrap();
    fs::rename(host.state().join("trash").join(last), host.scratch().join("aside")).unwrap();
    run(&host, &["undo", ID]).well();
    assert_eq!(fingerprint(&host, ID), old);
    assert_signs(&host, ID);
    assert_links_are_right(&host);
}

#[test]
fn whoever_works_on_a_key_is_not_disturbed() {
    let host = host_with_keys(&[ID]);
    let home = File::open(host.home(ID)).unwrap();
    let held = Flock::lock(home, FlockArg::LockExclusiveNonblock).unwrap();
    remove(&host, ID).badly("being worked on by another process");
    drop(held);
    remove(&host, ID).well();
    let held = Flock::lock(File::open(entry(&host)).unwrap(), FlockArg::LockExclusive).unwrap();
    run(&host, &["undo", ID]).badly("being worked on");
    run(&host, &["purge", "--older-than", "0d", "--yes"]).badly("being worked on");
    drop(held);
    run(&host, &["undo", ID]).well();
}

#[test]
fn a_key_that_cannot_be_revoked_or_tried_stays_where_it_is() {
    let host = host_with_keys(&[ID, OTHER]);
    let revocation =
        |id: &str| host.home(id).join(format!("openpgp-revocs.d/{}.rev", fingerprint(&host, id)));
    let mine = fs::read(revocation(ID)).unwrap();
    for (wrong, words) in [
        (fs::read(revocation(OTHER)).unwrap(), "revo"),
        (b"nonsense".to_vec(), "is no revocation certificate"),
    ] {
        fs::write(revocation(ID), wrong).unwrap();
        remove(&host, ID).badly(words);
        assert_links_are_right(&host);
        assert!(!host.state().join("trash").exists());
    }
    fs::write(revocation(ID), mine).unwrap();
    remove(&host, ID).well();
    let passphrase = entry(&host).join("home/passphrase");
    let right = fs::read(&passphrase).unwrap();
    fs::write(&passphrase, "wrong").unwrap();
    run(&host, &["undo", ID]).badly("gpg failed");
    assert_eq!(host.entries("keys"), [OTHER]);
    assert_links_are_right(&host);
    fs::write(&passphrase, right).unwrap();
    run(&host, &["undo", ID]).well();
    assert_links_are_right(&host);
}

#[test]
fn what_stands_in_place_of_a_link_is_kept() {
    let host = host_with_keys(&[ID]);
    let links = host.state().join("gnupg/private-keys-v1.d");
    let link = links.join(&host.entries("gnupg/private-keys-v1.d")[0]);
    fs::remove_file(&link).unwrap();
    fs::write(&link, "somebody's only copy").unwrap();
    remove(&host, ID).well();
    assert!(!link.exists());
    let kept = entry(&host).join(link.file_name().unwrap());
    assert_eq!(fs::read(&kept).unwrap(), b"somebody's only copy");
    run(&host, &["undo", ID]).well();
    assert!(kept.exists());
    run(&host, &["purge", "--older-than", "0d", "--yes"]).well();
    assert!(kept.exists(), "nobody was asked about this");
    assert_links_are_right(&host);
}

#[test]
fn requests_for_a_key_that_is_removed_leave_no_link_to_nothing() {
    let host = host_with_keys(&[ID]);
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let _done = DoneWhenDropped(&done);
        for _ in 0..4 {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    let answer = host.gen_key(ID, json!({}));
                    let good = |status| matches!(status, 200 | 201 | 503);
                    let is_good = answer.as_ref().is_ok_and(|reply| good(reply.status));
                    assert!(is_good, "{answer:?}\n{}", host.log());
                }
            });
        }
        for round in 0..12 {
            let said = remove(&host, ID);
            let refused = said.stderr.contains("there is no key") || said.stderr.contains("worked");
            assert!(said.code == Some(0) || refused, "{}", said.stderr);
            if round % 2 == 0 {
                let said = run(&host, &["undo", ID]);
                let refused = said.stderr.contains("has a key");
                assert!(said.code == Some(0) || refused, "{}", said.stderr);
            }
        }
    });
    // If the last change was not a removal, remove the key.
    let _ = remove(&host, ID);
    assert_eq!(host.entries("keys"), [""; 0]);
    assert_links_are_right(&host);
    assert!(host.entries("trash").len() > 1, "it was never removed under load");
    assert_eq!(host.gen_key_patiently(ID, &json!({})).status, 201, "{}", host.log());
    assert_links_are_right(&host);
    assert_signs(&host, ID);
}

#[test]
fn kills_leave_a_key_in_one_place_and_the_next_run_ends_what_was_begun() {
    let host = host_with_keys(&[ID]);
    let before = tree(&host.home(ID));
    let started = Instant::now();
    remove(&host, ID).well();
    run(&host, &["undo", ID]).well();
    // Kills come at all times of a removal, and some come after it.
    let whole = started.elapsed().as_millis() as u64;
    let (mut removed, mut back) = (0, 0);
    for round in 0..40 {
        let is_here = host.home(ID).exists();
        let arguments = if is_here { ["remove", "--yes", ID] } else { ["undo", ID, "--"] };
        let arguments = &arguments[..if is_here { 3 } else { 2 }];
        let mut child = copr_keygen(&host, arguments).stderr(Stdio::null()).spawn().unwrap();
        thread::sleep(Duration::from_millis(round * 7 % 40 * whole / 40));
        kill_child(&mut child);
        match (is_here, host.home(ID).exists()) {
            (true, false) => removed += 1,
            (false, true) => back += 1,
            _ => {}
        }
        let places: Vec<_> = places_of(&host);
        assert_eq!(places.len(), 1, "{round}: {places:?}");
        assert_eq!(tree(&places[0]), before, "{round}");
        if host.home(ID).exists() {
            assert_eq!(host.gen_key(ID, json!({})).unwrap().status, 200, "{}", host.log());
            assert!(host.state().join("phrases").join(ID).exists());
        }
    }
    println!("killed after {removed} removals and {back} undos took effect");
    if !host.home(ID).exists() {
        eventually("undo", || run(&host, &["undo", ID]).code.filter(|code| *code == 0));
    }
    run(&host, &["purge", "--older-than", "0d", "--yes"]).well();
    assert_eq!(host.entries("trash"), [""; 0]);
    assert_eq!(tree(&host.home(ID)), before);
    assert_links_are_right(&host);
    assert_signs(&host, ID);
}

/// Returns every place where there is a home of the identity.
fn places_of(host: &Host) -> Vec<PathBuf> {
    let trash = host.state().join("trash");
    let entries = if trash.exists() { host.entries("trash") } else { Vec::new() };
    let homes = entries.iter().map(|entry| trash.join(entry).join("home"));
    homes.chain([host.home(ID)]).filter(|home| home.exists()).collect()
}

#[test]
fn purging_destroys_what_is_old_enough_and_finishes_what_was_begun() {
    let host = host_with_keys(&[ID, OTHER]);
    let purge = |span: &str| run(&host, &["purge", "--older-than", span, "--yes"]);
    assert!(purge("0d").well().stderr.contains("nothing so old"));
    remove(&host, ID).well();
    // By the name of its entry, this key was removed long ago.
    let old = host.state().join(format!("trash/20200101T000000-{ID}"));
    fs::rename(entry(&host), &old).unwrap();
    remove(&host, OTHER).well();
    // An entry that no removal has made is not ours to destroy.
    fs::create_dir(host.state().join("trash/of-somebody")).unwrap();
    // The remains of a removal that was killed before it moved the home, and of a purge that was killed.
    let hollow = host.state().join(format!("trash/20200101T000001-{ID}"));
    fs::create_dir(&hollow).unwrap();
    fs::write(hollow.join("revoked.asc"), "x").unwrap();
    let doomed = host.state().join(format!("trash/.purging-20200101T000002-{ID}"));
    fs::create_dir_all(doomed.join("home")).unwrap();

    let said = purge("36500d").well();
    assert!(said.stderr.contains("finished 1 purge that"), "{}", said.stderr);
    assert!(old.exists() && !hollow.exists() && !doomed.exists());
    let said = purge("30d").well();
    assert!(said.stderr.contains(ID) && !said.stderr.contains(OTHER), "{}", said.stderr);
    assert!(!old.exists());
    run(&host, &["undo", ID]).badly("there is no removed key");
    run(&host, &["purge", "--older-than", "0d"]);
    assert_eq!(host.entries("trash").len(), 2, "it did not ask");
    purge("0d").well();
    assert_eq!(host.entries("trash"), ["of-somebody"]);
    run(&host, &["undo", OTHER]).badly("the trash is empty");
}

#[test]
fn it_asks_on_a_terminal_and_nowhere_else() {
    let host = host_with_keys(&[ID]);
    for arguments in [&["remove", ID][..], &["purge", "--older-than", "0d"]] {
        if arguments[0] == "purge" {
            remove(&host, ID).well();
        }
        let said = run(&host, arguments);
        assert_eq!(said.code, Some(2), "{}", said.stderr);
        assert!(said.stderr.contains("say --yes"), "{}", said.stderr);
        let (code, said) = answer(&host, arguments, "n\n");
        assert!(code == Some(1) && said.contains("nothing was done"), "{said}");
        let (code, said) = answer(&host, arguments, "\n");
        assert!(code == Some(1) && said.contains("Type "), "{said}");
        assert_eq!(places_of(&host).len(), 1);
        let yes = if arguments[0] == "remove" { format!("{ID}\n") } else { "y\n".into() };
        let (code, said) = answer(&host, arguments, &yes);
        assert_eq!(code, Some(0), "{said}");
        if arguments[0] == "remove" {
            run(&host, &["undo", ID]).well();
        }
    }
    assert_eq!(places_of(&host).len(), 0);
}

/// Runs a mode on a terminal where somebody types `text`. Returns its exit status and what it says on stderr.
fn answer(host: &Host, arguments: &[&str], text: &str) -> (Option<i32>, String) {
    let mut terminal = posix_openpt(OFlag::O_RDWR | OFlag::O_NOCTTY).unwrap();
    grantpt(&terminal).unwrap();
    unlockpt(&terminal).unwrap();
    let name = ptsname_r(&terminal).unwrap();
    let theirs = File::options().read(true).write(true).open(name).unwrap();
    let mut command = copr_keygen(host, arguments);
    command.stdin(theirs).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    terminal.write_all(text.as_bytes()).unwrap();
    let mut said = String::new();
    child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    (child.wait().unwrap().code(), said)
}

#[test]
fn a_file_in_place_of_a_purge_that_was_begun_keeps_no_key_from_being_purged() {
    let host = host_with_keys(&[ID]);
    remove(&host, ID).well();
    let odd = host.state().join("trash/.purging-x");
    fs::write(&odd, "precious").unwrap();
    let said = run(&host, &["purge", "--older-than", "0d", "--yes"]).well();
    assert!(said.stderr.contains(&format!("rm -r {}", odd.display())), "{}", said.stderr);
    assert_eq!(host.entries("trash"), [".purging-x"]);
    assert_eq!(fs::read(&odd).unwrap(), b"precious");
}

#[test]
fn what_somebody_has_put_into_a_home_is_there_after_an_undo() {
    let host = host_with_keys(&[ID]);
    let home = host.home(ID);
    fs::create_dir(home.join("notes")).unwrap();
    fs::write(home.join("notes/only-copy"), "precious").unwrap();
    fs::write(home.join("revoked.asc"), "mine").unwrap();
    remove(&host, ID).well();
    let entry = entry(&host);
    run(&host, &["undo", ID]).well();
    assert_eq!(fs::read(entry.join("notes/only-copy")).unwrap(), b"precious");
    assert_eq!(fs::read(entry.join("revoked.asc.1")).unwrap(), b"mine");
    assert!(can_sign(&host, ID));
}

#[test]
fn an_undo_does_not_wait_for_a_named_pipe() {
    let host = host_with_keys(&[ID]);
    remove(&host, ID).well();
    let record = entry(&host).join("home/key.json");
    fs::remove_file(&record).unwrap();
    nix::unistd::mkfifo(&record, nix::sys::stat::Mode::S_IRWXU).unwrap();
    run(&host, &["undo", ID]).well();
    assert!(can_sign(&host, ID));
}
