//! Clocks that are wrong, or were wrong when a key was made. Whatever contradicts the clock is named, and
//! nothing is decided by it: no date is replaced, and no key is called damaged, is prolonged or is made.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

use super::certificate::{assert_signs, succeed, text};
use super::check_host::SignHost;
use super::faults::stand_in;
use super::gen_key::snapshot;
use super::host::{Host, Transport, now};
use super::old_host::{OldHost, new_host, quick, reason_of, report, values};
use super::safekeeping::{Recipient, empty_host, restore, run};
use super::years::clock;

const DAY: u64 = 86_400;
const AHEAD: &str = "ahead#project@copr.example.org";
const GOOD: &str = "good#project@copr.example.org";

/// A host with a key of one year, made while its clock said `time`; the clock is right again.
fn host_with_key_of(time: &str) -> Host {
    let mut host = Host::new(Transport::ListenUnix, &[]);
    let mut faked = clock(time);
    // gpg does not inherit the environment of the service, so a script sets its clock.
    let variables: Vec<_> = faked.iter().map(|(name, value)| format!("'{name}={value}'")).collect();
    let gpg = stand_in(&host, &format!("exec env {} gpg \"$@\"", variables.join(" ")));
    faked.push(("COPR_KEYGEN_GPG".into(), gpg.to_str().unwrap().into()));
    for (name, value) in &faked {
        host.set(name, value);
    }
    host.launch();
    assert_eq!(
        host.gen_key_patiently(AHEAD, &json!({"expire": 365})).status,
        201,
        "{}",
        host.log()
    );
    assert!(host.stop().success());
    for (name, _) in faked {
        host.unset(&name);
    }
    host.launch();
    host
}

/// Runs a mode while its clock says `time`.
fn run_at(host: &Host, time: &str, arguments: &[&str]) -> Output {
    host.mode(arguments).envs(clock(time)).output().unwrap()
}

fn record(host: &Host, id: &str) -> PathBuf {
    host.home(id).join("key.json")
}

fn read_record(host: &Host, id: &str) -> Value {
    serde_json::from_slice(&fs::read(record(host, id)).unwrap()).unwrap()
}

/// Returns what `list --json` prints of a key, and what it says on stderr.
fn listed(host: &Host, id: &str) -> (Value, String) {
    let output = host.run(&["list", "--json", id]);
    assert!(output.status.success(), "{}", text(&output));
    let keys: Value = serde_json::from_slice(&output.stdout).unwrap();
    (keys[0].clone(), String::from_utf8(output.stderr).unwrap())
}

fn assert_names_the_clock(words: &str) {
    assert!(words.contains("the clock of this host says"), "{words}");
    assert!(!words.contains("damaged") && !words.contains("backup"), "{words}");
}

#[test]
fn no_repair_takes_the_expiry_of_a_key_that_was_made_under_a_clock_ahead() {
    let host = host_with_key_of("+2d");
    let made = read_record(&host, AHEAD);
    let expires = made["expires"].as_u64().unwrap();
    assert!(expires > now() + 366 * DAY, "{made}");
    let before = snapshot(&host.home(AHEAD));
    let sign_host = SignHost::around(host);
    for options in [&["--deep"][..], &["--repair"], &["--deep", "--repair"]] {
        let found = sign_host.check(options);
        found.assert_failed("clock", "the key of ahead#project@copr.example.org", "set the clock");
        if options.contains(&"--deep") {
            let words = "the clock of this host says";
            found.assert_failed("ahead#project@copr.example.org", words, "set the clock");
            assert!(!found.has("failed", "", "certificate says"), "{found:#?}");
        }
        assert_eq!(snapshot(&sign_host.host.home(AHEAD)), before, "{options:?}");
    }

    // As long as gpg cannot know the dates of the key, `--repair` writes no new key.json. `list` and `show`
    // still print the expiry.
    let host = &sign_host.host;
    fs::remove_file(record(host, AHEAD)).unwrap();
    for options in [&["--repair"][..], &["--deep", "--repair"]] {
        let found = sign_host.check(options);
        found.assert_failed("key.json", "the clock of this host says", "");
        assert!(!record(host, AHEAD).exists());
    }
    let (key, words) = listed(host, AHEAD);
    assert_eq!((&key["expires"], &key["algorithm"]), (&made["expires"], &json!("rsa2048")));
    assert_names_the_clock(&words);
    let shown = host.run(&["show", AHEAD]);
    assert!(shown.status.success());
    assert_names_the_clock(&text(&shown));
    let shown: Value = serde_json::from_slice(&shown.stdout).unwrap();
    assert_eq!(shown["expires"], made["expires"]);
    assert_eq!(shown["self_signatures"][0]["good"], json!(true));
}

