//! Every file in an old home that holds keys and that an import does not read is named, with commands that
//! work. So is every phrase without a key.

use std::fs;
use std::os::unix::fs::symlink;
use std::process::{Command, Output};

use serde_json::Value;

use super::certificate::assert_signs;
use super::host::Host;
use super::old_host::{
    OldHost, keygen, new_host, parameters, quick, reason_of, report, values, words,
};

fn id(name: &str) -> String {
    format!("{name}#project@copr.example.org")
}

/// An old home with a key for each of `names`, in which no agent runs.
fn old_with(names: &[&str]) -> OldHost {
    let old = OldHost::new(&[]);
    old.generate("%no-protection\n", names.iter().map(|name| quick(&id(name), "")));
    old.rest();
    old
}

/// Writes all keys of the home as GnuPG 1.4 kept them.
fn write_old_form(old: &OldHost) {
    for (name, command) in [("secring.gpg", "--export-secret-keys"), ("pubring.gpg", "--export")] {
        let file = old.gnupg().join(name);
        old.gpg(&[
            "--output",
            file.to_str().unwrap(),
            "--export-options",
            "export-backup",
            command,
        ]);
    }
    old.rest();
}

/// Runs the commands that an import has named, as an operator would.
fn take_the_way_out(host: &Host, said: &Value) -> Output {
    let command = said["way_out"].as_str().unwrap_or_else(|| panic!("none in {said:#}"));
    let programs = host.scratch().join("programs");
    fs::create_dir(&programs).unwrap();
    symlink(env!("CARGO_BIN_EXE_copr-keygen"), programs.join("copr-keygen")).unwrap();
    let mut shell = Command::new("/bin/sh");
    shell.args(["-ec", &format!("{command} --json")]).env_clear();
    shell.env("PATH", format!("{}:/usr/bin:/bin", programs.display()));
    shell.env("COPR_KEYGEN_CONFIG", "/dev/null").output().unwrap()
}

/// Runs these commands. Asserts that the host then has a key for each of `names`, and signs with it.
fn assert_way_out(host: &Host, said: &Value, names: &[&str]) {
    let done = take_the_way_out(host, said);
    let (again, status) = report(&done);
    assert_eq!(status, Some(0), "{again:#} {}", words(&done));
    assert_eq!(again["unread"], Value::Array(Vec::new()), "{again:#}");
    assert_eq!(again["way_out"], Value::Null);
    assert_eq!(host.entries("keys").len(), names.len());
    for name in names {
        assert_signs(host, &id(name));
    }
}

/// Asserts that only one file was not read, that its name ends in `file`, and that it holds so many keys.
fn assert_unread(said: &Value, file: &str, keys: usize) {
    let unread = said["unread"].as_array().unwrap();
    assert_eq!(unread.len(), 1, "{said:#}");
    assert!(unread[0]["file"].as_str().unwrap().ends_with(file), "{said:#}");
    assert_eq!(unread[0]["keys"].as_array().unwrap().len(), keys, "{said:#}");
}

#[test]
fn secret_keys_of_gnupg_1_are_named_with_a_way_out() {
    let old = old_with(&["first", "second"]);
    old.generate("", [parameters(&id("closed"), "Passphrase: old secret\n")]);
    old.rest();
    fs::write(old.phrases().join(id("closed")), "old secret\n").unwrap();
    let names = ["closed", "first", "second"];
    let prints = names.map(|name| old.fingerprint(&id(name)));
    old.rest();
    // Without the passphrase here, the export of the protected key would ask for it.
    let secret = old.gnupg().join("secring.gpg");
    old.gpg(&[
        "--pinentry-mode=loopback",
        "--passphrase=old secret",
        "--output",
        secret.to_str().unwrap(),
        "--export-secret-keys",
    ]);
    old.gpg(&["--output", old.gnupg().join("pubring.gpg").to_str().unwrap(), "--export"]);
    old.rest();
    fs::remove_dir_all(old.gnupg().join("private-keys-v1.d")).unwrap();
    fs::remove_file(old.gnupg().join("pubring.kbx")).unwrap();
    let before = old.picture();

    let host = new_host();
    for dry_run in [&["--json", "--dry-run"][..], &["--json"]] {
        let (said, status) = report(&old.import(&host, dry_run));
        assert_eq!(status, Some(1), "{said:#}");
        assert_unread(&said, "/secring.gpg", 3);
        for print in &prints {
            assert!(reason_of(&said, print).contains("is in secring.gpg only"), "{said:#}");
        }
    }
    assert_eq!(old.picture(), before, "the source was touched");
    let text = old.import(&host, &[]);
    let page = String::from_utf8_lossy(&text.stdout).into_owned();
    assert!(page.contains("secring.gpg\"  holds 3 secret keys"), "{page}");
    assert!(page.contains("\n    cp -aT "), "{page}");
    assert!(words(&text).contains("1 file with keys not read"), "{}", words(&text));

    let (said, _) = report(&old.import(&host, &["--json"]));
    assert_way_out(&host, &said, &names);
    fs::remove_dir_all(old.directory.path().join("gnupg.readable")).unwrap();
    assert_eq!(old.picture(), before, "the source was touched");
}

