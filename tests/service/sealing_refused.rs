//! A sealed state with the wrong key, or none: no mode that needs the key works, nothing is changed, and the
//! message says which it is.

use std::fs;
use std::path::Path;

use nix::sys::statfs::{TMPFS_MAGIC, statfs};
use serde_json::json;
use tempfile::TempDir;

use super::certificate::text;
use super::sealing::{KEY, OTHER_KEY, SealedHost, name, tree};

/// Returns the modes that need passphrases.
fn modes(host: &SealedHost) -> Vec<Vec<String>> {
    let to = host.host.scratch().join("exported").display().to_string();
    let archive = host.host.scratch().join("archive").display().to_string();
    let mode = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
    vec![
        mode(&["serve"]),
        mode(&["fill-pool"]),
        mode(&["prolong"]),
        mode(&["export", "--to", &to]),
        mode(&["restore", "--from", &archive]),
        mode(&["undo", &name(0)]),
        mode(&["seal"]),
        mode(&["unseal"]),
        mode(&["phrases"]),
    ]
}

pub fn assert_all_refuse(sealed: &SealedHost, words: &str) {
    let before = tree(&sealed.host.state());
    let given = sealed.given();
    for mode in modes(sealed) {
        let mode: Vec<_> = mode.iter().map(String::as_str).collect();
        let output = sealed.run(&mode);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(78), "{mode:?}: {said}");
        assert!(said.contains(words), "{mode:?}: {said}");
        assert!(!said.contains(&KEY[..8]) && !said.contains(&OTHER_KEY[..8]), "{said}");
    }
    assert_eq!(tree(&sealed.host.state()), before, "something was changed");
    assert_eq!(sealed.given(), given);
}

#[test]
fn the_wrong_key_and_none_change_nothing() {
    let mut sealed = SealedHost::sealed();
    sealed.make(&name(0), json!({"expire": 30}));
    sealed.make(&name(1), json!({}));
    sealed.fill_pool(1);
    assert!(sealed.host.stop().success());
    sealed.give(OTHER_KEY);
    assert_all_refuse(&sealed, "is the wrong one");
    sealed.give("nonsense");
    assert_all_refuse(&sealed, "holds no key");
    sealed.give(KEY);
    let file = sealed.host.scratch().join("key");
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o640);
    fs::set_permissions(&file, mode).unwrap();
    assert_all_refuse(&sealed, "others may have read it");
    let page = check(&sealed, &[]);
    assert!(has_failed(&page, "passphrase-key", "others may have read it"), "{page:?}");
    sealed.take_key();
    assert_all_refuse(&sealed, "has no passphrase-key");
    // Modes that need no passphrase work.
    sealed.well(&["list"]);
    sealed.well(&["pubkey", &name(0)]);
    sealed.well(&["remove", "--yes", &name(1)]);
    assert!(!sealed.phrases().join(name(1)).exists());
}

#[test]
fn a_credential_of_systemd_is_taken_before_the_file() {
    let sealed = SealedHost::sealed();
    let directory = sealed.host.scratch().join("credentials");
    fs::create_dir(&directory).unwrap();
    fs::write(directory.join("passphrase-key"), KEY).unwrap();
    sealed.give(OTHER_KEY);
    let mut mode = sealed.host.mode(&["phrases"]);
    let output = mode.env("CREDENTIALS_DIRECTORY", &directory).output().unwrap();
    assert!(output.status.success(), "{}", text(&output));
    fs::write(directory.join("passphrase-key"), OTHER_KEY).unwrap();
    let output = mode.output().unwrap();
    assert_eq!(output.status.code(), Some(78), "{}", text(&output));
}

/// Makes an empty directory that is not on a tmpfs. On Debian 13, /tmp is a tmpfs.
fn directory_on_a_disk() -> TempDir {
    let places = ["/tmp", "/var/tmp", env!("CARGO_TARGET_TMPDIR")];
    let is_on_a_disk = |place: &&&str| statfs(**place).unwrap().filesystem_type() != TMPFS_MAGIC;
    let place = places.iter().find(is_on_a_disk);
    let place = place.unwrap_or_else(|| panic!("none of {places:?} is on a disk"));
    tempfile::Builder::new().prefix("ckg-").tempdir_in(place).unwrap()
}

