//! `copr-keygen backup` while the service is in use, and what `restore` gets back from the archive.
//!
//! `KEYGEN_TEST_KEYS` is the number of keys when the backup begins (8 unless set).

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

use super::certificate::assert_signs;
use super::faults::host_with_gpg;
use super::host::{DoneWhenDropped, Host, Transport, now};
use super::safekeeping::{
    Recipient, assert_links_are_right, assert_private, copr_keygen, empty_host, restore, run,
    set_expiry, tree,
};
use super::tars::members_of;

const ID: &str = "user#project@copr.example.org";
const OTHER: &str = "@group#jürgen-größe@copr.example.org";

fn host_with_keys(ids: &[&str]) -> Host {
    let host = Host::start(Transport::PassedUnix);
    for id in ids {
        assert_eq!(host.gen_key_patiently(id, &json!({"expire": "1y"})).status, 201);
    }
    host
}

#[test]
fn under_load_every_key_that_was_promised_comes_back_and_signs() {
    let count = std::env::var("KEYGEN_TEST_KEYS").map_or(8, |text| text.parse().unwrap());
    let recipient = Recipient::new();
    let host = Host::start(Transport::PassedUnix);
    let id = |number: usize| format!("user#project{number}@copr.example.org");
    // A name of the maximum length, with letters outside of ASCII.
    let long = format!("ü#{}@copr.example.org", "ö".repeat(90));
    let mut promised: Vec<_> = (1..count).map(id).collect();
    promised.push(long);
    for id in &promised {
        assert_eq!(host.gen_key_patiently(id, &json!({})).status, 201, "{}", host.log());
    }
    let done = AtomicBool::new(false);
    let archive = thread::scope(|scope| {
        let (host, done, promised) = (&host, &done, &promised);
        scope.spawn(move || {
            for number in count.. {
                if done.load(Ordering::Relaxed) {
                    return;
                }
                assert_eq!(host.gen_key_patiently(&id(number), &json!({})).status, 201);
            }
        });
        scope.spawn(move || {
            while !done.load(Ordering::Relaxed) {
                promised.iter().for_each(|id| replace_pubring(host, id));
            }
        });
        let _done = DoneWhenDropped(done);
        let archives: Vec<_> = (0..3).map(|_| recipient.backup(host, &[])).collect();
        archives.into_iter().last().unwrap()
    });

    let elsewhere = empty_host();
    let said = restore(&elsewhere, &archive).well();
    assert!(said.stderr.contains("the archive is whole"), "{}", said.stderr);
    for id in &promised {
        assert_eq!(tree(&host.home(id)), tree(&elsewhere.home(id)), "{id}");
        assert_private(&elsewhere.home(id));
        assert_signs(&elsewhere, id);
    }
    assert_links_are_right(&elsewhere);
    let before = tree(&elsewhere.state());
    let again = restore(&elsewhere, &archive).well();
    assert!(again.stderr.contains("0 keys restored, 0 cert"), "{}", again.stderr);
    assert_eq!(tree(&elsewhere.state()), before);
}

/// Replaces pubring.kbx by renaming a new file over it, as `prolong` does.
fn replace_pubring(host: &Host, id: &str) {
    let fresh = host.scratch().join("fresh");
    fs::copy(host.home(id).join("pubring.kbx"), &fresh).unwrap();
    fs::set_permissions(&fresh, fs::Permissions::from_mode(0o600)).unwrap();
    fs::rename(&fresh, host.home(id).join("pubring.kbx")).unwrap();
}