#[test]
fn an_old_secret_key_beside_migrated_ones_is_named_and_no_other() {
    let old = old_with(&["migrated", "old"]);
    write_old_form(&old);
    fs::write(old.gnupg().join(".gpg-v21-migrated"), "").unwrap();
    let (print, keygrip) = old.keys_of(&id("old")).remove(0);
    old.rest();
    fs::remove_file(old.secret(&keygrip)).unwrap();
    let host = new_host();
    let (said, status) = report(&old.import(&host, &["--json"]));
    assert_eq!(status, Some(1), "{said:#}");
    assert_eq!(values(&said, "imported", "name_email"), [id("migrated")]);
    assert_unread(&said, "/secring.gpg", 1);
    assert_eq!(said["unread"][0]["keys"][0]["fingerprint"], print.as_str());
    assert_way_out(&host, &said, &["migrated", "old"]);

    // If all of its keys have been migrated, the old file is not reported.
    let old = old_with(&["migrated"]);
    write_old_form(&old);
    let (said, status) = report(&old.import(&new_host(), &["--json"]));
    assert_eq!((said["unread"].as_array().map(Vec::len), status), (Some(0), Some(0)), "{said:#}");
}

#[test]
fn certificates_in_a_keyring_that_gpg_does_not_use_are_named_with_a_way_out() {
    for other in ["pubring.gpg", "pubring.kbx~", "trustedkeys.gpg", "elsewhere.gpg"] {
        let old = old_with(&["first", "second"]);
        let keyring = old.gnupg().join(other);
        let keybox = old.gnupg().join("pubring.kbx");
        match other {
            "pubring.kbx~" => drop(fs::copy(&keybox, &keyring).unwrap()),
            _ => {
                old.gpg(&["--output", keyring.to_str().unwrap(), "--export"]);
                let _ = fs::remove_file(old.gnupg().join("pubring.kbx~"));
            }
        }
        old.rest();
        fs::remove_file(&keybox).unwrap();
        if other == "elsewhere.gpg" {
            fs::write(old.gnupg().join("gpg.conf"), format!("keyring {other}\n")).unwrap();
        }
        // gpg has once listed the keys of this home, and so made an empty keybox. Since then, it looks
        // nowhere else.
        let empty = tempfile::Builder::new().prefix("ckg-").tempdir_in("/tmp").unwrap();
        let made =
            Command::new("gpg").arg("--homedir").arg(empty.path()).args(["-q", "-k"]).status();
        assert!(made.unwrap().success());
        fs::copy(empty.path().join("pubring.kbx"), &keybox).unwrap();

        let host = new_host();
        let (said, status) = report(&old.import(&host, &["--json"]));
        assert_eq!(status, Some(1), "{said:#}");
        assert_eq!(said["imported"].as_array().map(Vec::len), Some(0));
        assert_unread(&said, &format!("/{other}"), 2);
        assert_eq!(said["keyless"].as_array().map(Vec::len), Some(0), "{said:#}");
        assert_way_out(&host, &said, &["first", "second"]);
    }
}

