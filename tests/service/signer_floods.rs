//! Many clients at once, idle clients, few descriptors, and a limit on the time of waiting.

use std::io::Read;
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::resource::{Resource, getrlimit, setrlimit};

use super::host::{Host, Transport, eventually};
use super::signer_client::{argument, old, parse, strings, verify};
use super::signer_host::{
    ID, OTHER, SignerHost, answer, assert_right, host_with, long_request, send, sign, time,
};

/// Raises RLIMIT_NOFILE of this process, which holds the client end of every connection.
fn allow_open_files(count: u64) {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    assert!(hard >= count, "the hard limit of open files is {hard}: raise it (ulimit -Hn {count})");
    setrlimit(Resource::RLIMIT_NOFILE, soft.max(count), hard).unwrap();
}

#[test]
fn thirty_clients_get_only_right_signatures() {
    let host = SignerHost::with_keys(&[ID, OTHER], Transport::ListenTcp, &[]);
    let certificates = [ID, OTHER].map(|id| host.pubkey(id).unwrap());
    let begin = Barrier::new(30);
    thread::scope(|scope| {
        for client in 0..30 {
            let (host, begin, certificates) = (&host, &begin, &certificates);
            scope.spawn(move || {
                begin.wait();
                for round in 0..20 {
                    let data = format!("client {client} round {round}");
                    let id = [ID, OTHER][(client + round) % 2];
                    let packet = host.sign(id, data.as_bytes()).unwrap();
                    // gpgv takes longer than the signature, so it verifies only some of them.
                    if round % 10 == client % 10 {
                        let certificate = &certificates[(client + round) % 2];
                        assert_right(&host.keys, certificate, id, data.as_bytes(), &packet);
                    }
                }
            });
        }
    });
    let lines = host.log_of(" sign ok ");
    assert_eq!(lines.len(), 600);
}

#[test]
fn two_thousand_idle_connections_keep_nobody_from_signing() {
    allow_open_files(4096);
    let keys = host_with(&[ID]);
    let mut signd = Host::signd(&keys, Transport::PassedTcp, &[]);
    signd.limit_files(1024); // the limit that a service of systemd has
    signd.launch();
    let idle: Vec<_> = (0..2000).map(|_| signd.connect().unwrap()).collect();
    let half: Vec<_> = (0..200).map(|_| send(&signd, &[0, 9, 0])).collect();
    let opened = Instant::now();
    let mut count = 0;
    while count < 100 {
        let packet = sign(&signd, ID, b"data").unwrap();
        count += 1;
        if count % 25 == 0 {
            let certificate = super::signer_host::ask(&signd, &old(ID, "PUBKEY")).unwrap();
            verify(&certificate, b"data", &packet).unwrap();
        }
    }
    let took = opened.elapsed();
    assert!(took < Duration::from_secs(30), "100 signatures took {took:?}");
    drop((idle, half));
    assert!(signd.stop().success(), "{}", signd.log());
}

#[test]
fn without_descriptors_it_recovers() {
    let keys = host_with(&[ID]);
    let mut signd = Host::signd(&keys, Transport::ListenTcp, &[]);
    signd.limit_files(40);
    signd.launch();
    let mut idle: Vec<_> = (0..100).map(|_| signd.connect().unwrap()).collect();
    // Each client gets a signature, a sentence or a hang-up, never anything wrong and never `unknown key`.
    let request = old(ID, format!("SHA256:{}", argument(8, b"data", 0, time())));
    for _ in 0..20 {
        let mut connection = send(&signd, &request);
        let mut bytes = Vec::new();
        if connection.read_to_end(&mut bytes).is_ok() && !bytes.is_empty() {
            if let Err(refused) = parse(&bytes) {
                assert!(!refused.contains("unknown key"), "{refused}");
            }
        }
        idle.push(signd.connect().unwrap());
    }
    drop(idle);
    let packet = eventually("signatures again", || {
        let mut bytes = Vec::new();
        let read = send(&signd, &request).read_to_end(&mut bytes);
        read.ok().filter(|_| !bytes.is_empty())?;
        parse(&bytes).ok()
    });
    let certificate = super::signer_host::ask(&signd, &old(ID, "PUBKEY")).unwrap();
    verify(&certificate, b"data", &packet).unwrap();
    assert!(signd.stop().success(), "{}", signd.log());
}

#[test]
fn more_clients_than_there_is_room_for_are_all_answered() {
    let keys = host_with(&[ID]);
    let environment = [("COPR_KEYGEN_SIGND_JOBS", "1"), ("COPR_KEYGEN_QUEUE_TIMEOUT", "2s")];
    let host = SignerHost::around(keys, Transport::PassedTcp, &environment);
    let request = long_request();
    let connections: Vec<_> = (0..500).map(|_| send(&host, &request)).collect();
    let (mut signed, mut busy) = (0, 0);
    for mut connection in connections {
        match answer(&mut connection) {
            Ok(output) => {
                assert_eq!(strings(&output).len(), 64);
                signed += 1;
            }
            Err(refused) => {
                assert!(refused.contains("too many signatures are waiting"), "{refused}");
                busy += 1;
            }
        }
    }
    assert!(signed > 0 && busy > 0, "{signed} signed, {busy} busy");
    host.assert_signs(ID);
}

#[test]
fn who_waits_for_too_long_hears_so() {
    let keys = host_with(&[ID]);
    let environment = [("COPR_KEYGEN_SIGND_JOBS", "1"), ("COPR_KEYGEN_QUEUE_TIMEOUT", "1ms")];
    let host = SignerHost::around(keys, Transport::ListenTcp, &environment);
    // Each request holds the only job for a while.
    let request = long_request();
    let begun = Instant::now();
    let (mut signed, mut busy) = (0, 0);
    while signed == 0 || busy == 0 {
        assert!(begun.elapsed() < Duration::from_secs(60), "{signed} signed, {busy} busy");
        let connections: Vec<_> = (0..40).map(|_| send(&host, &request)).collect();
        for mut connection in connections {
            match answer(&mut connection) {
                Ok(_) => signed += 1,
                Err(refused) => {
                    assert!(refused.contains("too many signatures are waiting"), "{refused}");
                    busy += 1;
                }
            }
        }
    }
    // A ping waits for nobody. Later there is room for signatures again.
    host.ask(&[0; 4]).unwrap();
    host.assert_signs(ID);
    assert!(!host.log_of(" sign busy ").is_empty());
}

#[test]
fn who_is_cut_off_in_the_middle_of_a_request_hears_so() {
    let host = SignerHost::with_keys(&[ID], Transport::PassedTcp, &[]);
    let mut idle: Vec<_> = (0..300).map(|_| send(&host, &[0])).collect();
    host.assert_signs(ID);
    let mut refused = 0;
    for connection in &mut idle {
        connection.limit_reads(Duration::from_millis(1));
        let mut bytes = Vec::new();
        // A connection that is not cut off has no answer yet.
        if connection.read_to_end(&mut bytes).is_ok() {
            let said = parse(&bytes).unwrap_err();
            assert!(said.contains("too many signatures are waiting"), "{said}");
            refused += 1;
        }
    }
    assert!(refused >= 40, "{refused} were cut off");
}

/// Each client has got its answer, but has sent one byte more than its request, and stays.
#[test]
fn connections_that_stay_after_their_answer_keep_nobody_from_signing() {
    let host = SignerHost::with_keys(&[ID], Transport::ListenUnix, &[]);
    let stay: Vec<_> = (0..300).map(|_| send(&host.signd, &[0, 0, 0, 0, 1])).collect();
    host.assert_signs(ID);
    drop(stay);
}
