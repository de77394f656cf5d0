//! Moving in from a GnuPG home that many keys share, as in the old service, and out into such a home.
//!
//! `KEYGEN_TEST_KEYS` is the number of ordinary keys in the old keyring (6 unless set).

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use serde_json::Value;

use super::certificate::assert_signs;
use super::faults::processes_of;
use super::host::{Host, Transport, eventually, gpg, kill_child};
use super::old_host::{
    OldHost, assert_signs_in, key_count, keygen, new_host, parameters, plain, quick, reason_of,
    report, values, words,
};

fn assert_nothing_is_left_over(host: &Host) {
    assert_eq!(host.entries("staging"), [""; 0]);
    assert_eq!(host.entries("phrases"), host.entries("keys"));
    assert_eq!(host.entries("gnupg/private-keys-v1.d").len(), host.entries("keys").len());
    eventually("all gpg processes have ended", || processes_of(host).is_empty().then_some(()));
}

#[test]
fn ordinary_keys_move_in_whole_and_out_again() {
    let ids = plain(key_count());
    let old = OldHost::new(&ids);
    // One key has been prolonged, and still has its first self-signature.
    let prolonged = &ids[0];
    let fingerprint = old.fingerprint(prolonged);
    let first = old.directory.path().join("first");
    old.gpg(&["--output", first.to_str().unwrap(), "--export", &fingerprint]);
    thread::sleep(Duration::from_millis(1100)); // two self-signatures made in the same second count as one
    old.gpg(&["--quick-set-expire", &fingerprint, "6y"]);
    old.gpg(&["--import", first.to_str().unwrap()]);
    // One key has lost its revocation certificate, and one has expired.
    let unrevocable = old.fingerprint(&ids[1]);
    fs::remove_file(old.gnupg().join(format!("openpgp-revocs.d/{unrevocable}.rev"))).unwrap();
    let expired = "expired#project@copr.example.org".to_owned();
    let long_ago =
        quick(&expired, "Creation-Date: 20200101T000000\n").replace("5y", "seconds=31536000");
    old.generate("%no-protection\n", [long_ago]);
    let all = [&ids[..], std::slice::from_ref(&expired)].concat();

    let before = old.rest();
    fs::set_permissions(old.gnupg(), Permissions::from_mode(0o500)).unwrap();
    let read_only = old.picture();
    let host = new_host();
    let (planned, status) = report(&old.import(&host, &["--dry-run", "--json"]));
    assert_eq!((values(&planned, "imported", "name_email"), status), (all.clone(), Some(0)));
    assert_eq!((planned["dry_run"].as_bool(), host.entries("keys").len()), (Some(true), 0));

    let (moved, status) = report(&old.import(&host, &["--json"]));
    assert_eq!(status, Some(0), "{moved:#}");
    assert_eq!(moved["imported"], planned["imported"]);
    assert_eq!(old.picture(), read_only, "the source was touched");
    fs::set_permissions(old.gnupg(), Permissions::from_mode(0o700)).unwrap();
    assert_eq!(old.rest().len(), before.len());
    let mut sorted = all.clone();
    sorted.sort();
    assert_eq!(host.entries("keys"), sorted);
    assert_nothing_is_left_over(&host);
    for (id, fingerprint) in all.iter().zip(values(&moved, "imported", "fingerprint")) {
        assert_moved(&host, id, &fingerprint);
        assert_eq!(old.fingerprint(id), fingerprint);
        if *id != expired {
            assert_signs(&host, id);
        }
    }
    let history = host.gpg(prolonged, &["--with-colons", "--check-sigs"]);
    assert_eq!(history.matches("\nsig:!:").count(), 2, "{history}");

    // A second import finds no key to import, but it mends a missing link of obs-signd.
    fs::remove_file(host.state().join("phrases").join(&ids[1])).unwrap();
    let (again, status) = report(&old.import(&host, &["--json"]));
    assert_eq!((&again["already"], status), (&moved["imported"], Some(0)));
    assert_eq!(again["imported"].as_array().map(Vec::len), Some(0));
    assert_nothing_is_left_over(&host);

    export_and_import_again(&host, &all, &expired, &moved);
}

