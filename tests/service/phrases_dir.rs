//! `phrases_dir` is claimed only if it is empty. In a directory with somebody's files, nothing is written or
//! removed.

use std::fs::{self, DirBuilder, Permissions};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::Path;

use serde_json::json;

use super::certificate::text;
use super::host::{Host, Transport};
use super::old_host::{OldHost, plain};
use super::sealing::{SealedHost, name, tree};

const WORDS: &str = "holds files that copr-keygen did not write";

/// Makes a directory with these files, which belong to somebody else.
fn fill(directory: &Path, names: &[&str]) {
    DirBuilder::new().mode(0o700).create(directory).unwrap();
    for name in names {
        fs::write(directory.join(name), "theirs\n").unwrap();
    }
}

#[test]
fn a_directory_with_somebodys_files_is_refused_and_left_as_it_is() {
    let mut sealed = SealedHost::new();
    let directory = sealed.phrases();
    sealed.host.unset("COPR_KEYGEN_PHRASES_DIR");
    sealed.host.launch();
    sealed.make(&name(0), json!({}));
    assert!(sealed.host.stop().success());
    sealed.host.set("COPR_KEYGEN_PHRASES_DIR", directory.display());
    let (key, other) = (name(0), name(1));
    let state = tree(&sealed.host.state());
    // A file named like a key of this state, one named like an identity without a key, and one that can be no
    // phrase.
    for file in [&*key, &other, "note"] {
        fill(&directory, &[file]);
        let theirs = tree(&directory);
        for mode in [
            &["phrases"][..],
            &["serve"],
            &["seal"],
            &["seal", "--dry-run"],
            &["remove", "--yes", &key],
            &["check", "--repair"],
        ] {
            let output = sealed.run(mode);
            let status = if mode[0] == "check" { 1 } else { 78 };
            assert_eq!(output.status.code(), Some(status), "{mode:?}: {}", text(&output));
            let said = text(&output);
            assert_eq!(said.matches(WORDS).count(), 1, "{mode:?}: {said}");
            assert!(said.contains(&format!("phrases_dir = {}", directory.display())), "{said}");
            assert_eq!(tree(&directory), theirs, "{mode:?}");
            assert_eq!(tree(&sealed.host.state()), state, "{mode:?}");
        }
        fs::remove_dir_all(&directory).unwrap();
    }
    // The first file is left when a process is killed while it claims the directory. The second one can be no
    // user of signd.
    fill(&directory, &[".0123456789abcdef", ".profile"]);
    sealed.well(&["phrases"]);
    assert_eq!(sealed.given().iter().filter(|(name, _)| *name == key).count(), 1);
    assert_eq!(fs::read_to_string(directory.join(".profile")).unwrap(), "theirs\n");
    // Once the directory is claimed, all phrases in it are derived from the state.
    fs::write(directory.join(&key), "changed\n").unwrap();
    fs::write(directory.join(&other), "of no key\n").unwrap();
    sealed.well(&["phrases"]);
    assert!(!directory.join(&other).exists());
    sealed.well(&["seal"]);
    sealed.assert_all_sign();
}

#[test]
fn a_service_that_runs_writes_to_no_directory_that_became_somebodys() {
    let sealed = SealedHost::sealed();
    sealed.make(&name(0), json!({}));
    let (directory, away) = (sealed.phrases(), sealed.phrases().with_file_name("away"));
    fs::rename(&directory, &away).unwrap();
    fill(&directory, &[&name(0), &name(1)]);
    let theirs = tree(&directory);
    let refused = sealed.host.gen_key_patiently(&name(1), &json!({}));
    assert_eq!(refused.status, 500, "{refused:?}");
    assert!(sealed.host.log().contains(WORDS), "{}", sealed.host.log());
    assert_eq!(sealed.host.entries("keys"), [name(0)], "it was not published");
    assert_eq!(tree(&directory), theirs);
    let ready = sealed.host.get("/ready").unwrap();
    assert_eq!(ready.status, 503, "{ready:?}");
    assert!(ready.body.contains("phrases_dir holds what is not of this state"), "{ready:?}");
    fs::remove_dir_all(&directory).unwrap();
    fs::rename(&away, &directory).unwrap();
    sealed.make(&name(1), json!({}));
    sealed.assert_all_sign();
}

#[test]
fn an_import_in_place_does_not_take_the_old_phrases_for_its_own() {
    let ids = plain(1);
    let old = OldHost::new(&ids);
    old.rest();
    let mut host = Host::new(Transport::ListenUnix, &[]);
    let directory = host.scratch().join("pd");
    host.set("COPR_KEYGEN_PHRASES_DIR", directory.display());
    fs::create_dir(host.state()).unwrap();
    fs::set_permissions(host.state(), Permissions::from_mode(0o700)).unwrap();
    fs::rename(old.gnupg(), host.state().join("gnupg")).unwrap();
    fs::rename(old.phrases(), &directory).unwrap();
    let theirs = tree(&directory);
    for arguments in [&["import"][..], &["import", "--dry-run"]] {
        let refused = host.run(arguments);
        assert_eq!(refused.status.code(), Some(78), "{}", text(&refused));
        assert!(text(&refused).contains(WORDS), "{}", text(&refused));
        assert_eq!(tree(&directory), theirs);
        assert_eq!(host.entries(""), ["gnupg"], "no import has begun");
    }
    // Move the phrases as the message says.
    fs::rename(&directory, host.state().join("phrases")).unwrap();
    let imported = host.run(&["import"]);
    assert!(imported.status.success(), "{}", text(&imported));
    assert!(directory.join(&ids[0]).exists());
}
