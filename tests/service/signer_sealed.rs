//! Sealed passphrases: `signd` opens them in its own memory, and does not start without the sealing key.

use serde_json::json;

use super::host::{Host, Transport};
use super::sealing::{KEY, OTHER_KEY, SealedHost, name};
use super::signer_client::old;
use super::signer_host::{ask, assert_right, sign};

/// Returns `signd`, not started yet, on the state of a sealed host, with the sealing key that is in place.
fn signd(sealed: &SealedHost, environment: &[(&str, &str)]) -> Host {
    let mut signd = Host::signd(&sealed.host, Transport::ListenUnix, environment);
    let key = sealed.host.scratch().join("key");
    signd.set("COPR_KEYGEN_PASSPHRASE_KEY_FILE", key.display());
    signd
}

fn assert_signs(sealed: &SealedHost, signd: &Host, id: &str) {
    let packet = sign(signd, id, b"data").unwrap_or_else(|e| panic!("{id}: {e}"));
    let certificate = ask(signd, &old(id, "PUBKEY")).unwrap();
    assert_right(&sealed.host, &certificate, id, b"data", &packet);
}

#[test]
fn sealed_keys_sign_in_this_process_while_they_are_sealed_and_unsealed() {
    let mut sealed = SealedHost::new();
    sealed.host.launch();
    sealed.make(&name(1), json!({}));
    // signd has no agent here, and nothing of what obs-signd reads.
    let alone = [("COPR_KEYGEN_GPG_AGENT", "/bin/false"), ("COPR_KEYGEN_LOG_LEVEL", "trace")];
    let mut signd = signd(&sealed, &alone);
    signd.launch();
    assert_signs(&sealed, &signd, &name(1));
    sealed.well(&["seal"]);
    sealed.make(&name(2), json!({}));
    sealed.assert_sealed();
    for id in [name(1), name(2)] {
        assert_signs(&sealed, &signd, &id);
    }
    let clear: Vec<_> =
        sealed.host.entries("keys").iter().map(|id| clear_phrase(&sealed, id)).collect();
    sealed.well(&["unseal"]);
    for id in [name(1), name(2)] {
        assert_signs(&sealed, &signd, &id);
    }
    let log = signd.log();
    for phrase in clear.into_iter().chain([KEY.to_owned()]) {
        assert!(phrase.len() >= 64 && !log.contains(&phrase), "{log}");
    }
}

/// Returns the passphrase as obs-signd is given it.
fn clear_phrase(sealed: &SealedHost, id: &str) -> String {
    let given = sealed.given();
    given.into_iter().find(|(name, _)| name == id).unwrap().1.trim().to_owned()
}

#[test]
fn it_does_not_start_without_the_key_of_a_sealed_state() {
    let mut sealed = SealedHost::sealed();
    sealed.make(&name(1), json!({}));
    assert!(sealed.host.stop().success());
    let refused = |signd: &mut Host| {
        signd.spawn();
        let ended = signd.wait();
        let log = signd.log();
        assert_eq!(ended.code(), Some(78), "{log}");
        assert_eq!(log.lines().count(), 1, "{log}");
        log
    };
    let mut without = Host::signd(&sealed.host, Transport::PassedUnix, &[]);
    let log = refused(&mut without);
    assert!(log.contains("sealed") && log.contains("passphrase"), "{log}");
    sealed.give(OTHER_KEY);
    refused(&mut signd(&sealed, &[]));
    sealed.give("nonsense");
    refused(&mut signd(&sealed, &[]));
    // The sockets stay open meanwhile. Once the right key is in place, signd starts and signs.
    sealed.give(KEY);
    without.set("COPR_KEYGEN_PASSPHRASE_KEY_FILE", sealed.host.scratch().join("key").display());
    without.launch();
    assert_signs(&sealed, &without, &name(1));
}

#[test]
fn a_state_that_is_sealed_under_a_running_signer_without_the_key_fails_with_a_sentence() {
    let mut sealed = SealedHost::new();
    sealed.host.launch();
    sealed.make(&name(1), json!({}));
    let mut without = Host::signd(&sealed.host, Transport::ListenUnix, &[]);
    without.launch();
    assert_signs(&sealed, &without, &name(1));
    sealed.well(&["seal"]);
    let refused = sign(&without, &name(1), b"data").unwrap_err();
    assert!(refused.contains(&name(1)) && refused.contains("sealed"), "{refused}");
    assert!(!refused.contains("unknown key"), "{refused}");
    // The certificate is no secret.
    assert!(ask(&without, &old(name(1), "PUBKEY")).is_ok());
}