/// A key on a longer curve does not sign SHA-256 digests.
#[test]
fn keys_of_every_curve_move_in_and_are_prolonged() {
    let old = OldHost::new(&[]);
    let ids =
        ["nistp256", "nistp384", "nistp521"].map(|curve| format!("user#{curve}@c.example.org"));
    let parameters = ids.iter().map(|id| {
        let curve = id.split(['#', '@']).nth(1).unwrap();
        quick(id, "").replace("EDDSA", "ECDSA").replace("ed25519", curve).replace("5y", "5d")
    });
    old.generate("%no-protection\n", parameters);
    let host = new_host();
    let (moved, status) = report(&old.import(&host, &["--json"]));
    assert_eq!((values(&moved, "imported", "name_email"), status), (ids.to_vec(), Some(0)));
    let prolonged = host.json(&["prolong", "--json"]);
    assert_eq!(prolonged["prolonged"].as_array().unwrap().len(), 3, "{prolonged}");
}

/// Asserts that a home holds one protected key, with everything that belongs to it and nothing else.
fn assert_moved(host: &Host, id: &str, fingerprint: &str) {
    let home = host.home(id);
    let record: Value = serde_json::from_slice(&fs::read(home.join("key.json")).unwrap()).unwrap();
    assert_eq!(record["fingerprint"], fingerprint);
    assert!(record["changed"].as_u64() >= record["created"].as_u64());
    assert_eq!(fs::read(home.join("passphrase")).unwrap().len(), 65);
    let secret =
        home.join(format!("private-keys-v1.d/{}.key", record["keygrip"].as_str().unwrap()));
    let secret = fs::read(secret).unwrap();
    assert!(String::from_utf8_lossy(&secret).contains("protected-private-key"), "{id}");
    let revocation = home.join(format!("openpgp-revocs.d/{fingerprint}.rev"));
    let revocation = fs::read_to_string(revocation).unwrap();
    assert!(revocation.contains("\n:-----BEGIN PGP PUBLIC KEY BLOCK-----"), "{revocation}");
    assert_eq!(fs::read_dir(&home).unwrap().count(), 5, "{home:?}: more than belongs there");
    // gpg can import the revocation certificate, so it is that of this key.
    let file = host.scratch().join("revocation");
    fs::write(&file, revocation.replace("\n:-----", "\n-----")).unwrap();
    let copy = tempfile::Builder::new().prefix("ckg-").tempdir_in("/tmp").unwrap();
    fs::copy(home.join("pubring.kbx"), copy.path().join("pubring.kbx")).unwrap();
    gpg(copy.path(), &["--import", file.to_str().unwrap()]);
}

fn export_and_import_again(host: &Host, all: &[String], expired: &str, moved: &Value) {
    let exported = host.scratch().join("exported");
    let done = keygen(host).arg("export").arg("--to").arg(&exported).output().unwrap();
    assert!(done.status.success(), "{}", words(&done));
    assert!(!exported.join("INCOMPLETE").exists());
    for id in all.iter().filter(|id| *id != expired) {
        assert_signs_in(&exported.join("gnupg"), &exported.join("phrases"), id);
    }
    let gnupg = exported.join("gnupg");
    let mut end = Command::new("gpgconf");
    assert!(end.arg("--homedir").arg(&gnupg).args(["--kill", "all"]).status().unwrap().success());
    for path in ["", "gnupg", "gnupg/private-keys-v1.d", "gnupg/openpgp-revocs.d", "phrases"] {
        assert_eq!(fs::metadata(exported.join(path)).unwrap().mode() & 0o777, 0o700, "{path}");
    }
    let phrase = fs::metadata(exported.join("phrases").join(&all[0])).unwrap();
    assert_eq!(phrase.mode() & 0o777, 0o600);

    let other = new_host();
    let mut back = keygen(&other);
    back.args(["import", "--json", "--from"]).arg(&gnupg);
    let (back, status) =
        report(&back.arg("--phrases").arg(exported.join("phrases")).output().unwrap());
    assert_eq!(status, Some(0), "{back:#}");
    let sorted = |report: &Value| {
        let mut fingerprints = values(report, "imported", "fingerprint");
        fingerprints.sort();
        fingerprints
    };
    assert_eq!(sorted(&back), sorted(moved));
    let history = other.gpg(&all[0], &["--with-colons", "--check-sigs"]);
    assert_eq!(history.matches("\nsig:!:").count(), 2, "{history}");
    assert_signs(&other, &all[0]);
}