#[test]
fn prolong_names_the_key_that_contradicts_the_clock_and_can_be_told_to_go_on() {
    let host = host_with_key_of("+2d");
    assert_eq!(host.gen_key_patiently(GOOD, &json!({"expire": 30})).status, 201);
    let before = [AHEAD, GOOD].map(|id| snapshot(&host.home(id)));
    let refused = host.run(&["prolong", "--within", "2y"]);
    assert_eq!(refused.status.code(), Some(1));
    assert_names_the_clock(&text(&refused));
    assert!(text(&refused).contains(AHEAD), "{}", text(&refused));
    assert_eq!([AHEAD, GOOD].map(|id| snapshot(&host.home(id))), before);

    // The operator vouches for the clock: the other keys are prolonged. This key still is not.
    let output = host.run(&["prolong", "--within", "2y", "--trust-clock", "--json"]);
    let done: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(values(&done, "prolonged", "name_email"), [GOOD], "{done:#}");
    assert_eq!(values(&done, "failed", "name_email"), [AHEAD], "{done:#}");
    assert_names_the_clock(done["failed"][0]["error"].as_str().unwrap());
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(snapshot(&host.home(AHEAD)), before[0]);

    // A key that cannot be used for days yet is best removed and made anew.
    assert!(run(&host, &["remove", "--yes", AHEAD]).well().stderr.contains("trash"));
    assert_eq!(host.gen_key_patiently(AHEAD, &Value::Null).status, 201);
    assert_signs(&host, AHEAD);
    assert!(host.run(&["prolong"]).status.success());
}

#[test]
fn keys_of_a_clock_ahead_are_not_restored_and_not_called_damaged() {
    let host = host_with_key_of("+2d");
    let recipient = Recipient::new();
    let archive = recipient.backup(&host, &[]);
    let elsewhere = empty_host();
    let refused = restore(&elsewhere, &archive);
    assert_eq!(refused.code, Some(1), "{}", refused.stderr);
    assert!(refused.stderr.contains("the clock of this host says"), "{}", refused.stderr);
    assert!(!refused.stderr.contains("is damaged"), "{}", refused.stderr);
    assert_eq!(elsewhere.entries("keys"), [""; 0]);
    assert_eq!(elsewhere.entries("staging"), [""; 0]);
}