#[test]
fn an_archive_begins_with_what_it_is_and_ends_with_what_was_there() {
    let recipient = Recipient::new();
    let host = host_with_keys(&[ID, OTHER]);
    // A file that an operator's gpg has left in a home is not part of the key.
    fs::write(host.home(ID).join("trustdb.gpg"), "x").unwrap();
    let members = members_of(&recipient.backup(&host, &[]));
    let json = |bytes: &[u8]| serde_json::from_slice::<Value>(bytes).unwrap();
    let (first, last) = (&members[0], members.last().unwrap());
    assert_eq!(first.path, "copr-keygen-backup.json");
    let header = json(&first.bytes);
    assert_eq!((&header["version"], &header["since"]), (&json!(1), &json!(null)));
    assert!(now() - header["time"].as_u64().unwrap() < 60, "{header}");
    assert_eq!(last.path, "copr-keygen-manifest.json");
    let manifest = json(&last.bytes);
    let listed = manifest["keys"].as_array().unwrap();
    assert_eq!(listed.len(), 2);
    for (key, id) in listed.iter().zip([OTHER, ID]) {
        assert_eq!(key["name_email"], *id);
        let record = json(&fs::read(host.home(id).join("key.json")).unwrap());
        assert_eq!(key["fingerprint"], record["fingerprint"]);
        let files = key["files"].as_object().unwrap();
        assert_eq!(files.len(), 5);
        for path in files.keys() {
            let member = members.iter().find(|member| member.path == format!("keys/{id}/{path}"));
            assert_eq!(member.unwrap().bytes, fs::read(host.home(id).join(path)).unwrap());
        }
    }
    assert_eq!(members.len(), 2 + 2 * 6);
}

#[test]
fn a_file_is_whole_and_private_or_not_there() {
    let recipient = Recipient::new();
    let host = host_with_keys(&[ID]);
    let file = host.scratch().join("archive");
    let certificate = recipient.certificate.to_str().unwrap();
    let backup = |to: &str| run(&host, &["backup", "--to", to, "--recipient", certificate]);
    let to = file.to_str().unwrap();
    let said = backup(to).well();
    assert!(said.stdout.is_empty() && said.stderr.contains("1 key archived"));
    assert!(said.stderr.contains("--since 20"), "{}", said.stderr);
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o7777, 0o600);
    let archive = fs::read(&file).unwrap();
    assert!(!archive.windows(8).any(|bytes| bytes == b"key.json"), "it is not encrypted");
    backup(to).badly("exists and is not replaced");
    assert_eq!(fs::read(&file).unwrap(), archive);

    let other = host.scratch().join("other");
    let part = host.scratch().join("other.part");
    fs::write(&part, "of another").unwrap();
    backup(other.to_str().unwrap()).badly("other.part exists");
    assert_eq!(fs::read(&part).unwrap(), b"of another");
    fs::remove_file(&part).unwrap();

    // An archive can also be written to stdout.
    let piped = backup("-").well();
    fs::write(&other, &piped.stdout).unwrap();
    assert_eq!(members_of(&recipient.decrypt(&other)).len(), 2 + 6);
    let full = File::options().write(true).open("/dev/full").unwrap();
    let arguments = ["backup", "--to", "-", "--recipient", certificate];
    let mut command = copr_keygen(&host, &arguments);
    super::safekeeping::Said::from(command.stdout(full).output().unwrap()).badly("no space left");
    let gone = host.scratch().join("no/such/directory");
    backup(gone.to_str().unwrap()).badly("No such file");
    assert_eq!(host.entries("staging"), [""; 0]);
}

#[test]
fn a_gpg_that_fails_half_way_leaves_nothing_that_looks_like_an_archive() {
    let recipient = Recipient::new();
    let certificate = recipient.certificate.to_str().unwrap();
    let script = "case \"$*\" in *--show-keys*) exec gpg \"$@\";; *--encrypt*) \
                  head -c 3000; echo gpg: something broke >&2; exit 2;; *) exec gpg \"$@\";; esac";
    let host = host_with_gpg(script, &[]);
    for number in 0..12 {
        let id = format!("user#project{number}@copr.example.org");
        assert_eq!(host.gen_key_patiently(&id, &json!({})).status, 201, "{}", host.log());
    }
    let file = host.scratch().join("archive");
    let arguments = ["backup", "--to", file.to_str().unwrap(), "--recipient", certificate];
    let mut command = copr_keygen(&host, &arguments);
    command.env("COPR_KEYGEN_GPG", host.scratch().join("gpg"));
    let said = super::safekeeping::Said::from(command.output().unwrap());
    said.badly("something broke");
    assert!(!file.exists() && !host.scratch().join("archive.part").exists());
    assert_eq!(host.entries("staging"), [""; 0]);
}

