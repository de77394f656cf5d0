//! `list` and `show`: their output fits the terminal, is in order, and holds nothing that controls the
//! terminal.

use std::fs;
use std::process::Command;

use serde_json::{Value, json};

use super::host::{Host, Transport};
use super::safekeeping::run;
use super::terminal::Terminal;

const FIRST: &str = "user#first@copr.example.org";
const SECOND: &str = "user#second@copr.example.org";
const LONG: &str = "@group#a-project-with-a-name-that-is-as-long-as-some-are@copr.example.org";

/// A host with three keys. `SECOND`, the last one by name, is the first one to expire.
fn host() -> Host {
    let host = Host::start(Transport::PassedUnix);
    for (id, expire) in [(LONG, json!("5y")), (FIRST, json!(0)), (SECOND, json!(30))] {
        assert_eq!(host.gen_key_patiently(id, &json!({"expire": expire})).status, 201);
    }
    host
}

fn on_terminal(host: &Host, columns: u16, arguments: &[&str]) -> String {
    Terminal::run(columns, host.mode(arguments).env("TERM", "xterm"))
}

#[test]
fn a_list_fits_the_terminal_and_names_every_key() {
    let host = host();
    for columns in [80, 100, 200] {
        let list = on_terminal(&host, columns, &["list"]);
        let longest = list.lines().map(|line| line.chars().count()).max().unwrap();
        assert!(longest <= columns.into(), "{longest} in {columns} columns:\n{list}");
        for words in [FIRST, SECOND, LONG, "never", "EXPIRES"] {
            assert!(list.contains(words), "{words} in {columns} columns:\n{list}");
        }
        let wide = ["ALGORITHM", "CREATED", "FINGERPRINT"].map(|head| list.contains(head));
        assert_eq!(wide, [columns > 80, columns > 100, columns == 200], "{columns}:\n{list}");
    }
    // With names of usual length, 80 columns have room for more.
    let list = on_terminal(&host, 80, &["list", "user#*"]);
    assert!(list.contains("CREATED") && list.lines().all(|line| line.len() <= 80), "{list}");
}

#[test]
fn a_list_has_an_order_and_may_be_of_names_only() {
    let host = host();
    let names = |arguments: &[&str]| {
        let said = run(&host, &[&["list", "--names"], arguments].concat()).well();
        String::from_utf8(said.stdout).unwrap().lines().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(names(&[]), [LONG, FIRST, SECOND]);
    assert_eq!(names(&["user#*"]), [FIRST, SECOND]);
    assert_eq!(names(&["--sort", "expires"]), [SECOND, LONG, FIRST]);
    assert_eq!(names(&["--expires-before", "31d"]), [SECOND]);
    assert_eq!(names(&["--changed-since", "12h"]).len(), 3);
    for (id, created, changed) in [(LONG, 3, 10), (FIRST, 2, 30), (SECOND, 1, 20)] {
        let path = host.home(id).join("key.json");
        let mut record: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        record["created"] = json!(created);
        record["changed"] = json!(changed);
        fs::write(&path, record.to_string()).unwrap();
    }
    assert_eq!(names(&["--sort", "created"]), [SECOND, FIRST, LONG]);
    assert_eq!(names(&["--sort", "changed"]), [LONG, SECOND, FIRST]);
    let json = host.json(&["list", "--sort", "created"]);
    assert_eq!(json[0]["name_email"], SECOND);
    for wrong in [&["--sort", "size"][..], &["--names", "--json"]] {
        assert_eq!(run(&host, &[&["list"], wrong].concat()).code, Some(2), "{wrong:?}");
    }
}

#[test]
fn several_keys_are_shown_at_once_and_one_that_is_missing_stops_none() {
    let host = host();
    let one = host.json(&["show", "--json", FIRST]);
    assert_eq!(one["name_email"], FIRST);
    let several = host.json(&["show", "--json", SECOND, FIRST]);
    assert_eq!((&several[0]["name_email"], &several[1]), (&json!(SECOND), &one));
    let said = run(&host, &["show", "none#such@copr.example.org", FIRST]);
    let shown: Value = serde_json::from_slice(&said.stdout).unwrap();
    assert_eq!(shown, json!([one]));
    said.badly("1 of 2 keys could not be shown");
    let text = on_terminal(&host, 80, &["show", SECOND, FIRST]);
    assert!(text.find(SECOND) < text.find(FIRST), "{text}");
    assert!(text.contains(&format!("\n\n{FIRST}\n  user ID")), "{text}");
}

#[test]
fn a_user_id_cannot_steer_the_terminal() {
    let host = host();
    // gpg itself adds this user ID. An imported home may have one like it.
    let home = host.home(FIRST);
    let user_id = format!("a\x1b[2Jb\x07\u{202e}c <{FIRST}>");
    let passphrase = home.join("passphrase");
    let mut gpg = Command::new("gpg");
    gpg.args(["--batch", "--no-tty", "--quiet", "--pinentry-mode=loopback", "--passphrase-file"]);
    gpg.arg(&passphrase).arg("--homedir").arg(&home);
    gpg.args(["--allow-freeform-uid", "--quick-add-uid", FIRST]).arg(&user_id);
    let output = gpg.output().unwrap();
    let words = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{words}");
    let mut end = Command::new("gpgconf");
    let _ = end.arg("--homedir").arg(&home).args(["--kill", "all"]).status();

    let shown = host.json(&["show", "--json", FIRST]);
    let has_it = |ids: &Vec<Value>| ids.iter().any(|id| id == user_id.as_str());
    assert!(shown["user_ids"].as_array().is_some_and(has_it), "{shown}");
    let text = on_terminal(&host, 80, &["show", FIRST]);
    let escaped = format!(r"user ID         a\u{{1b}}[2Jb\u{{7}}\u{{202e}}c <{FIRST}>");
    assert!(text.contains(&escaped), "{text:?}");
    assert!(!text.contains(['\x1b', '\x07', '\u{202e}']), "{text:?}");
}

#[test]
fn what_is_logged_cannot_steer_the_terminal() {
    let host = Host::new(Transport::PassedUnix, &[]);
    let odd = host.scratch().join("odd\x1b[31m\nstate");
    for mode in [&["list"][..], &["gpg", "--", "--list-keys"]] {
        let output = host.mode(mode).env("COPR_KEYGEN_STATE_DIR", &odd).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(said.contains(r"odd\u{1b}[31m\nstate"), "{mode:?}: {said:?}");
        assert_eq!(said.matches(['\x1b', '\n']).count(), 1, "{mode:?}: {said:?}");
    }
}

#[test]
fn a_plain_terminal_gets_plain_lines() {
    let host = host();
    for (name, value) in [("TERM", "dumb"), ("NO_COLOR", "1")] {
        let mut prolong = host.mode(&["prolong"]);
        let text = Terminal::run(80, prolong.env("TERM", "xterm").env(name, value));
        assert!(!text.contains('\x1b'), "{name}: {text:?}");
        assert!(text.contains("3 keys: 1 prolonged until ") || name == "NO_COLOR", "{text}");
    }
}

#[test]
fn an_argument_gets_to_no_terminal_as_it_is() {
    let host = Host::start(Transport::PassedUnix);
    let output = host.run(&["show", "a\u{1b}[31m#y@z\u{7}"]);
    assert_eq!(output.status.code(), Some(2));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!said.contains(['\u{1b}', '\u{7}']), "{said:?}");
}