#[test]
fn secret_keys_without_a_certificate_are_named() {
    let old = old_with(&["whole", "orphan"]);
    let (print, keygrip) = old.keys_of(&id("orphan")).remove(0);
    let (secret, aside) = (old.secret(&keygrip), old.directory.path().join("aside"));
    fs::rename(&secret, &aside).unwrap();
    old.gpg(&["--yes", "--delete-keys", &print]);
    fs::rename(&aside, &secret).unwrap();
    old.rest();
    // gpg keeps the previous keybox, in which the deleted certificate still is.
    fs::remove_file(old.gnupg().join("pubring.kbx~")).unwrap();
    // A secret key that is sealed to a TPM counts, too.
    let stub = "0123456789ABCDEF0123456789ABCDEF01234567";
    fs::write(
        old.secret(stub),
        "(20:shadowed-private-key(3:rsa(1:n1:\0)(8:shadowed8:tpm2-v11:x)))",
    )
    .unwrap();
    let host = new_host();
    let (said, status) = report(&old.import(&host, &["--json"]));
    assert_eq!(status, Some(1), "{said:#}");
    assert_eq!(values(&said, "imported", "name_email"), [id("whole")]);
    assert_unread(&said, "/private-keys-v1.d", 2);
    let keys = &said["unread"][0]["keys"];
    let mut grips: Vec<_> = (0..2).map(|at| keys[at]["keygrip"].as_str().unwrap()).collect();
    grips.sort_unstable();
    let mut expected = vec![stub, keygrip.as_str()];
    expected.sort_unstable();
    assert_eq!(grips, expected);
    let reason = said["unread"][0]["reason"].as_str().unwrap();
    assert!(reason.contains("--import CERTIFICATE"), "{reason}");
    assert_eq!(said["way_out"], Value::Null);

    // Without any keyring the report is the same, and not a usage error.
    fs::remove_file(old.gnupg().join("pubring.kbx")).unwrap();
    let (said, status) = report(&old.import(&new_host(), &["--json"]));
    assert_eq!(status, Some(1), "{said:#}");
    assert_unread(&said, "/private-keys-v1.d", 3);
}

#[test]
fn subkeys_are_not_taken_for_keys_without_a_certificate() {
    let old = OldHost::new(&[]);
    let subkey = "Subkey-Type: EDDSA\nSubkey-Curve: ed25519\nSubkey-Usage: sign\n";
    old.generate("%no-protection\n", [quick(&id("subkey"), subkey)]);
    old.rest();
    let (said, _) = report(&old.import(&new_host(), &["--json"]));
    assert_eq!(said["left_out"].as_array().map(Vec::len), Some(1), "{said:#}");
    assert_eq!(said["unread"].as_array().map(Vec::len), Some(0), "{said:#}");
}

#[test]
fn the_database_of_keyboxd_is_named() {
    let old = old_with(&["first"]);
    fs::create_dir(old.gnupg().join("public-keys.d")).unwrap();
    fs::write(old.gnupg().join("public-keys.d/pubring.db"), "SQLite format 3\0").unwrap();
    fs::write(old.gnupg().join("common.conf"), "use-keyboxd\n").unwrap();
    let host = new_host();
    let (said, status) = report(&old.import(&host, &["--json"]));
    assert_eq!(status, Some(1), "{said:#}");
    assert_unread(&said, "/public-keys.d/pubring.db", 0);
    assert!(said["way_out"].as_str().unwrap().contains("/public-keys.d"), "{said:#}");
    // Even if there is nothing else, it is no usage error.
    fs::remove_file(old.gnupg().join("pubring.kbx")).unwrap();
    let (said, status) = report(&old.import(&host, &["--json"]));
    assert_eq!(status, Some(1), "{said:#}");
    assert_eq!(said["unread"].as_array().map(Vec::len), Some(2), "{said:#}");
}

#[test]
fn phrases_of_projects_that_shared_a_key_are_named_with_that_key() {
    let old = old_with(&["User", "whole"]);
    let print = old.fingerprint(&id("User"));
    old.rest();
    for name in ["user", "@USER", "nobody"] {
        fs::write(old.phrases().join(id(name)), "1\n").unwrap();
    }
    fs::write(old.phrases().join(format!("{}.lock", id("user"))), "").unwrap();
    fs::write(old.phrases().join("no identity\u{1b}[31m"), "1\n").unwrap();
    let host = new_host();
    let (said, status) = report(&old.import(&host, &["--json"]));
    assert_eq!(status, Some(0), "{said:#}");
    let keyless = ["@USER", "nobody", "user"].map(id);
    assert_eq!(values(&said, "keyless", "name_email"), keyless, "{said:#}");
    for (at, signer) in [(0, Some(&print)), (1, None), (2, Some(&print))] {
        let by = &said["keyless"][at]["signed_by"];
        assert_eq!(by["fingerprint"].as_str(), signer.map(String::as_str), "{said:#}");
        assert_eq!(by["name_email"].as_str(), signer.map(|_| id("User")).as_deref(), "{said:#}");
    }
    assert_eq!(said["strange_phrases"][0], "no identity\u{1b}[31m");

    let text = old.import(&host, &[]);
    let page = String::from_utf8_lossy(&text.stdout).into_owned();
    let note = format!("note  {}  has a phrase and no key of exactly this name", id("user"));
    assert!(page.contains(&note), "{page}");
    assert!(page.contains(&format!("with the key of {}  {print}", id("User"))), "{page}");
    assert!(page.contains("nothing could be signed for it") && !page.contains('\u{1b}'), "{page}");
}