#[test]
fn recipients_that_cannot_be_are_named() {
    let (recipient, other) = (Recipient::new(), Recipient::new());
    let host = host_with_keys(&[ID]);
    let path = |name: &str| host.scratch().join(name).to_str().unwrap().to_owned();
    fs::write(path("secret"), recipient.gpg(&["--export-secret-keys"])).unwrap();
    let both = [recipient.gpg(&["--export"]), other.gpg(&["--export"])].concat();
    fs::write(path("both"), both).unwrap();
    fs::write(path("nonsense"), "nonsense").unwrap();
    fs::write(path("long"), vec![b'x'; 2_000_000]).unwrap();
    let expired = ["--passphrase", "", "--faked-system-time", "20200101T000000"];
    let made = ["--quick-gen-key", "old@example.org", "future-default", "default", "10d"];
    other.gpg(&[&expired[..], &made[..]].concat());
    fs::write(path("expired"), other.gpg(&["--export", "old@example.org"])).unwrap();
    let good = recipient.certificate.to_str().unwrap();
    for (file, words) in [
        ("secret", "holds a secret key"),
        ("both", "holds 2 certificates"),
        ("nonsense", "gpg does not take it"),
        ("long", "longer than 1 MiB"),
        ("expired", "cannot be encrypted to"),
        ("missing", "No such file"),
    ] {
        let (file, to) = (path(file), path("archive"));
        let options = ["--recipient", good, "--recipient", &file];
        let said = run(&host, &[&["backup", "--to", &to][..], &options[..]].concat());
        assert_eq!(said.code, Some(1), "{file}: {}", said.stderr);
        for words in [words, &file] {
            assert!(said.stderr.contains(words), "{words}: {}", said.stderr);
        }
        assert!(!host.scratch().join("archive.part").exists());
    }
    // With several recipients, each of them can decrypt the archive.
    let certificate = other.certificate.to_str().unwrap();
    let to = path("archive");
    let options = ["--recipient", good, "--recipient", certificate];
    run(&host, &[&["backup", "--to", &to][..], &options[..]].concat()).well();
    for recipient in [&recipient, &other] {
        assert_eq!(members_of(&recipient.decrypt(to.as_ref())).len(), 2 + 6);
    }
}

#[test]
fn a_damaged_home_is_reported_and_the_rest_is_archived() {
    let recipient = Recipient::new();
    let host = host_with_keys(&[ID, OTHER]);
    fs::remove_file(host.home(ID).join("passphrase")).unwrap();
    fs::create_dir(host.home("empty#directory@copr.example.org")).unwrap();
    let file = host.scratch().join("archive");
    let certificate = recipient.certificate.to_str().unwrap();
    let to = file.to_str().unwrap();
    let said = run(&host, &["backup", "--to", to, "--recipient", certificate]);
    let said = said.badly("1 key could not be read");
    assert!(said.stderr.contains(ID) && said.stderr.contains("passphrase"), "{}", said.stderr);
    assert!(!said.stderr.contains("empty#directory"), "{}", said.stderr);
    let elsewhere = empty_host();
    restore(&elsewhere, &recipient.decrypt(&file)).badly("user#project@copr.example.org: missing");
    assert_eq!(elsewhere.entries("keys"), [OTHER]);

    let nowhere = empty_host();
    let said = run(&nowhere, &["backup", "--to", to, "--recipient", certificate]);
    assert_eq!(said.code, Some(78), "{}", said.stderr);
    assert!(said.stderr.contains("is the setting state_dir right?"), "{}", said.stderr);
    assert!(!nowhere.state().join("keys").exists());
}