#[test]
fn odd_keys_are_named_and_not_touched() {
    let id = |name: &str| format!("{name}#project@copr.example.org");
    let old = OldHost::new(&[id("plain"), id("swapped"), id("swapped2")]);
    let subkey = "Subkey-Type: EDDSA\nSubkey-Curve: ed25519\nSubkey-Usage: sign\n";
    // When gpg looks for "other#…", "@other#…" matches, too.
    let twice = [id("twice"), id("twice"), id("@other"), id("other")];
    let mut keys: Vec<_> = twice.iter().map(|id| quick(id, "")).collect();
    keys.extend(["public", "revoked", "taken", "garbled"].map(|name| quick(&id(name), "")));
    keys.push(quick("nobody@copr.example.org", ""));
    keys.push(quick(&id("subkey"), subkey));
    old.generate("%no-protection\n", keys);
    let protected = ["opened", "closed", "phraseless"];
    old.generate("", protected.map(|name| quick(&id(name), "Passphrase: old secret\n")));
    fs::write(old.phrases().join(id("opened")), "old secret\nsecond line\n").unwrap();
    fs::write(old.phrases().join(id("closed")), "wrong\n").unwrap();
    fs::remove_file(old.phrases().join(id("phraseless"))).unwrap();
    let key = |name: &str| old.keys_of(&id(name)).remove(0);
    fs::remove_file(old.secret(&key("public").1)).unwrap();
    fs::write(old.secret(&key("garbled").1), "no key at all").unwrap();
    let (one, two) = (old.secret(&key("swapped").1), old.secret(&key("swapped2").1));
    let aside = old.directory.path().join("aside");
    for (from, to) in [(&one, &aside), (&two, &one), (&aside, &two)] {
        fs::rename(from, to).unwrap();
    }
    let revocation = old.gnupg().join(format!("openpgp-revocs.d/{}.rev", key("revoked").0));
    let text = fs::read_to_string(&revocation).unwrap().replace("\n:-----", "\n-----");
    fs::write(&revocation, text).unwrap();
    old.gpg(&["--import", revocation.to_str().unwrap()]);
    let before = old.rest();

    let host = new_host();
    // The new service has made a key for this identity already.
    let mut taken = Host::start(Transport::PassedUnix);
    assert_eq!(taken.gen_key_patiently(&id("taken"), &Value::Null).status, 201);
    assert!(taken.stop().success());
    let copied =
        Command::new("cp").arg("-a").arg(taken.state().join(".")).arg(host.state()).status();
    assert!(copied.unwrap().success());

    let (moved, status) = report(&old.import(&host, &["--json"]));
    assert_eq!(old.picture(), before, "the source was touched");
    assert_eq!(status, Some(1), "{moved:#}");
    let imported = ["plain", "twice", "@other", "other", "opened"].map(id);
    assert_eq!(values(&moved, "imported", "name_email"), imported, "{moved:#}");
    for id in &imported {
        assert_signs(&host, id);
    }
    assert_eq!(values(&moved, "shadowed", "name_email"), [id("other")]);
    assert_eq!(values(&moved, "shadowed", "by"), [id("@other")]);
    let pair = old.keys_of(&id("twice"));
    let (used, unused) = (&pair[0].0, &pair[1].0);
    assert_moved(&host, &id("twice"), used);
    assert!(reason_of(&moved, unused).contains(&format!("gpg signs with {used}")));
    for (name, words) in [
        ("public", "there is no secret key"),
        ("revoked", "it is revoked"),
        ("subkey", "it has subkeys"),
        ("closed", "phrase in --phrases is wrong"),
        ("phraseless", "has no phrase for it"),
        ("taken", "keys/ has another key of it"),
        ("garbled", "is no secret key"),
        ("swapped", "holds the secret key of another one"),
        ("swapped2", "holds the secret key of another one"),
    ] {
        let reason = reason_of(&moved, &key(name).0);
        assert!(reason.contains(words), "{name}: {reason}");
    }
    let nobody = old.fingerprint("nobody@copr.example.org");
    assert!(reason_of(&moved, &nobody).contains("holds no identity"));
    assert_eq!(moved["left_out"].as_array().unwrap().len(), 11, "{moved:#}");
    let user_ids = values(&moved, "left_out", "user_id");
    assert!(user_ids.contains(&"user_project (None) <nobody@copr.example.org>".into()));
    assert_nothing_is_left_over(&host);

    // The report in words says the same. A second run finds nothing more to do.
    let again = old.import(&host, &[]);
    let text = String::from_utf8_lossy(&again.stdout).into_owned();
    assert!(text.contains(&format!("left out  {}  {unused}  ", id("twice"))), "{text}");
    assert!(text.ends_with("0 keys imported, 5 were here already, 11 left out\n"), "{text}");
    assert!(words(&again).contains("keys that can sign were left out"), "{}", words(&again));
}

