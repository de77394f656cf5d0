//! Sealing when something has gone wrong: phrases for signd cannot be written, the marker `sealing.json` is
//! lost, or a service has not heard of the sealing.

use std::fs;
use std::os::unix::fs::symlink;

use serde_json::json;

use super::sealing::{KEY, OTHER_KEY, SealedHost, name, tree};
use super::sealing_refused::assert_all_refuse;

/// A host with two keys, whose service runs without `phrases_dir`.
fn with_links() -> SealedHost {
    let mut sealed = SealedHost::new();
    sealed.host.unset("COPR_KEYGEN_PHRASES_DIR");
    sealed.host.launch();
    sealed.make(&name(0), json!({}));
    sealed.make(&name(1), json!({}));
    sealed.host.set("COPR_KEYGEN_PHRASES_DIR", sealed.phrases().display());
    sealed
}

#[test]
fn a_phrase_that_cannot_be_given_to_signd_keeps_its_links() {
    let sealed = with_links();
    sealed.well(&["phrases"]);
    fs::remove_file(sealed.phrases().join(name(1))).unwrap();
    fs::create_dir(sealed.phrases().join(name(1))).unwrap();
    let before = tree(&sealed.host.state());
    let refused = sealed.run(&["seal"]);
    let said = String::from_utf8_lossy(&refused.stderr);
    assert_eq!(refused.status.code(), Some(78), "{said}");
    assert!(said.contains(&format!("the phrase of {} cannot be written", name(1))), "{said}");
    assert_eq!(tree(&sealed.host.state()), before);
    let links = sealed.host.state().join("phrases");
    for number in [0, 1] {
        sealed.sign_with(&links, &name(number)).unwrap();
    }
    fs::remove_dir(sealed.phrases().join(name(1))).unwrap();
    sealed.well(&["seal"]);
    assert!(sealed.host.entries("phrases").is_empty());
    sealed.assert_all_sign();
}

#[test]
fn a_lost_marker_locks_nothing_up_and_is_made_anew_with_the_right_key() {
    let mut sealed = SealedHost::sealed();
    sealed.make(&name(0), json!({}));
    sealed.fill_pool(1);
    assert!(sealed.host.stop().success());
    fs::remove_file(sealed.host.state().join("sealing.json")).unwrap();
    sealed.give(OTHER_KEY);
    assert_all_refuse(&sealed, "sealing.json");
    sealed.take_key();
    assert_all_refuse(&sealed, "sealing.json");
    let page = sealed.run(&["check", "--deep"]);
    let page = String::from_utf8_lossy(&page.stdout).into_owned();
    assert!(page.contains("is missing, and there are sealed passphrases"), "{page}");
    assert!(!page.contains("mv "), "{page}");

    let file = sealed.host.scratch().join("key");
    sealed.host.set("COPR_KEYGEN_PASSPHRASE_KEY_FILE", file.display());
    sealed.give(KEY);
    sealed.well(&["seal"]);
    sealed.assert_sealed();
    sealed.assert_all_sign();
    sealed.host.launch();
    sealed.make(&name(1), json!({}));
    sealed.assert_sealed();
}

#[test]
fn a_service_that_has_not_heard_of_it_leads_signd_nowhere() {
    let mut sealed = with_links();
    sealed.well(&["seal"]);
    let found = sealed.host.gen_key_patiently(&name(0), &json!({}));
    assert_eq!(found.status, 200, "{}", sealed.host.log());
    assert!(sealed.host.entries("phrases").is_empty(), "a link to what signd cannot read");
    sealed.assert_all_sign();
    // A key is not removed either if its phrase would stay.
    let given = sealed.given();
    sealed.host.unset("COPR_KEYGEN_PHRASES_DIR");
    let refused = sealed.run(&["remove", "--yes", &name(1)]);
    assert_eq!(refused.status.code(), Some(78));
    assert_eq!(sealed.given(), given);
    sealed.host.set("COPR_KEYGEN_PHRASES_DIR", sealed.phrases().display());
    fs::remove_dir_all(sealed.phrases()).unwrap();
    sealed.well(&["remove", "--yes", &name(1)]);
}

