//! Keys imported while the clock was ahead. Their certificates date from the past. Only `changed` in
//! `key.json` is a time in the future.

use std::fs;

use serde_json::json;

use super::certificate::{assert_signs, text};
use super::check_host::SignHost;
use super::host::{Host, now};
use super::old_host::{OldHost, new_host, plain, quick, values};
use super::signer_host::record;
use super::years::clock;

const SLACK: u64 = 300;

/// A host that has imported keys made today while its clock was 150 days ahead. Its clock is right again.
fn host_with_imported(ids: &[String]) -> Host {
    let old = OldHost::new(&[]);
    old.generate("%no-protection\n", ids.iter().map(|id| quick(id, "")));
    old.rest();
    let host = new_host();
    let imported = old.import_command(&host, &[]).envs(clock("+150d")).output().unwrap();
    assert!(imported.status.success(), "{}", text(&imported));
    for id in ids {
        let record = record(&host, id);
        let [created, changed] = ["created", "changed"].map(|name| record[name].as_u64().unwrap());
        assert!(created <= now() && changed > now() + SLACK, "{record}");
    }
    host
}

#[test]
fn keys_imported_under_a_clock_ahead_are_put_right_by_check_and_nobody_is_told_to_remove_them() {
    let ids = plain(1);
    let host = host_with_imported(&ids);
    let refused = host.run(&["prolong", "--within", "9y", "--by", "9y"]);
    assert_eq!(refused.status.code(), Some(1), "{}", text(&refused));
    let ahead = "last changed under a clock that was ahead";
    for words in [&ids[0], ahead, "check --repair"] {
        assert!(text(&refused).contains(words), "{}", text(&refused));
    }
    assert!(!text(&refused).contains("is dated 2"), "{}", text(&refused));

    let sign_host = SignHost::around(host);
    let before = fs::read(sign_host.host.home(&ids[0]).join("pubring.kbx")).unwrap();
    for options in [&[][..], &["--deep"]] {
        let found = sign_host.check(options);
        assert!(found.has("failed", "key.json", ahead), "{found:#?}");
        found.assert_failed("key.json", ahead, "check --repair");
        found.assert_failed("clock", ahead, "check --repair");
        assert!(!format!("{found:?}").contains("remove the key"), "{found:#?}");
    }
    let repaired = sign_host.check(&["--repair"]);
    assert!(repaired.has("repaired", "key.json", ahead), "{repaired:#?}");
    let again = sign_host.check(&["--deep"]);
    assert_eq!(again.code, Some(0), "{again:#?}");
    let host = &sign_host.host;
    assert!(record(host, &ids[0])["changed"].as_u64().unwrap() <= now());
    assert_eq!(fs::read(host.home(&ids[0]).join("pubring.kbx")).unwrap(), before);
    let prolonged = host.run(&["prolong", "--within", "9y", "--by", "9y"]);
    assert!(prolonged.status.success(), "{}", text(&prolonged));
    assert_signs(host, &ids[0]);
}

#[test]
fn keys_imported_under_a_clock_ahead_are_prolonged_when_the_clock_is_to_be_trusted() {
    let ids = plain(2);
    let host = host_with_imported(&ids);
    let trust = ["prolong", "--within", "9y", "--by", "9y", "--trust-clock", "--json"];
    let done = host.json(&trust);
    assert_eq!(values(&done, "prolonged", "name_email"), *ids, "{done:#}");
    assert_eq!(done["failed"], json!([]), "{done:#}");
    for id in &ids {
        assert!(record(&host, id)["changed"].as_u64().unwrap() <= now());
        assert_signs(&host, id);
    }
    assert!(host.run(&["prolong"]).status.success());
}