#[test]
fn phrases_never_get_to_a_disk() {
    let mut sealed = SealedHost::new();
    let on_a_disk = directory_on_a_disk();
    let disk = on_a_disk.path().join("phrases");
    sealed.host.launch();
    sealed.make(&name(0), json!({}));
    assert!(sealed.host.stop().success());
    let before = tree(&sealed.host.state());
    sealed.host.unset("COPR_KEYGEN_PHRASES_DIR");
    let refused = sealed.run(&["seal"]);
    assert_eq!(refused.status.code(), Some(78));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("phrases_dir: must be set"));
    sealed.host.set("COPR_KEYGEN_PHRASES_DIR", disk.display());
    for arguments in [&["seal"][..], &["seal", "--dry-run"]] {
        let refused = sealed.run(arguments);
        assert_eq!(refused.status.code(), Some(78));
        assert!(String::from_utf8_lossy(&refused.stderr).contains("is not on a tmpfs"));
        assert_eq!(tree(&sealed.host.state()), before);
    }
    assert!(tree(&disk).is_empty());

    sealed.host.unset("COPR_KEYGEN_PHRASES_DIR");
    sealed.host.set("COPR_KEYGEN_PHRASES_DIR", sealed.phrases().display());
    sealed.well(&["seal"]);
    sealed.host.unset("COPR_KEYGEN_PHRASES_DIR");
    for (directory, words) in [(None, "must be set"), (Some(&disk), "is not on a tmpfs")] {
        if let Some(directory) = directory {
            sealed.host.set("COPR_KEYGEN_PHRASES_DIR", directory.display());
        }
        let page = check(&sealed, &[]);
        assert!(has_failed(&page, "phrases_dir", words), "{words}: {page:?}");
        for mode in ["serve", "phrases"] {
            let refused = sealed.run(&[mode]);
            let said = String::from_utf8_lossy(&refused.stderr);
            assert_eq!(refused.status.code(), Some(78), "{mode}: {said}");
            assert!(said.contains(words), "{mode}: {said}");
        }
    }
    assert!(tree(&disk).is_empty());
}

/// Level, subject and message of a line of `check`.
type Line = (String, String, String);

fn has_failed(page: &[Line], subject: &str, words: &str) -> bool {
    page.iter().any(|(level, about, message)| {
        level == "failed" && about == subject && message.contains(words)
    })
}

fn check(sealed: &SealedHost, arguments: &[&str]) -> Vec<Line> {
    let fixed = ["check", "--no-units", "--json", "--sign-conf", "/dev/null"];
    let output = sealed.run(&[&fixed[..], arguments].concat());
    let page: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let field = |line: &serde_json::Value, name: &str| line[name].as_str().unwrap().to_owned();
    page.as_array()
        .unwrap()
        .iter()
        .filter(|line| ["passphrases", "links of obs-signd"].contains(&&*field(line, "section")))
        .map(|line| (field(line, "level"), field(line, "subject"), field(line, "message")))
        .collect()
}

#[test]
fn check_names_what_is_clear_swapped_or_cut() {
    let sealed = SealedHost::sealed();
    (0..4).for_each(|number| sealed.make(&name(number), json!({})));
    let file = |number: usize| sealed.host.home(&name(number)).join("passphrase");
    let page = check(&sealed, &[]);
    assert!(page.iter().all(|(level, ..)| level == "ok"), "{page:?}");
    assert!(page.iter().any(|(_, _, words)| words.contains("4 keys, each with a sealed")));

    let clear = fs::read(sealed.phrases().join(name(0))).unwrap();
    fs::write(file(0), clear).unwrap();
    fs::copy(file(1), file(2)).unwrap();
    let whole = fs::read(file(3)).unwrap();
    fs::write(file(3), &whole[..whole.len() - 20]).unwrap();
    let page = check(&sealed, &[]);
    let failed = |number: usize, words: &str| {
        let subject = format!("keys/{}/passphrase", name(number));
        assert!(has_failed(&page, &subject, words), "{subject}: {page:?}");
    };
    failed(0, "is in the clear");
    failed(2, "does not open");
    failed(3, "does not open");
    // Keys in the pool and in the trash are checked as well.
    sealed.fill_pool(1);
    sealed.well(&["remove", "--yes", &name(1)]);
    let mut apart = sealed.files();
    apart.retain(|(path, _)| !path.starts_with("keys"));
    assert_eq!(apart.len(), 2, "{apart:?}");
    for (path, _) in &apart {
        fs::write(sealed.host.state().join(path), "clear\n").unwrap();
        let page = check(&sealed, &[]);
        let subject = path.to_str().unwrap();
        assert!(has_failed(&page, subject, "is in the clear"), "{subject}: {page:?}");
    }
    // Another `seal` mends what can be mended and names the rest.
    let output = sealed.run(&["seal"]);
    assert_eq!(output.status.code(), Some(1), "{}", text(&output));
    assert!(fs::read_to_string(file(0)).unwrap().starts_with("sealed:1:"));
    // If the sealed passphrase of a key cannot be opened, its phrase in memory stays as it was.
    assert!(sealed.phrases().join(name(2)).exists());
}