#[test]
fn keys_of_a_clock_ahead_are_left_out_of_an_import_with_the_reason() {
    let old = OldHost::new(&[]);
    let generate = |id: &str, at: u64| {
        let time = format!("--faked-system-time={at}");
        old.generate_under(&[&time], "%no-protection\n", [quick(id, "")]);
    };
    let contested = "contested#project@copr.example.org";
    let (past, future) = (now() - DAY, now() + 2 * DAY);
    // Of the two keys of this identity, gpg itself picks the one to sign with by the clock.
    let prolonged = "prolonged#project@copr.example.org";
    generate(AHEAD, future);
    for id in [GOOD, contested, prolonged] {
        generate(id, past);
    }
    generate(contested, future);
    let fingerprint = old.fingerprint(prolonged);
    old.gpg(&[&format!("--faked-system-time={future}"), "--quick-set-expire", &fingerprint, "6y"]);
    let dated = [old.keys_of(AHEAD), old.keys_of(contested)].concat();
    assert_eq!(dated.len(), 3);
    let before = old.rest();
    let host = new_host();
    for more in [&["--json", "--dry-run"][..], &["--json"]] {
        let (moved, status) = report(&old.import(&host, more));
        assert_eq!(status, Some(1), "{moved:#}");
        for (fingerprint, _) in &dated {
            assert_names_the_clock(&reason_of(&moved, fingerprint));
        }
        if !more.contains(&"--dry-run") {
            assert_eq!(values(&moved, "imported", "name_email"), [GOOD], "{moved:#}");
            assert_names_the_clock(&reason_of(&moved, &fingerprint));
        }
    }
    assert_eq!(old.picture(), before, "the source was touched");
    assert_eq!(host.entries("keys"), [GOOD]);
    assert_eq!(host.entries("staging"), [""; 0]);
}

#[test]
fn a_clock_that_was_never_set_decides_nothing() {
    let never_set = "@1970-01-02 00:00:00";
    let mut host = Host::start(Transport::ListenUnix);
    assert_eq!(host.gen_key_patiently(GOOD, &json!({"expire": 30})).status, 201);
    assert!(host.stop().success());
    let before = snapshot(&host.home(GOOD));
    let faked = clock(never_set);
    for (name, value) in &faked {
        host.set(name, value);
    }
    host.launch();
    // Existing keys are still served. A new one would be dated 1970, so none is made.
    assert_eq!(host.gen_key(GOOD, Value::Null).unwrap().status, 200);
    let refused = host.gen_key(AHEAD, json!({"expire": 365})).unwrap();
    assert_eq!(refused.status, 503, "{}", refused.body);
    assert!(refused.head.contains("Retry-After"), "{}", refused.head);
    assert!(refused.body.contains("the clock of the sign host is wrong"), "{}", refused.body);
    assert!(host.log().contains("the clock of this host says 1970-01-02"), "{}", host.log());
    assert_eq!(host.entries("keys"), [GOOD]);
    assert!(host.stop().success());
    for (name, _) in faked {
        host.unset(&name);
    }

    for arguments in [&["prolong"][..], &["prolong", "--expired", "--trust-clock"]] {
        let refused = run_at(&host, never_set, arguments);
        assert_eq!(refused.status.code(), Some(1), "{}", text(&refused));
        assert!(text(&refused).contains("the clock of this host says 1970"), "{}", text(&refused));
    }
    let old = OldHost::new(&[]);
    old.generate("%no-protection\n", [quick(AHEAD, "")]);
    let mut import = old.import_command(&host, &[]);
    let refused = import.envs(clock(never_set)).output().unwrap();
    assert_eq!(refused.status.code(), Some(1), "{}", text(&refused));
    assert!(text(&refused).contains("the clock of this host says 1970"), "{}", text(&refused));
    let list = run_at(&host, never_set, &["list"]);
    assert!(list.status.success() && text(&list).contains(GOOD), "{}", text(&list));
    assert!(text(&list).contains("the clock of this host says 1970"), "{}", text(&list));
    let check = ["check", "--no-units", "--deep", "--repair", "--json"];
    let check = run_at(&host, never_set, &check);
    let words = "the clock of this host says 1970";
    assert!(text(&check).contains(words) && check.status.code() == Some(1), "{}", text(&check));
    assert_eq!(snapshot(&host.home(GOOD)), before);
}

