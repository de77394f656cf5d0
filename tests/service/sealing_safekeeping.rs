//! Backups, exports and moves with sealed passphrases.

use std::fs;
use std::io::Write;
use std::process::{Command, Output, Stdio};

use serde_json::json;

use super::safekeeping::Recipient;
use super::sealing::{OTHER_KEY, SealedHost, name};

fn restore(sealed: &SealedHost, archive: &[u8]) -> Output {
    let mut command = sealed.host.mode(&["restore", "--from", "-"]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let _ = child.stdin.take().unwrap().write_all(archive); // it may refuse early
    child.wait_with_output().unwrap()
}

/// A host without any key, whose state is not sealed.
fn empty() -> SealedHost {
    let sealed = SealedHost::new();
    fs::create_dir(sealed.host.state()).unwrap();
    sealed
}

fn assert_refused(sealed: &SealedHost, archive: &[u8], words: &str) {
    let output = restore(sealed, archive);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(78), "{said}");
    assert!(said.contains("the archive") && said.contains(words), "{said}");
    assert_eq!(sealed.host.entries("keys"), [""; 0]);
}

fn holds(archive: &[u8], part: &[u8]) -> bool {
    archive.windows(part.len()).any(|bytes| bytes == part)
}

#[test]
fn a_sealed_archive_needs_the_key_it_was_sealed_with() {
    let sealed = SealedHost::sealed();
    (0..2).for_each(|number| sealed.make(&name(number), json!({})));
    let archive = Recipient::new().backup(&sealed.host, &[]);
    for (_, phrase) in sealed.given() {
        assert!(!holds(&archive, phrase.trim_end().as_bytes()));
    }
    // It can be restored on a host with the same sealing key, whether its state is sealed or not.
    for other in [SealedHost::sealed(), empty()] {
        let output = restore(&other, &archive);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(other.given(), sealed.given());
        other.assert_all_sign();
        let is_sealed = other.host.state().join("sealing.json").exists();
        for (path, phrase) in other.files() {
            assert_eq!(phrase.starts_with("sealed:"), is_sealed, "{}", path.display());
        }
    }
    let mut other = empty();
    other.give(OTHER_KEY);
    assert_refused(&other, &archive, "is the wrong one");
    other.take_key();
    assert_refused(&other, &archive, "has no passphrase-key");
}

#[test]
fn a_clear_archive_is_sealed_on_its_way_into_a_sealed_state() {
    let mut clear = SealedHost::new();
    clear.host.launch();
    (0..2).for_each(|number| clear.make(&name(number), json!({})));
    let archive = Recipient::new().backup(&clear.host, &[]);
    let sealed = SealedHost::sealed();
    let output = restore(&sealed, &archive);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    sealed.assert_sealed();
    sealed.assert_all_sign();
    assert_eq!(sealed.given(), clear.given());
}

#[test]
fn an_export_is_in_the_clear_and_an_import_of_it_sealed() {
    let sealed = SealedHost::sealed();
    (0..2).for_each(|number| sealed.make(&name(number), json!({})));
    let to = sealed.host.scratch().join("exported");
    let exported = to.to_str().unwrap();
    sealed.well(&["export", "--to", exported]);
    for (id, phrase) in sealed.given() {
        assert_eq!(fs::read_to_string(to.join("phrases").join(id)).unwrap(), phrase);
    }
    let gnupg = to.join("gnupg");
    let phrases = to.join("phrases");
    for protect in ["yes", "no"] {
        let other = SealedHost::sealed();
        let from = ["import", "--from", gnupg.to_str().unwrap()];
        let with = ["--phrases", phrases.to_str().unwrap(), "--protect", protect];
        other.well(&[&from[..], &with].concat());
        other.assert_sealed();
        other.assert_all_sign();
        assert_eq!(other.given() == sealed.given(), protect == "no");
    }
    let mut end = Command::new("gpgconf");
    let _ = end.arg("--homedir").arg(gnupg).args(["--kill", "all"]).status();
}