#[test]
fn check_mends_what_signd_reads() {
    let mut sealed = SealedHost::sealed();
    (0..3).for_each(|number| sealed.make(&name(number), json!({})));
    let stranger = sealed.phrases().join(name(7));
    fs::remove_file(sealed.phrases().join(name(0))).unwrap();
    fs::write(sealed.phrases().join(name(1)), "wrong\n").unwrap();
    fs::write(&stranger, "of no key\n").unwrap();
    fs::write(sealed.phrases().join(".unfinished"), "").unwrap();
    let page = check(&sealed, &[]);
    let failed: Vec<_> = page.iter().filter(|(level, ..)| level == "failed").collect();
    assert_eq!(failed.len(), 3, "{page:?}");
    let file = sealed.host.scratch().join("key");
    sealed.take_key();
    let said = sealed.page(&["--repair"]);
    assert!(said.contains("-> systemctl restart copr-keygen-phrases.service"), "{said}");
    assert!(!said.contains("run check --repair again"), "{said}");
    assert!(!stranger.exists(), "that needs no key");
    sealed.host.set("COPR_KEYGEN_PASSPHRASE_KEY_FILE", file.display());
    let page = check(&sealed, &["--repair"]);
    assert_eq!(page.iter().filter(|(level, ..)| level == "repaired").count(), 2, "{page:?}");
    assert!(Path::new(&sealed.phrases().join(".unfinished")).exists());
    sealed.assert_all_sign();
    let page = check(&sealed, &[]);
    assert!(page.iter().all(|(level, ..)| level == "ok"), "{page:?}");
}

#[test]
fn what_signd_reads_is_never_given_another_state() {
    let mut sealed = SealedHost::sealed();
    (0..2).for_each(|number| sealed.make(&name(number), json!({})));
    let before = tree(&sealed.phrases());
    let other = sealed.host.scratch().join("other");
    fs::create_dir(&other).unwrap();
    sealed.host.set("COPR_KEYGEN_STATE_DIR", other.display());
    // A new host may seal before it has a key, but not into the directory with the phrases of another state.
    for mode in ["seal", "phrases", "serve"] {
        let refused = sealed.run(&[mode]);
        let said = String::from_utf8_lossy(&refused.stderr);
        assert_eq!(refused.status.code(), Some(78), "{mode}: {said}");
        assert!(mode == "phrases" || said.contains("holds the phrases of the state"), "{said}");
        assert_eq!(tree(&sealed.phrases()), before, "{mode}");
    }
    let phrases = sealed.phrases();
    sealed.host.set("COPR_KEYGEN_PHRASES_DIR", phrases.with_file_name("others").display());
    sealed.well(&["seal"]);
    assert!(other.join("sealing.json").exists());
    assert_eq!(tree(&sealed.phrases()), before);
    sealed.host.set("COPR_KEYGEN_PHRASES_DIR", phrases.display());
    sealed.host.set("COPR_KEYGEN_STATE_DIR", sealed.host.state().display());
    sealed.assert_all_sign();
    // As after a boot, the directory in memory is gone.
    fs::remove_dir_all(&phrases).unwrap();
    let page = sealed.page(&[]);
    assert!(page.contains("no phrase has been opened for signd"), "{page}");
    sealed.well(&["phrases"]);
    sealed.assert_all_sign();
}