#[test]
fn keys_that_differ_by_case_are_told_as_taken_for_one_another() {
    let old = old_with(&["User", "user", "group", "@group"]);
    let host = new_host();
    let mut import = keygen(&host);
    import.args(["import", "--json", "--from"]).arg(old.gnupg());
    let (said, status) = report(&import.output().unwrap());
    assert_eq!(status, Some(0), "{said:#}");
    assert_eq!(values(&said, "shadowed", "name_email"), ["user", "@group"].map(id));
    assert_eq!(values(&said, "shadowed", "by"), ["User", "group"].map(id));
}

#[test]
fn a_key_whose_user_id_holds_no_identity_is_named_as_the_one_that_signed() {
    let old = old_with(&["first"]);
    let user_id = format!("nbrackets {}", id("nb"));
    old.gpg(&["--passphrase", "", "--quick-generate-key", &user_id, "ed25519", "sign"]);
    let listing = old.gpg(&["--with-colons", "--list-keys", &format!("={user_id}")]);
    let print = listing.lines().find_map(|line| line.strip_prefix("fpr:::::::::")).unwrap();
    let print = print.trim_end_matches(':');
    old.rest();
    fs::write(old.phrases().join(id("nb")), "1\n").unwrap();
    let (said, _) = report(&old.import(&new_host(), &["--json"]));
    let keyless = &said["keyless"][0];
    assert_eq!(keyless["name_email"], *id("nb"), "{said:#}");
    assert_eq!(keyless["signed_by"]["fingerprint"], *print, "{said:#}");
    assert_eq!(keyless["signed_by"]["user_id"], *user_id, "{said:#}");
    assert_eq!(keyless["signed_by"].get("name_email"), None, "{said:#}");
    let text = old.import(&new_host(), &[]);
    let page = String::from_utf8_lossy(&text.stdout).into_owned();
    assert!(page.contains(&format!("with the key of {user_id}  {print}  until now")), "{page}");
}

#[test]
fn secret_keys_behind_a_link_that_leads_nowhere_are_named() {
    let old = old_with(&["first", "second"]);
    let lost = old.fingerprint(&id("second"));
    let secret = old.secret(&old.keys_of(&id("second"))[0].1);
    fs::remove_file(&secret).unwrap();
    symlink("/nonexistent/key", &secret).unwrap();
    let host = new_host();
    let (said, status) = report(&old.import(&host, &["--json"]));
    assert_eq!((values(&said, "imported", "name_email"), status), (vec![id("first")], Some(1)));
    assert!(reason_of(&said, &lost).contains("leads nowhere"), "{said:#}");
    let directory = secret.parent().unwrap();
    fs::remove_dir_all(directory).unwrap();
    for target in ["/nonexistent/directory", ""] {
        if !target.is_empty() {
            symlink(target, directory).unwrap();
        }
        let refused = old.import(&host, &[]);
        assert_eq!(refused.status.code(), Some(1), "{}", words(&refused));
        let said = String::from_utf8_lossy(&refused.stdout);
        assert!(said.contains("there is no secret key of it"), "{said}");
        // What an earlier import has taken over is not missed.
        assert!(said.contains("0 keys imported, 1 were here already, 1 left out"), "{said}");
        let _ = fs::remove_file(directory);
    }
}

#[test]
fn the_secret_keyring_that_the_configuration_names_is_read_like_the_usual_one() {
    let old = old_with(&["first"]);
    write_old_form(&old);
    fs::remove_file(old.gnupg().join("pubring.kbx")).unwrap();
    fs::remove_dir_all(old.gnupg().join("private-keys-v1.d")).unwrap();
    fs::rename(old.gnupg().join("secring.gpg"), old.gnupg().join("other.gpg")).unwrap();
    fs::write(old.gnupg().join("gpg.conf"), "secret-keyring other.gpg\n").unwrap();
    let host = new_host();
    let (said, status) = report(&old.import(&host, &["--json"]));
    assert_eq!(status, Some(1), "{said:#}");
    assert_unread(&said, "other.gpg", 1);
    assert_way_out(&host, &said, &["first"]);
}
