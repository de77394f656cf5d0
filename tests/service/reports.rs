//! The reports of modes that change something: with `--json`, of several keys, and with counts that have the
//! right noun.

use std::fs;

use serde_json::{Value, json};

use super::host::{Host, Transport};
use super::safekeeping::{Recipient, Said, copr_keygen, empty_host, run};

const ID: &str = "user#project@copr.example.org";
const OTHER: &str = "other#project@copr.example.org";
const NONE: &str = "none#such@copr.example.org";

fn host_with_keys(ids: &[&str]) -> Host {
    let host = Host::start(Transport::PassedUnix);
    for id in ids {
        assert_eq!(host.gen_key_patiently(id, &json!({"expire": "30d"})).status, 201);
    }
    host
}

fn json_of(said: &Said) -> Value {
    serde_json::from_slice(&said.stdout).unwrap_or_else(|e| panic!("{e}: {said:?}"))
}

#[test]
fn several_keys_are_removed_at_once_or_none() {
    let host = host_with_keys(&[ID, OTHER]);
    let refused =
        run(&host, &["remove", "--yes", "--json", ID, NONE]).badly("there is no key of none#");
    assert!(refused.stdout.is_empty());
    assert_eq!(host.entries("keys").len(), 2);

    // A name that is given twice is one key.
    let said = run(&host, &["remove", "--yes", "--json", ID, OTHER, ID]).well();
    let removed = json_of(&said)["removed"].clone();
    assert_eq!((&removed[0]["name_email"], &removed[1]["name_email"]), (&json!(ID), &json!(OTHER)));
    let entries = host.entries("trash");
    for (key, id) in [(0, ID), (1, OTHER)] {
        let file = |name: &str| fs::metadata(removed[key][name].as_str().unwrap()).unwrap();
        assert!(file("entry").is_dir() && file("revoked_certificate").is_file());
        assert!(entries.iter().any(|entry| entry.ends_with(id)), "{entries:?}");
    }
    assert_eq!(json_of(&said)["failed"], json!([]));
    assert_eq!(host.entries("keys"), [""; 0]);

    let back = json_of(&run(&host, &["undo", "--json", ID]).well());
    assert_eq!(back["name_email"], ID);
    assert_eq!(back["fingerprint"], host.json(&["show", ID])["fingerprint"]);

    let purge = ["purge", "--older-than", "0h", "--yes", "--json"];
    let purged = json_of(&run(&host, &purge).well());
    assert_eq!(purged["destroyed"][0]["name"], OTHER, "{purged}");
    assert_eq!(purged["failed"], json!([]));
    let nothing = run(&host, &purge).well();
    assert_eq!(json_of(&nothing), json!({"destroyed": [], "failed": []}));
    assert!(nothing.stderr.contains("nothing so old"), "{}", nothing.stderr);
}

#[test]
fn backups_and_what_comes_back_from_them_are_reported() {
    let recipient = Recipient::new();
    let host = host_with_keys(&[ID, OTHER]);
    fs::remove_file(host.home(OTHER).join("passphrase")).unwrap();
    let directory = host.scratch().join("archives");
    fs::create_dir(&directory).unwrap();
    let certificate = recipient.certificate.to_str().unwrap();
    let to = |to: &str| run(&host, &["backup", "--json", "--recipient", certificate, "--to", to]);
    let said = to(directory.to_str().unwrap()).badly("1 key could not be read");
    let report = json_of(&said);
    assert_eq!((&report["archived"], &report["unchanged"]), (&json!(1), &json!(0)), "{report}");
    assert_eq!(report["failed"][0]["name_email"], OTHER);
    assert!(report["failed"][0]["error"].as_str().unwrap().contains("passphrase"), "{report}");
    // In a directory, the file name tells when the archive was made.
    let file = std::path::Path::new(report["to"].as_str().unwrap());
    let name = file.file_name().unwrap().to_str().unwrap();
    assert!(name.starts_with("copr-keygen-2") && name.ends_with(".tar.gpg"), "{name}");
    assert_eq!(report["bytes"], fs::metadata(file).unwrap().len());
    assert!(said.stderr.contains("1 key archived, ") && said.stderr.contains(" KiB"), "{said:?}");
    assert_eq!(to("-").code, Some(2));

    let archive = host.scratch().join("archive");
    fs::write(&archive, recipient.decrypt(file)).unwrap();
    let elsewhere = empty_host();
    let from = ["restore", "--json", "--from", archive.to_str().unwrap()];
    let said = run(&elsewhere, &from).badly("1 key could not be restored");
    let report = json_of(&said);
    assert_eq!((&report["made"], &report["kept"]), (&json!(1), &json!(0)), "{report}");
    assert_eq!((&report["archive"]["version"], &report["not_whole"]), (&json!(1), &json!(null)));
    assert_eq!(report["failed"][0]["name_email"], OTHER, "{report}");
    assert!(said.stderr.contains("1 key restored, 0 certificates"), "{said:?}");

    let whole = fs::read(&archive).unwrap();
    fs::write(&archive, &whole[..whole.len() / 2]).unwrap();
    let report = json_of(&run(&elsewhere, &from));
    assert_eq!(report["archive"], json!(null));
    assert!(report["not_whole"].as_str().is_some_and(|why| !why.is_empty()), "{report}");
}

#[test]
fn an_export_is_reported() {
    let host = host_with_keys(&[ID]);
    let to = host.scratch().join("out");
    let report = host.json(&["export", "--json", "--to", to.to_str().unwrap()]);
    assert_eq!(report["exported"][0]["name_email"], ID, "{report}");
    let to = host.scratch().join("out2");
    let said = run(&host, &["export", "--to", to.to_str().unwrap()]).well();
    assert!(String::from_utf8(said.stdout).unwrap().starts_with("1 key exported to /"));
}

#[test]
fn the_counts_of_prolong_add_up() {
    let host = host_with_keys(&[ID, OTHER]);
    for (id, expire) in
        [("user#never@copr.example.org", json!(0)), ("user#late@x.org", json!("5y"))]
    {
        assert_eq!(host.gen_key_patiently(id, &json!({"expire": expire})).status, 201);
    }
    fs::write(host.home(OTHER).join("key.json"), "{}").unwrap();
    fs::write(host.home(OTHER).join("pubring.kbx"), "x").unwrap();
    let sum = |said: &Said| {
        let line = said.stderr.lines().find(|line| line.contains("needed nothing")).unwrap();
        let counts = line.split(|c: char| !c.is_ascii_digit() && c != '-');
        let counts = counts.filter_map(|word| word.parse::<u64>().ok()).collect::<Vec<_>>();
        assert_eq!(counts[0], counts[1..].iter().sum::<u64>(), "{line}");
        line.to_owned()
    };
    let said = run(&host, &["prolong"]).badly("1 key could not be prolonged");
    let line = sum(&said);
    assert!(line.contains("4 keys: 1 prolonged until "), "{line}");
    assert!(line.contains(" 2 needed nothing, 0 in use by others, 1 failed, 0 left"), "{line}");
    sum(&copr_keygen(&host, &["prolong"]).output().unwrap().into());
}
