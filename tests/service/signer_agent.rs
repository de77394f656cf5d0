//! Keys with which only gpg-agent can sign, when the agent fails, hangs or signs with another key.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::certificate::text;
use super::faults::{processes_of, stand_in};
use super::host::{Host, Transport, eventually};
use super::old_host::{OldHost, new_host, quick};
use super::signer_client::{argument, new, old};
use super::signer_host::{ID, SignerHost, send, time};

const FIRST: &str = "first#project@copr.example.org";
const SECOND: &str = "second#project@copr.example.org";

/// A host with two DSA keys, which need the agent, and an Ed25519 key, which does not.
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

/// Starts `signd` with a shell script in place of the agent.
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
    let limits = [("COPR_KEYGEN_SIGND_JOBS", "1"), ("COPR_KEYGEN_QUEUE_TIMEOUT", "5s")];
    let host = with_agent(host(), "exec sleep 100", &limits);
    let begun = Instant::now();
    thread::scope(|scope| {
        let hangs = scope.spawn(|| host.assert_refuses(FIRST, ""));
        eventually("an agent to hang", || (!host.keys.entries("staging").is_empty()).then_some(()));
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

#[test]
fn a_request_has_few_digests_for_the_agent() {
    let host = SignerHost::around(host(), Transport::ListenUnix, &[]);
    let digest = argument(8, b"data", 0, time());
    let digest = digest.split_once(':').map_or(digest.as_str(), |(_, digest)| digest);
    let user = format!("SHA256:{FIRST}");
    let request = |count| new(&[vec!["sign", user.as_str()], vec![digest; count]].concat());
    assert!(host.ask(&request(4)).is_ok());
    let refused = host.ask(&request(5)).unwrap_err();
    assert!(refused.contains("has 4 digests for it at most, not 5"), "{refused}");
}

#[test]
fn what_a_killed_process_left_of_keys_is_cleared_by_the_next() {
    let mut host = with_agent(host(), "exec sleep 100", &[]);
    let digest = format!("SHA256:{}", argument(8, b"data", 0, time()));
    let asking = send(&host.signd, &old(FIRST, digest));
    eventually("a copy of the key", || (!host.keys.entries("staging").is_empty()).then_some(()));
    host.signd.signal(Signal::SIGKILL);
    drop(asking);
    eventually("the killed process to end", || host.signd.ended());
    assert_eq!(host.keys.entries("staging").len(), 1);
    eventually("the next process to clear it", || {
        host.signd.launch();
        let is_clear = host.keys.entries("staging").is_empty();
        if !is_clear {
            host.signd.signal(Signal::SIGKILL);
            eventually("it to end", || host.signd.ended());
        }
        is_clear.then_some(())
    });
    host.assert_signs(ID);
}
