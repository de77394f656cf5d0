//! SIGKILL in the middle of sealing and unsealing: every key signs all the time, and the next run finishes
//! the work.
//!
//! `KEYGEN_TEST_SEAL_KILLS` is the number of kills (40 unless set).

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::process::{Child, Stdio};
use std::thread;
use std::time::Duration;

use serde_json::json;

use super::host::kill_child;
use super::sealing::{OTHER_KEY, SealedHost, name};

#[test]
fn a_killed_conversion_loses_nothing_and_is_resumed() {
    let kills = std::env::var("KEYGEN_TEST_SEAL_KILLS").map_or(40, |text| text.parse().unwrap());
    let mut sealed = SealedHost::new();
    sealed.host.launch();
    for number in 0..4 {
        sealed.make(&name(number), json!({}));
    }
    copy_homes(&sealed, 150);
    sealed.well(&["phrases"]);
    let given = sealed.given();
    let (mut half, mut made) = (0, 0);
    for kill in 0..kills {
        let mode = if kill % 4 < 2 { "seal" } else { "unseal" };
        let mut command = sealed.host.mode(&[mode]);
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        wait_for_a_bad_moment(&sealed, &mut child);
        kill_child(&mut child);
        let mut files = sealed.files();
        // No file in staging/ is ever used as a passphrase.
        files.retain(|(path, _)| !path.starts_with("staging"));
        let count = files.iter().filter(|(_, phrase)| phrase.starts_with("sealed:1:")).count();
        half += usize::from(count > 0 && count < files.len());
        assert!(files.iter().all(|(_, phrase)| is_whole(phrase)), "kill {kill}");
        // Half-way through, another sealing key is refused as at any other time.
        if sealed.host.state().join("sealing.json").exists() {
            sealed.give(OTHER_KEY);
            assert_eq!(sealed.run(&["seal"]).status.code(), Some(78), "kill {kill}");
            sealed.give(super::sealing::KEY);
        }
        if kill % 8 == 5 {
            made += 1;
            sealed.make(&name(1000 + kill), json!({}));
        }
    }
    for mode in ["seal", "unseal", "seal"] {
        sealed.well(&[mode]);
        if mode == "seal" {
            sealed.assert_sealed();
        }
    }
    let now = sealed.given();
    assert!(given.iter().all(|one| now.contains(one)), "a passphrase is another one");
    assert_eq!(now.len(), given.len() + made);
    for number in 0..4 {
        sealed.assert_signs(&name(number));
    }
    println!(
        "{kills} kills, {half} of them left some sealed and some not; {made} keys made meanwhile"
    );
    assert!(half > 0, "never killed half-way");
}

/// Waits for a moment while the mode starts, or some time after a new marker shows that the conversion has
/// begun.
fn wait_for_a_bad_moment(sealed: &SealedHost, child: &mut Child) {
    if rand::random_ratio(1, 4) {
        thread::sleep(Duration::from_micros(rand::random_range(0..50_000)));
        return;
    }
    let marker = || fs::metadata(sealed.host.state().join("sealing.json")).map(|m| m.ino()).ok();
    let before = marker();
    while marker() == before && child.try_wait().unwrap().is_none() {
        thread::sleep(Duration::from_micros(200));
    }
    thread::sleep(Duration::from_micros(rand::random_range(0..200_000)));
}

fn is_whole(phrase: &str) -> bool {
    phrase.ends_with('\n') && (phrase.len() == 65 || phrase.len() > 100)
}

/// Copies one home to many identities, so that a conversion takes a while.
fn copy_homes(sealed: &SealedHost, count: usize) {
    let home = sealed.host.home(&name(0));
    for number in 0..count {
        let copy = sealed.host.home(&format!("copy#p{number}@copr.example.org"));
        let copied =
            std::process::Command::new("cp").arg("-a").arg(&home).arg(&copy).status().unwrap();
        assert!(copied.success());
    }
    assert!(fs::read_dir(sealed.host.state().join("keys")).unwrap().count() > count);
}