#[test]
fn a_killed_import_goes_on_where_it_was() {
    let ids = plain(key_count() * 2);
    let old = OldHost::new(&[]);
    old.generate("%no-protection\n", ids.iter().map(|id| quick(id, "")));
    let before = old.rest();
    let host = new_host();
    let start = || -> Child {
        let mut command = old.import_command(&host, &["--json"]);
        command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    };
    for round in 0..4 {
        let mut child = start();
        let have = || fs::read_dir(host.state().join("keys")).map_or(0, Iterator::count);
        let begun = have();
        // Kill some imports at the first keys, and some at later ones.
        eventually("the import to get on", || {
            let ended = child.try_wait().unwrap().is_some();
            (ended || have() >= begun + round.min(2)).then_some(())
        });
        thread::sleep(Duration::from_millis(rand::random_range(0..150)));
        kill_child(&mut child);
        // If its gpg died with the import, an agent may run for a few seconds more.
        let phrases = host.state().join("phrases");
        // The first kill may come before phrases/ exists.
        for id in if phrases.exists() { host.entries("phrases") } else { Vec::new() } {
            assert!(host.home(&id).join("key.json").is_file(), "a phrase without a key: {id}");
        }
    }
    let (moved, status) = report(&old.import(&host, &["--json"]));
    assert_eq!(status, Some(0), "{moved:#}");
    let counts = ["imported", "already"].map(|list| moved[list].as_array().unwrap().len());
    assert_eq!(counts.iter().sum::<usize>(), ids.len(), "{moved:#}");
    assert_eq!(host.entries("keys").len(), ids.len());
    assert_nothing_is_left_over(&host);
    assert_eq!(old.picture(), before, "the source was touched");
    for id in &ids {
        assert_signs(&host, id);
    }
}

#[test]
fn unprotected_keys_stay_so_when_asked_to() {
    let id = |name: &str| format!("{name}#project@copr.example.org");
    let old = OldHost::new(&[]);
    old.generate("%no-protection\n", ["open", "phraseless"].map(|name| quick(&id(name), "")));
    old.generate("", [quick(&id("closed"), "Passphrase: old secret\n")]);
    fs::write(old.phrases().join(id("closed")), "old secret").unwrap();
    fs::remove_file(old.phrases().join(id("phraseless"))).unwrap();
    // gpg itself does not notice that an RSA secret key belongs to another public key.
    old.generate("%no-protection\n", ["swapped", "swapped2"].map(|name| parameters(&id(name), "")));
    let swapped = ["swapped", "swapped2"].map(|name| old.keys_of(&id(name)).remove(0));
    fs::copy(old.secret(&swapped[0].1), old.secret(&swapped[1].1)).unwrap();
    // Store the keyring as GnuPG 2.0 did.
    let keyring = old.gnupg().join("pubring.gpg");
    old.gpg(&["--output", keyring.to_str().unwrap(), "--export"]);
    fs::remove_file(old.gnupg().join("pubring.kbx")).unwrap();
    let before = old.rest();

    let host = new_host();
    let (moved, status) = report(&old.import(&host, &["--json", "--protect", "no"]));
    assert_eq!(status, Some(1), "{moved:#}");
    assert_eq!(old.picture(), before, "the source was touched");
    assert_eq!(moved["left_out"].as_array().unwrap().len(), 1, "{moved:#}");
    let reason = reason_of(&moved, &swapped[1].0);
    assert!(reason.contains("no signature can be made with it"), "{reason}");
    for (name, phrase, marker) in [
        ("open", Some("1\n"), "(private-key"),
        ("phraseless", None, "(private-key"),
        ("closed", Some("old secret\n"), "(protected-private-key"),
    ] {
        let home = host.home(&id(name));
        let found = fs::read_to_string(home.join("passphrase")).unwrap();
        assert!(phrase.map_or(found.len() == 65, |phrase| found == phrase), "{name}: {found:?}");
        let secret = fs::read_dir(home.join("private-keys-v1.d")).unwrap().next().unwrap().unwrap();
        let secret = fs::read(secret.path()).unwrap();
        assert!(String::from_utf8_lossy(&secret).contains(marker), "{name}");
        assert_signs(&host, &id(name));
    }
}