#[test]
fn copies_of_passphrases_in_the_clear_are_named_and_never_removed() {
    let mut sealed = with_links();
    sealed.make(&name(2), json!({}));
    let state = sealed.host.state();
    let passphrase = |number: usize| sealed.host.home(&name(number)).join("passphrase");
    // As `cp -rL`, an editor, a backup tool and an administrator leave them.
    let in_phrases = [0, 2].map(|number| state.join("phrases").join(name(number)));
    let mut copies = vec![
        in_phrases[0].clone(),
        sealed.host.home(&name(1)).join("passphrase~"),
        state.join("keys/old").join("passphrase"),
        state.join("note"),
    ];
    fs::create_dir(state.join("keys/old")).unwrap();
    for link in &in_phrases {
        fs::remove_file(link).unwrap();
    }
    fs::copy(passphrase(2), &in_phrases[1]).unwrap();
    for (copy, number) in copies.iter().zip([0, 1, 0, 1]) {
        fs::copy(passphrase(number), copy).unwrap();
    }
    // A copy in place of a link goes to the trash with the key.
    sealed.host.unset("COPR_KEYGEN_PHRASES_DIR");
    sealed.well(&["remove", "--yes", &name(2)]);
    sealed.host.set("COPR_KEYGEN_PHRASES_DIR", sealed.phrases().display());
    let entry = fs::read_dir(state.join("trash")).unwrap().next().unwrap().unwrap().path();
    copies.push(entry.join("phrase"));
    // This is no passphrase of a key here.
    fs::write(state.join("other"), format!("{}\n", "0".repeat(64))).unwrap();

    let refused = sealed.run(&["seal"]);
    let said = String::from_utf8_lossy(&refused.stderr);
    assert_eq!(refused.status.code(), Some(1), "{said}");
    assert!(said.contains("5 copies"), "{said}");
    let page = sealed.page(&[]);
    assert!(page.contains("sealing has not finished"), "{page}");
    for copy in &copies {
        assert!(said.contains(&format!("{}: holds the passphrase", copy.display())), "{said}");
        fs::remove_file(copy).unwrap_or_else(|e| panic!("{}: {e}", copy.display()));
    }
    fs::remove_dir(state.join("keys/old")).unwrap();
    sealed.well(&["seal"]);
    sealed.assert_all_sign();
    // From now on, `check` finds such copies.
    fs::copy(sealed.phrases().join(name(0)), &copies[1]).unwrap();
    let page = sealed.page(&[]);
    let line = format!("keys/{}/passphrase~: holds the passphrase of a key in the clear", name(1));
    assert!(page.contains(&line), "{page}");
}

#[test]
fn a_half_sealed_state_without_its_marker_leads_signd_to_no_sealed_phrase() {
    let sealed = with_links();
    sealed.well(&["seal"]);
    let clear = sealed.phrases().join(name(0));
    fs::copy(clear, sealed.host.home(&name(0)).join("passphrase")).unwrap();
    fs::remove_file(sealed.host.state().join("sealing.json")).unwrap();
    // The running service has no phrases_dir, and so it makes links.
    let refused = sealed.host.gen_key_patiently(&name(1), &json!({}));
    assert_eq!(refused.status, 500, "{}", sealed.host.log());
    assert!(sealed.host.log().contains("sealing.json"), "{}", sealed.host.log());
    assert_eq!(sealed.host.gen_key_patiently(&name(0), &json!({})).status, 200);
    assert_eq!(sealed.host.entries("phrases"), [name(0)]);
}

#[test]
fn check_names_the_command_that_seals_once_it_would() {
    let mut sealed = with_links();
    let page = sealed.page(&[]);
    assert!(page.contains("-> systemd-run ") || page.contains("-> copr-keygen seal "), "{page}");
    sealed.host.unset("COPR_KEYGEN_PHRASES_DIR");
    let page = sealed.page(&[]);
    assert!(page.contains("-> set phrases_dir to a directory in memory, then seal"), "{page}");
}

#[test]
fn a_passphrase_that_cannot_be_sealed_is_counted_as_one() {
    let sealed = with_links();
    let passphrase = sealed.host.home(&name(0)).join("passphrase");
    let elsewhere = sealed.host.scratch().join("elsewhere");
    fs::rename(&passphrase, &elsewhere).unwrap();
    symlink(&elsewhere, &passphrase).unwrap();
    let output = sealed.run(&["seal"]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("is a symbolic link"), "{said}");
    fs::rename(&elsewhere, &passphrase).unwrap();
    sealed.well(&["seal"]);
    sealed.assert_all_sign();
}
