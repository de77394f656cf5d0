//! `copr-keygen make`: an operator gets the key that `POST /gen_key` would have made.

use serde_json::json;

use super::certificate::assert_signs;
use super::host::{Host, Transport};
use super::safekeeping::{assert_links_are_right, run, tree};

const ID: &str = "user#project@copr.example.org";

#[test]
fn an_operator_makes_the_key_that_a_request_would_have_made() {
    let host = Host::start(Transport::PassedUnix);
    let more = ["--comment", "for tests", "--length", "3072", "--expire", "30", "--json"];
    let made = host.json(&[&["make", ID, "--real", "user_project"][..], &more].concat());
    assert_eq!((&made["made"], &made["name_email"]), (&json!(true), &json!(ID)), "{made}");
    let lifetime = made["expires"].as_u64().unwrap() - made["created"].as_u64().unwrap();
    assert_eq!((lifetime, &made["algorithm"]), (30 * 86_400, &json!("rsa3072")));
    let listing = host.gpg(ID, &["--list-keys"]);
    assert!(listing.contains("user_project (for tests) <user#project@"), "{listing}");
    assert_links_are_right(&host);
    assert_signs(&host, ID);

    // The service and the next operator find that the key exists.
    assert_eq!(host.gen_key(ID, json!({})).unwrap().status, 200, "{}", host.log());
    let before = tree(&host.home(ID));
    let again = run(&host, &["make", ID, "--real", "another"]).well();
    let said = String::from_utf8(again.stdout).unwrap();
    let print = made["fingerprint"].as_str().unwrap();
    assert!(said.contains(print) && said.contains("exists, nothing was changed"), "{said}");
    assert_eq!(tree(&host.home(ID)), before);
}

#[test]
fn settings_are_the_defaults_and_mistakes_make_nothing() {
    let mut host = Host::start(Transport::PassedUnix);
    assert!(host.stop().success());
    host.set("COPR_KEYGEN_KEY_LENGTH", "3072");
    host.set("COPR_KEYGEN_EXPIRE", "2y");
    for (arguments, words) in [
        (&[ID, "--real", "a<b"][..], "name_real"),
        (&[ID, "--real", "a", "--comment", "(b"], "name_comment"),
        (&[ID, "--real", "a\x1bb"], "control character"),
        (&[ID], "--real"),
        (&["../../etc#x@y", "--real", "a"], "name_email"),
        (&[ID, "--real", "a", "--length", "1024"], "2048, 3072 or 4096"),
        (&[ID, "--real", "a", "--expire", "200y"], "2106"),
    ] {
        let said = run(&host, &[&["make"], arguments].concat());
        assert_eq!(said.code, Some(2), "{arguments:?}: {}", said.stderr);
        assert!(said.stderr.contains(words), "{arguments:?}: {}", said.stderr);
        assert_eq!(host.entries("keys"), [""; 0]);
    }
    let made = host.json(&["make", ID, "--real", "user_project", "--json"]);
    assert_eq!(made["algorithm"], "rsa3072", "{made}");
    let lifetime = made["expires"].as_u64().unwrap() - made["created"].as_u64().unwrap();
    assert_eq!(lifetime, 2 * 365 * 86_400);
}