#[test]
fn a_source_that_cannot_be_is_refused_in_one_sentence() {
    let old = OldHost::new(&[]);
    let host = new_host();
    let inside = host.state().join("gnupg");
    fs::create_dir(&inside).unwrap();
    let missing = host.scratch().join("missing");
    let cases = [
        (missing.as_path(), "there is no such directory"),
        (&inside, "is inside of the state directory"),
        (&old.phrases(), "it is no GnuPG home with keys"),
        (Path::new("/dev/null"), "is not a directory"),
    ];
    for (from, expected) in cases {
        let refused = keygen(&host).arg("import").arg("--from").arg(from).output().unwrap();
        let words = words(&refused);
        assert_eq!(refused.status.code(), Some(2), "{words}");
        assert!(words.contains(expected) && words.trim().lines().count() == 1, "{words}");
    }
    assert_eq!(fs::read_dir(old.phrases()).unwrap().count(), 0, "gpg made a keyring there");
    // An empty keyring is no mistake.
    old.gpg(&["--list-keys"]);
    fs::write(old.gnupg().join("pubring.gpg"), "").unwrap();
    let (nothing, status) = report(&old.import(&host, &["--json"]));
    assert_eq!((nothing["imported"].as_array().map(Vec::len), status), (Some(0), Some(0)));
}

#[test]
fn an_export_says_when_it_is_not_complete() {
    let ids = plain(3);
    let old = OldHost::new(&[]);
    old.generate("%no-protection\n", ids.iter().map(|id| quick(id, "")));
    old.rest();
    let host = new_host();
    assert!(old.import(&host, &[]).status.success());
    let export = |to: &Path, more: &[&str]| {
        keygen(&host).arg("export").arg("--to").arg(to).args(more).output().unwrap()
    };
    let inside = host.state().join("exported");
    for (to, expected) in
        [(inside.as_path(), "inside of the state directory"), (host.scratch(), "is not empty")]
    {
        let refused = export(to, &[]);
        assert_eq!(refused.status.code(), Some(2), "{}", words(&refused));
        assert!(words(&refused).contains(expected), "{}", words(&refused));
    }
    assert!(!inside.exists());

    let some = host.scratch().join("some");
    assert!(export(&some, &["user[01]#*"]).status.success());
    assert_eq!(fs::read_dir(some.join("phrases")).unwrap().count(), 2);
    let listed = gpg(&some.join("gnupg"), &["--with-colons", "--list-secret-keys"]);
    assert_eq!(listed.matches("\nsec:").count() + usize::from(listed.starts_with("sec:")), 2);

    // One home holds the keyring of another key. gpg's own listing of the export shows that.
    fs::copy(host.home(&ids[0]).join("pubring.kbx"), host.home(&ids[1]).join("pubring.kbx"))
        .unwrap();
    let wrong = host.scratch().join("wrong");
    let failed = export(&wrong, &[]);
    assert!(!failed.status.success() && wrong.join("INCOMPLETE").exists());
    assert!(words(&failed).contains("is not what was written"), "{}", words(&failed));
    // One home holds no keyring at all. The other keys are exported.
    fs::write(host.home(&ids[1]).join("pubring.kbx"), "no keyring").unwrap();
    let partly = host.scratch().join("partly");
    let failed = export(&partly, &[]);
    assert_eq!(failed.status.code(), Some(1));
    assert!(words(&failed).contains("stays marked as INCOMPLETE"), "{}", words(&failed));
    assert!(partly.join("INCOMPLETE").exists());
    assert_eq!(fs::read_dir(partly.join("phrases")).unwrap().count(), 2);
}