#[test]
fn a_clock_behind_the_last_prolongation_decides_nothing() {
    let host = Host::start(Transport::ListenUnix);
    assert_eq!(host.gen_key_patiently(GOOD, &json!({"expire": 30})).status, 201);
    let created = read_record(&host, GOOD)["created"].as_u64().unwrap();
    thread::sleep(Duration::from_millis(1100)); // two self-signatures made in the same second count as one
    host.json(&["prolong", "--json"]);
    // Backdate the key, so that the newest self-signature is the only contradiction to the clock.
    let mut object = read_record(&host, GOOD);
    object["created"] = json!(created - 200 * DAY);
    fs::write(record(&host, GOOD), object.to_string()).unwrap();
    let before = snapshot(&host.home(GOOD));
    let refused = run_at(&host, "-100d", &["prolong", "--within", "6y", "--by", "9y"]);
    assert_eq!(refused.status.code(), Some(1), "{}", text(&refused));
    assert_names_the_clock(&text(&refused));
    let check = ["check", "--no-units", "--deep", "--repair", "--json"];
    let check = run_at(&host, "-100d", &check);
    assert_eq!(check.status.code(), Some(1));
    assert!(text(&check).contains("the clock of this host says"), "{}", text(&check));
    assert_eq!(snapshot(&host.home(GOOD)), before);
}

#[test]
fn a_key_that_has_signed_itself_under_a_clock_ahead_waits_for_that_time() {
    let host = Host::start(Transport::ListenUnix);
    assert_eq!(host.gen_key_patiently(GOOD, &json!({"expire": 30})).status, 201);
    // Prolong the certificate alone. key.json keeps the old dates.
    let certificate = host.home(GOOD).join("pubring.kbx");
    let (staged, passphrase) = (host.scratch().join("staged"), host.home(GOOD).join("passphrase"));
    succeed(Command::new("cp").arg("-a").arg(host.home(GOOD)).arg(&staged));
    let mut gpg = Command::new("gpg");
    gpg.args(["--batch", "--no-tty", "--pinentry-mode=loopback", "--passphrase-file"]);
    gpg.arg(passphrase).arg("--homedir").arg(&staged);
    let time = format!("--faked-system-time={}", now() + 2 * DAY);
    let fingerprint = read_record(&host, GOOD)["fingerprint"].as_str().unwrap().to_owned();
    succeed(gpg.args([&time, "--quick-set-expire", &fingerprint, "60d"]));
    succeed(Command::new("gpgconf").arg("--homedir").arg(&staged).args(["--kill", "all"]));
    fs::write(&certificate, fs::read(staged.join("pubring.kbx")).unwrap()).unwrap();
    let before = snapshot(&host.home(GOOD));

    let refused = host.run(&["prolong"]);
    assert_eq!(refused.status.code(), Some(1), "{}", text(&refused));
    assert_names_the_clock(&text(&refused));
    assert_eq!(snapshot(&host.home(GOOD)), before);
    let sign_host = SignHost::around(host);
    let found = sign_host.check(&["--deep", "--repair"]);
    found.assert_failed(GOOD, "the clock of this host says", "set the clock");
    assert_eq!(snapshot(&sign_host.host.home(GOOD)), before);
    let shown = sign_host.host.run(&["show", GOOD]);
    assert!(shown.status.success());
    assert_names_the_clock(&text(&shown));
}

