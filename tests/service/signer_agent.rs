//! What only gpg-agent signs, when the agent fails, hangs or signs with another key.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use super::certificate::text;
use super::faults::{processes_of, stand_in};
use super::host::{Host, Transport, eventually};
use super::old_host::{OldHost, new_host, quick};
use super::signer_client::old;
use super::signer_host::{ID, SignerHost};

const FIRST: &str = "first#project@copr.example.org";
const SECOND: &str = "second#project@copr.example.org";

/// Two keys of DSA, which need the agent, and one of Ed25519, which does not.
fn host() -> Host {
    let old_host = OldHost::new(&[]);
    let kind = "Key-Type: DSA\nKey-Length: 2048\nKey-Usage: sign";
    let dsa = |id: &str| {
        quick(id, "").replace("Key-Type: EDDSA\nKey-Curve: ed25519\nKey-Usage: sign", kind)
    };
    old_host.generate("%no-protection\n", [dsa(FIRST), dsa(SECOND), quick(ID, "")]);
    let keys = new_host();
    let imported = old_host.import(&keys, &[]);
    assert!(imported.status.success(), "{}", text(&imported));
    keys
}

fn secret_key(home: &Path) -> PathBuf {
    fs::read_dir(home.join("private-keys-v1.d")).unwrap().next().unwrap().unwrap().path()
}

/// `signd` with a shell script in place of the agent.
fn with_agent(keys: Host, script: &str, environment: &[(&str, &str)]) -> SignerHost {
    let agent = stand_in(&keys, script);
    let agent = [("COPR_KEYGEN_GPG_AGENT", agent.to_str().unwrap())];
    SignerHost::around(keys, Transport::ListenUnix, &[&agent, environment].concat())
}

#[test]
fn an_agent_that_fails_is_a_sentence() {
    let mut keys = host();
    for script in ["exit 3", "exit 0", "echo nonsense", "kill -9 $$"] {
        let host = with_agent(keys, script, &[]);
        let refused = host.assert_refuses(FIRST, "");
        assert!(refused.len() < 1000, "{script}: {refused}");
        assert!(host.ask(&old(FIRST, "PUBKEY")).is_ok());
        host.assert_signs(ID);
        assert_eq!(host.keys.entries("staging"), [""; 0]);
        keys = host.keys;
    }
}

#[test]
fn a_signature_by_another_key_does_not_leave() {
    let host = SignerHost::around(host(), Transport::ListenUnix, &[]);
    host.assert_signs(FIRST);
    host.assert_signs(SECOND);
    let [first, second] = [FIRST, SECOND].map(|id| host.keys.home(id));
    fs::copy(secret_key(&second), secret_key(&first)).unwrap();
    fs::copy(second.join("passphrase"), first.join("passphrase")).unwrap();
    host.assert_refuses(FIRST, "the signature that was made is a wrong one");
    host.assert_signs(SECOND);
}

#[test]
fn an_agent_that_hangs_keeps_no_other_key_from_signing() {
    let host = with_agent(host(), "exec sleep 100", &[("COPR_KEYGEN_SIGND_JOBS", "2")]);
    let begun = Instant::now();
    thread::scope(|scope| {
        let hangs = scope.spawn(|| host.assert_refuses(FIRST, ""));
        for _ in 0..20 {
            host.assert_signs(ID);
        }
        hangs.join().unwrap();
    });
    assert!(begun.elapsed() < Duration::from_secs(60), "{:?}", begun.elapsed());
    assert_eq!(host.keys.entries("staging"), [""; 0]);
    let state = host.keys.state();
    eventually("its processes to end", || {
        let left = processes_of(&host.keys);
        let left =
            left.iter().filter(|line| line.contains(state.join("staging").to_str().unwrap()));
        (left.count() == 0).then_some(())
    });
}