#[test]
fn a_full_backup_and_its_increments_in_order_are_the_state_again() {
    let recipient = Recipient::new();
    let host = host_with_keys(&[ID, OTHER]);
    let full = recipient.backup(&host, &[]);
    // `backup` subtracts a slack from `--since`. Even so, this time is later than every change so far.
    let since = format!("@{}", now() + 601);
    thread::sleep(Duration::from_millis(1100));
    let nothing = recipient.backup(&host, &["--since", &since]);
    assert_eq!(members_of(&nothing).len(), 2, "neither key has changed");

    // The test cannot set the change times of files back, so this increment holds every key.
    let third = "third#project@copr.example.org";
    assert_eq!(host.gen_key_patiently(third, &json!({})).status, 201);
    set_expiry(&host, ID, 3 * 365);
    let increment = recipient.backup(&host, &["--since", "1d"]);
    assert_eq!(members_of(&increment).len(), 2 + 3 * 6);

    let elsewhere = empty_host();
    let said = restore(&elsewhere, &nothing).badly("missing: there was such a key");
    assert!(said.stderr.contains(ID) && said.stderr.contains(OTHER), "{}", said.stderr);
    restore(&elsewhere, &full).well();
    let before = tree(&elsewhere.home(ID));
    restore(&elsewhere, &nothing).well();
    assert_eq!(tree(&elsewhere.home(ID)), before);
    let said = restore(&elsewhere, &increment).well();
    assert!(said.stderr.contains("1 key restored, 1 certificate brought"), "{}", said.stderr);
    for id in [ID, OTHER, third] {
        assert_eq!(tree(&elsewhere.home(id)), tree(&host.home(id)), "{id}");
        assert_signs(&elsewhere, id);
        assert_private(&elsewhere.home(id));
    }
    // An older certificate never replaces a newer one. `restore` reports keys that the archive does not hold.
    let said = restore(&elsewhere, &full).well();
    assert!(said.stderr.contains("1 key of this host not in the archive"), "{}", said.stderr);
    assert_eq!(tree(&elsewhere.home(ID)), tree(&host.home(ID)));
    assert_links_are_right(&elsewhere);
}

#[test]
fn a_newer_certificate_that_lacks_a_signature_replaces_none() {
    let recipient = Recipient::new();
    let host = host_with_keys(&[ID]);
    let elsewhere = empty_host();
    restore(&elsewhere, &recipient.backup(&host, &[])).well();
    // Both hosts prolong the key, neither knowing of the other.
    set_expiry(&elsewhere, ID, 2 * 365);
    let before = tree(&elsewhere.home(ID));
    thread::sleep(Duration::from_millis(1100));
    set_expiry(&host, ID, 3 * 365);
    let said = restore(&elsewhere, &recipient.backup(&host, &[])).badly("lacks signatures");
    assert!(said.stderr.contains("the archive is whole"), "{}", said.stderr);
    assert_eq!(tree(&elsewhere.home(ID)), before);
    assert_links_are_right(&elsewhere);
}

#[test]
fn an_archive_is_not_written_into_the_state_it_is_of() {
    let recipient = Recipient::new();
    let host = host_with_keys(&[ID]);
    let certificate = recipient.certificate.to_str().unwrap();
    let link = host.scratch().join("link");
    std::os::unix::fs::symlink(host.state().join("keys"), &link).unwrap();
    let before = super::gen_key::snapshot(&host.state());
    let state = host.state();
    for to in [state.join("x"), state.join("keys/x"), state.join("keys/../x"), link.join("x")] {
        let to = to.to_str().unwrap();
        let said = run(&host, &["backup", "--to", to, "--recipient", certificate]);
        assert_eq!(said.code, Some(2), "{to}: {}", said.stderr);
        assert!(said.stderr.contains("is inside of the state directory"), "{}", said.stderr);
    }
    assert_eq!(super::gen_key::snapshot(&host.state()), before);
}