#[test]
fn a_clock_that_has_jumped_ahead_by_years_calls_no_key_expired_and_prolongs_none() {
    let host = Host::start(Transport::ListenUnix);
    for (id, expire) in [(GOOD, "5y"), (AHEAD, "9y")] {
        assert_eq!(host.gen_key_patiently(id, &json!({"expire": expire})).status, 201);
    }
    let before = [AHEAD, GOOD].map(|id| snapshot(&host.home(id)));
    for arguments in [&["prolong"][..], &["prolong", "--expired"]] {
        let refused = run_at(&host, "+3240d", arguments);
        assert_eq!(refused.status.code(), Some(1), "{}", text(&refused));
        assert!(text(&refused).contains("it has jumped ahead"), "{}", text(&refused));
        assert!(!text(&refused).contains("have expired"), "{}", text(&refused));
    }
    let check = text(&run_at(&host, "+3240d", &["check", "--no-units", "--json"]));
    assert!(check.contains("it has jumped ahead") && !check.contains("has expired"), "{check}");
    // What a killed process left in staging/ is cleared up, which is no sign of life.
    let left_behind = || {
        let staging = host.state().join("staging");
        let (times, left) = (
            fs::metadata(&staging).unwrap().modified().unwrap(),
            staging.join("00000000-00000000"),
        );
        fs::create_dir_all(left.join("h")).unwrap();
        fs::File::open(&staging).unwrap().set_modified(times).unwrap();
        left
    };
    let left = left_behind();
    let refused = run_at(&host, "+3240d", &["prolong"]);
    assert!(text(&refused).contains("it has jumped ahead") && !left.exists(), "{}", text(&refused));
    let refused = run_at(&host, "+3240d", &["prolong"]);
    assert!(text(&refused).contains("it has jumped ahead"), "{}", text(&refused));
    // `purge` refuses as well, since a key in the trash cannot be made again.
    let removed = "removed#project@copr.example.org";
    assert_eq!(host.gen_key_patiently(removed, &Value::Null).status, 201);
    run(&host, &["remove", "--yes", removed]).well();
    left_behind();
    let refused = run_at(&host, "+3240d", &["purge", "--older-than", "90d", "--yes"]);
    assert_eq!(refused.status.code(), Some(1), "{}", text(&refused));
    assert!(text(&refused).contains("it has jumped ahead"), "{}", text(&refused));
    assert_eq!(host.entries("trash").len(), 1);
    let list = run_at(&host, "+3240d", &["list"]);
    assert!(list.status.success() && text(&list).contains("jumped ahead"), "{}", text(&list));
    assert_eq!([AHEAD, GOOD].map(|id| snapshot(&host.home(id))), before);
    // If the host really was off for years, the operator can say so and go on.
    let told = run_at(&host, "+3240d", &["prolong", "--trust-clock", "--dry-run", "--json"]);
    let told: Value = serde_json::from_slice(&told.stdout).unwrap();
    assert_eq!(
        (&told["expired"], values(&told, "due", "name_email")),
        (&json!(1), vec![AHEAD.into()])
    );
    assert!(host.run(&["prolong"]).status.success());
}

#[test]
fn hosts_whose_clocks_differ_by_seconds_work_on_each_others_keys() {
    let host = host_with_key_of("+200s");
    let made = read_record(&host, AHEAD);
    assert!(made["created"].as_u64().unwrap() > now(), "{made}");
    assert_eq!(host.gen_key(AHEAD, Value::Null).unwrap().status, 200);
    let recipient = Recipient::new();
    let archive = recipient.backup(&host, &[]);
    let sign_host = SignHost::around(host);
    sign_host.assert_well(&["--deep"]);
    fs::remove_file(record(&sign_host.host, AHEAD)).unwrap();
    let repaired = sign_host.check(&["--deep", "--repair"]);
    assert!(repaired.has("repaired", "key.json", "is missing"), "{repaired:#?}");
    let again = read_record(&sign_host.host, AHEAD);
    assert_eq!((&again["expires"], &again["created"]), (&made["expires"], &made["created"]));
    assert_eq!(again["algorithm"], made["algorithm"]);
    let elsewhere = empty_host();
    restore(&elsewhere, &archive).well();
    assert_eq!(listed(&elsewhere, AHEAD).0["expires"], made["expires"]);

    let old = OldHost::new(&[]);
    let time = format!("--faked-system-time={}", now() + 100);
    old.generate_under(&[&time], "%no-protection\n", [quick(GOOD, "")]);
    let (moved, status) = report(&old.import(&elsewhere, &["--json"]));
    assert_eq!((values(&moved, "imported", "name_email"), status), (vec![GOOD.into()], Some(0)));
}
