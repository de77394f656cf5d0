//! How `signd` ends: after the requests under way, when it has been idle, and when a setting is wrong.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::host::{Host, TRANSPORTS, Transport, eventually};
use super::signer_client::{old, strings};
use super::signer_host::{ID, SignerHost, answer, ask, host_with, long_request, send, sign};

#[test]
fn what_is_under_way_is_answered_before_it_ends() {
    let keys = host_with(&[ID]);
    for transport in TRANSPORTS {
        let mut signd = Host::signd(&keys, transport, &[("COPR_KEYGEN_SIGND_JOBS", "1")]);
        signd.launch();
        let request = long_request();
        let mut working: Vec<_> = (0..10).map(|_| send(&signd, &request)).collect();
        // The client sends half a request now, and the rest later.
        let short = old(ID, "PUBKEY");
        let mut late = send(&signd, &short[..10]);
        // Once a later connection has been answered, all of these have been accepted.
        ask(&signd, &[0; 4]).unwrap();
        signd.signal(Signal::SIGTERM);
        late.write_all(&short[10..]).unwrap();
        late.shut_down(Shutdown::Write);
        for connection in &mut working {
            let signed = answer(connection).unwrap();
            assert_eq!(strings(&signed).len(), 64, "{transport:?}");
        }
        answer(&mut late).unwrap();
        let begun = Instant::now();
        assert!(signd.wait().success(), "{}", signd.log());
        assert!(begun.elapsed() < Duration::from_secs(15));
        let log = signd.log();
        assert!(log.contains("stopped by a signal, every request was answered"), "{log}");
        assert_eq!(log.lines().filter(|line| line.contains(" sign ok ")).count(), 10);
    }
}

#[test]
fn silent_clients_do_not_keep_it_from_ending() {
    let mut host = SignerHost::with_keys(&[ID], Transport::ListenTcp, &[]);
    let mut silent: Vec<_> = (0..20).map(|_| send(&host, &[0, 4])).collect();
    ask(&host, &[0; 4]).unwrap();
    let begun = Instant::now();
    host.signd.signal(Signal::SIGTERM);
    assert!(host.signd.wait().success(), "{}", host.signd.log());
    assert!(begun.elapsed() < Duration::from_secs(25), "{:?}", begun.elapsed());
    for connection in &mut silent {
        let mut bytes = Vec::new();
        let _ = connection.read_to_end(&mut bytes);
        assert!(bytes.is_empty());
    }
}

#[test]
fn on_passed_sockets_it_ends_when_idle_and_loses_no_request() {
    let keys = host_with(&[ID]);
    for transport in [Transport::PassedTcp, Transport::PassedUnix] {
        let mut signd = Host::signd(&keys, transport, &[("COPR_KEYGEN_IDLE_TIMEOUT", "300ms")]);
        for round in 0..3 {
            // The socket stays open. A request that waits there is for the next process.
            let mut waiting = send(&signd, &old(ID, "PUBKEY"));
            signd.spawn();
            assert!(answer(&mut waiting).is_ok());
            let ended = eventually("it to end", || signd.ended());
            assert!(ended.success(), "{}", signd.log());
            let log = signd.log();
            let lines = log.lines().filter(|line| line.contains("nothing to do, exiting"));
            assert_eq!(lines.count(), round + 1, "{log}");
        }
    }
    // On a socket of its own, signd never ends because it is idle.
    let mut signd =
        Host::signd(&keys, Transport::ListenTcp, &[("COPR_KEYGEN_IDLE_TIMEOUT", "100ms")]);
    signd.launch();
    std::thread::sleep(Duration::from_secs(2));
    assert!(signd.ended().is_none());
    sign(&signd, ID, b"data").unwrap();
}

#[test]
fn after_being_killed_it_starts_again_as_if_nothing_had_been() {
    let keys = host_with(&[ID]);
    let before = super::safekeeping::tree(&keys.state());
    let mut signd = Host::signd(&keys, Transport::PassedUnix, &[]);
    for _ in 0..3 {
        signd.launch();
        let request = long_request();
        let mut working: Vec<_> = (0..4).map(|_| send(&signd, &request)).collect();
        ask(&signd, &[0; 4]).unwrap();
        signd.signal(Signal::SIGKILL);
        signd.wait();
        for connection in &mut working {
            let mut bytes = Vec::new();
            let _ = connection.read_to_end(&mut bytes);
        }
    }
    signd.launch();
    sign(&signd, ID, b"data").unwrap();
    assert_eq!(super::safekeeping::tree(&keys.state()), before);
}

#[test]
fn sockets_and_settings_that_are_wrong_end_it_with_a_sentence() {
    let keys = host_with(&[ID]);
    let first = SignerHost::around(keys, Transport::ListenTcp, &[]);
    let address = first.signd.log();
    let address = address.lines().find_map(|line| line.split("listening at ").nth(1)).unwrap();
    let address = address.split(',').next().unwrap();
    for (variable, value, words) in [
        ("COPR_KEYGEN_SIGND_LISTEN", address, "Address already in use"),
        ("COPR_KEYGEN_SIGND_LISTEN", "192.0.2.1:5167", "192.0.2.1:5167"),
        ("COPR_KEYGEN_SIGND_LISTEN", "unix:/nonexistent/socket", "/nonexistent/socket"),
        ("COPR_KEYGEN_SIGND_ALLOW", "unix:no-such-user *", "no-such-user"),
        ("COPR_KEYGEN_IDLE_TIMEOUT", "1 parsec", ""),
    ] {
        let is_passed = variable.contains("IDLE");
        let transport = if is_passed { Transport::PassedUnix } else { Transport::ListenUnix };
        let mut signd = Host::signd(&first.keys, transport, &[(variable, value)]);
        signd.spawn();
        let ended = signd.wait();
        let log = signd.log();
        assert!(!ended.success() && log.contains(words), "{variable}={value}: {log}");
        assert_eq!(log.lines().count(), 1, "{log}");
        let is_setting =
            !log.contains("in use") && !log.contains("assign") && !log.contains("No such");
        assert_eq!(ended.code() == Some(78), is_setting, "{log}");
    }
    first.assert_signs(ID);
}
