//! A file with content of its own, in the place of one of our links, may be somebody's only copy. No mode
//! replaces or removes it.

use std::fs;
use std::path::PathBuf;

use serde_json::json;

use super::host::{Host, Transport};
use super::old_host::{OldHost, quick, report, words};

const ID: &str = "user#project@copr.example.org";

/// Returns the link to the secret key of the only key.
fn secret_link(host: &Host) -> PathBuf {
    let names = host.entries("gnupg/private-keys-v1.d");
    let name = names.iter().find(|name| name.ends_with(".key")).unwrap();
    host.state().join("gnupg/private-keys-v1.d").join(name)
}

fn put(path: &PathBuf) {
    fs::remove_file(path).unwrap();
    fs::write(path, "precious\n").unwrap();
}

fn assert_kept(path: &PathBuf, what: &str) {
    assert_eq!(fs::read(path).unwrap(), b"precious\n", "{what}");
}

#[test]
fn requests_for_keys_replace_nothing() {
    let host = Host::start(Transport::ListenUnix);
    // No key is made if its passphrase cannot be put where signd looks for it.
    let phrase = host.state().join("phrases").join(ID);
    fs::write(&phrase, "precious\n").unwrap();
    assert_eq!(host.gen_key(ID, json!({})).unwrap().status, 500);
    assert!(host.log().contains("may be somebody's only copy"), "{}", host.log());
    assert_kept(&phrase, "gen_key of a new key");
    assert_eq!((host.entries("keys").len(), host.entries("staging").len()), (0, 0));

    fs::remove_file(&phrase).unwrap();
    assert_eq!(host.gen_key(ID, json!({})).unwrap().status, 201);
    for is_phrase in [true, false] {
        let path = if is_phrase { phrase.clone() } else { secret_link(&host) };
        put(&path);
        assert_eq!(host.gen_key(ID, json!({})).unwrap().status, 500, "{}", host.log());
        assert_kept(&path, "gen_key of a key that exists");
        // The file goes into the trash with the key. There it outlives even the purge of the key.
        let removed = host.run(&["remove", "--yes", ID]);
        assert!(removed.status.success(), "{}", words(&removed));
        let name =
            if path.ends_with(ID) { "phrase".into() } else { path.file_name().unwrap().to_owned() };
        let aside = host.state().join("trash").join(&host.entries("trash")[0]).join(name);
        assert_kept(&aside, "remove");
        assert!(host.run(&["undo", ID]).status.success());
        assert_kept(&aside, "undo");
        assert!(host.run(&["remove", "--yes", ID]).status.success());
        assert!(host.run(&["purge", "--older-than", "0d", "--yes"]).status.success());
        assert_kept(&aside, "purge");
        fs::remove_dir_all(host.state().join("trash")).unwrap();
        assert_eq!(host.gen_key(ID, json!({})).unwrap().status, 201);
        assert_eq!(host.gen_key(ID, json!({})).unwrap().status, 200, "{}", host.log());
    }
}

#[test]
fn keys_that_come_back_replace_nothing() {
    let host = Host::start(Transport::ListenUnix);
    assert_eq!(host.gen_key(ID, json!({})).unwrap().status, 201);
    let phrase = host.state().join("phrases").join(ID);
    let secret = secret_link(&host);
    assert!(host.run(&["remove", "--yes", ID]).status.success());
    for path in [&phrase, &secret] {
        fs::write(path, "precious\n").unwrap();
        let undone = host.run(&["undo", ID]);
        assert_eq!(undone.status.code(), Some(1), "{}", words(&undone));
        assert_kept(path, "undo");
        assert_eq!(host.entries("keys"), [""; 0]);
        fs::remove_file(path).unwrap();
    }
    assert!(host.run(&["undo", ID]).status.success());

    let old = OldHost::new(&[]);
    let other = "other#project@copr.example.org";
    old.generate("%no-protection\n", [quick(other, "")]);
    let phrase = host.state().join("phrases").join(other);
    fs::write(&phrase, "precious\n").unwrap();
    let (left, status) = report(&old.import(&host, &["--json"]));
    assert_ne!(status, Some(0), "{left:#}");
    assert_kept(&phrase, "import");
    assert_eq!(host.entries("keys"), [ID]);
    fs::remove_file(&phrase).unwrap();
    let (done, status) = report(&old.import(&host, &["--json"]));
    assert_eq!(status, Some(0), "{done:#}");
}
