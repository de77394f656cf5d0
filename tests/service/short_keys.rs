//! RSA keys that apt will refuse before they expire: `check` and `prolong` name them, and do not fail because
//! of them.

use serde_json::json;

use super::certificate::text;
use super::check_host::SignHost;
use super::host::{Host, Transport};
use super::years::clock;

fn name(number: usize) -> String {
    format!("user#p{number}@copr.example.org")
}

/// A host with keys of these lengths.
fn host_with(lengths: &[u16], expire: u32) -> Host {
    let host = Host::start(Transport::ListenUnix);
    for (number, length) in lengths.iter().enumerate() {
        let request = json!({"key_length": length, "expire": expire});
        assert_eq!(host.gen_key_patiently(&name(number), &request).status, 201, "{}", host.log());
    }
    host
}

#[test]
fn check_notes_short_keys_with_some_of_their_names() {
    let lengths = [2048, 3072, 2048, 2048, 2048];
    let sign_host = SignHost::around(host_with(&lengths, 0));
    sign_host.assert_well(&[]);
    let words = "4 RSA keys have less than 3072 bits; from 2030-02-01 on apt 3 refuses signatures";
    let found = sign_host.check(&[]);
    let line = found.line("note", "keys", words).unwrap_or_else(|| panic!("{found:#?}"));
    let named = [0, 2, 3].map(name).join(", ");
    assert!(
        line["message"].as_str().unwrap().ends_with(&format!(": {named} and 1 more")),
        "{line}"
    );
    assert!(line["remedy"].as_str().unwrap().contains("rpm") && line["is_command"] == false);
    let (code, page) = sign_host.page(&[]);
    assert_eq!(code, Some(0), "{page}");
    assert!(page.contains(&format!("verifiers\n  note      keys: {words}")), "{page}");
    assert_eq!(sign_host.page(&["--quiet"]), (Some(0), String::new()));
}

#[test]
fn check_says_nothing_of_keys_that_are_long_enough() {
    let sign_host = SignHost::around(host_with(&[3072, 4096], 0));
    let verifiers = |line: &&serde_json::Value| line["section"] == "verifiers";
    assert_eq!(sign_host.check(&[]).lines.iter().find(verifiers), None);
}

#[test]
fn a_key_length_that_makes_short_keys_is_a_warning_once_the_day_is_near() {
    // This host has no key, so nothing contradicts its clock.
    let mut sign_host = SignHost::with_keys(&[]);
    sign_host.environment = clock("@2035-01-01 00:00:00");
    let words = "2048: apt 3 refuses RSA keys of less than 3072 bits from 2030-02-01 on";
    sign_host.set("COPR_KEYGEN_KEY_LENGTH", "2048");
    let found = sign_host.check(&[]);
    let line = found.line("warning", "key_length", words).unwrap_or_else(|| panic!("{found:#?}"));
    assert!(line["remedy"].as_str().unwrap().contains("key_length = 4096"), "{line}");
    assert_eq!(found.code, Some(0), "{found:#?}");
    // Following the remedy ends the warning.
    sign_host.set("COPR_KEYGEN_KEY_LENGTH", "4096");
    sign_host.set("COPR_KEYGEN_POOL", "4096:16");
    sign_host.assert_well(&[]);
}

#[test]
fn prolong_says_once_how_many_keys_apt_will_refuse_all_the_same() {
    let host = host_with(&[2048, 2048, 3072], 30);
    let words = "apt 3 will not believe the new expiry of 2 RSA keys of less than 3072 bits";
    for arguments in [&["prolong", "--dry-run"][..], &["prolong", "--json"]] {
        let output = host.run(arguments);
        assert!(output.status.success(), "{}", text(&output));
        assert_eq!(text(&output).matches(words).count(), 1, "{}", text(&output));
        assert!(!String::from_utf8_lossy(&output.stdout).contains(words));
    }
    // Nothing is due, so there is nothing to say.
    assert!(!text(&host.run(&["prolong"])).contains("apt 3"));
    let long = host_with(&[3072], 30);
    assert!(!text(&long.run(&["prolong"])).contains("apt 3"));
}
