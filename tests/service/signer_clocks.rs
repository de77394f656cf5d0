//! Keys that have expired, have been revoked or are dated in the future: which of them sign, and what `signd`
//! says.

use std::fs;
use std::process::Command;

use serde_json::json;

use super::certificate::{empty_directory, succeed, text};
use super::faults::stand_in;
use super::host::{Host, Transport, now};
use super::safekeeping::set_expiry;
use super::signer_client::{old, probe};
use super::signer_host::{ID, OTHER, SignerHost, assert_right, host_with, record, sign};
use super::years::clock;

fn signd_at(keys: &Host, time: &str, environment: &[(&str, &str)]) -> Host {
    let mut signd = Host::signd(keys, Transport::ListenUnix, environment);
    for (name, value) in clock(time) {
        signd.set(&name, value);
    }
    signd.launch();
    signd
}

fn keys_of(days: u32) -> Host {
    let keys = host_with(&[]);
    for (id, extra) in [(ID, json!({"expire": days})), (OTHER, json!({"expire": "9y"}))] {
        assert_eq!(keys.gen_key_patiently(id, &extra).status, 201, "{}", keys.log());
    }
    keys
}

#[test]
fn a_key_that_has_expired_signs_where_a_setting_says_so() {
    let keys = keys_of(30);
    let host = SignerHost::around(keys, Transport::ListenUnix, &[]);
    host.assert_signs(ID);
    let later = signd_at(&host.keys, "+31d", &[]);
    let refused = sign(&later, ID, b"data").unwrap_err();
    assert!(refused.starts_with(ID) && refused.contains("the key expired "), "{refused}");
    assert!(refused.contains("copr-keygen prolong --expired"), "{refused}");
    assert!(sign(&later, OTHER, b"data").is_ok());
    // `sign -4` hears the same in answer to its first request, the probe.
    let probed = super::signer_host::ask(&later, &old(ID, format!("SHA256:{}", probe(8))));
    assert_eq!(probed.unwrap_err(), refused);
    let certificate = super::signer_host::ask(&later, &old(ID, "PUBKEY")).unwrap();
    let lenient = signd_at(&host.keys, "+31d", &[("COPR_KEYGEN_SIGND_EXPIRED", "true")]);
    let packet = sign(&lenient, ID, b"data").unwrap();
    assert_right(&host.keys, &certificate, ID, b"data", &packet);
    // The certificate decides, and not key.json.
    let mut json = record(&host.keys, ID);
    json["expires"] = json!(now() + 60 * 86_400);
    fs::write(host.keys.home(ID).join("key.json"), json.to_string()).unwrap();
    assert_eq!(sign(&later, ID, b"data").unwrap_err(), refused);
    set_expiry(&host.keys, ID, 60);
    assert!(sign(&later, ID, b"data").is_ok());
    assert!(later.log().contains(" sign unfit "), "{}", later.log());
}

#[test]
fn prolonging_makes_an_expired_key_sign_again() {
    let keys = keys_of(30);
    let later = signd_at(&keys, "+31d", &[]);
    sign(&later, ID, b"data").unwrap_err();
    std::thread::sleep(std::time::Duration::from_millis(1100)); // else both self-signatures count as one
    let prolonged = keys.run(&["prolong", "--within", "60d", "--by", "2y"]);
    assert!(prolonged.status.success(), "{}", text(&prolonged));
    assert!(sign(&later, ID, b"data").is_ok());
}

/// Imports the revocation certificate of a key into the keyring of its home.
fn revoke(keys: &Host, id: &str) {
    let (work, home) = (empty_directory(), keys.home(id));
    let copy = work.path().join("h");
    succeed(Command::new("cp").arg("-a").arg(&home).arg(&copy));
    let file = fs::read_dir(copy.join("openpgp-revocs.d")).unwrap().next().unwrap().unwrap().path();
    // gpg puts a colon before the armor, so that nobody imports it by mistake.
    let certificate = fs::read_to_string(&file).unwrap().replace(":-----BEGIN", "-----BEGIN");
    fs::write(&file, certificate).unwrap();
    let mut import = Command::new("gpg");
    import.args(["--batch", "--no-tty", "--homedir"]).arg(&copy).arg("--import").arg(file);
    succeed(&mut import);
    fs::copy(copy.join("pubring.kbx"), home.join("pubring.kbx")).unwrap();
}

#[test]
fn a_revoked_key_signs_nothing_whatever_the_settings_say() {
    let keys = host_with(&[ID, OTHER]);
    revoke(&keys, ID);
    let all = [("COPR_KEYGEN_SIGND_EXPIRED", "true"), ("COPR_KEYGEN_SIGND_SHA1", "true")];
    let host = SignerHost::around(keys, Transport::ListenUnix, &all);
    host.assert_refuses(ID, "the key has been revoked");
    host.assert_signs(OTHER);
    assert!(host.pubkey(ID).is_ok(), "whoever gets it learns of the revocation");
}

#[test]
fn a_key_of_a_time_to_come_waits_and_names_the_clock() {
    let keys = host_with(&[ID]);
    for time in ["-2d", "@2001-01-01 00:00:00"] {
        let before = signd_at(&keys, time, &[("COPR_KEYGEN_SIGND_EXPIRED", "true")]);
        let refused = sign(&before, ID, b"data").unwrap_err();
        assert!(refused.starts_with(ID) && refused.contains("clock"), "{time}: {refused}");
        assert!(!refused.contains("unknown key"), "{refused}");
        assert!(before.log().contains(" sign failed "), "{}", before.log());
    }
    // Clocks that differ by seconds do no harm.
    let nearly = signd_at(&keys, "-100s", &[]);
    assert!(sign(&nearly, ID, b"data").is_ok());
}

#[test]
fn a_key_that_was_made_under_a_clock_ahead_waits_for_its_time() {
    let mut keys = Host::new(Transport::ListenUnix, &[]);
    let mut faked = clock("+2d");
    // gpg does not inherit the environment of the service, so a script sets its clock.
    let variables: Vec<_> = faked.iter().map(|(name, value)| format!("'{name}={value}'")).collect();
    let gpg = stand_in(&keys, &format!("exec env {} gpg \"$@\"", variables.join(" ")));
    faked.push(("COPR_KEYGEN_GPG".into(), gpg.to_str().unwrap().into()));
    faked.iter().for_each(|(name, value)| keys.set(name, value));
    keys.launch();
    assert_eq!(keys.gen_key_patiently(ID, &json!({"expire": 365})).status, 201, "{}", keys.log());
    assert!(keys.stop().success());
    faked.iter().for_each(|(name, _)| keys.unset(name));
    keys.launch();
    assert!(record(&keys, ID)["created"].as_u64().unwrap() > u64::from(super::signer_host::time()));
    let host = SignerHost::around(keys, Transport::ListenUnix, &[]);
    let refused = host.assert_refuses(ID, "the key was not made yet");
    assert!(refused.contains("the clock of the sign host says"), "{refused}");
    let then = signd_at(&host.keys, "+2d", &[]);
    assert!(sign(&then, ID, b"data").is_ok());
}
