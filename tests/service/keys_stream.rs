//! `GET /keys` with many keys: in little memory, to clients that are quick, slow, standing still or gone,
//! while keys are made, and while the service stops.

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read, Write};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use super::host::{Connection, Host, Transport, eventually};
use super::keys_http::{copy_id, list, multiply, record};

const ID: &str = "user#project@copr.example.org";
const LIST: &[u8] = b"GET /keys HTTP/1.1\r\nHost: sign-host\r\n\r\n";

/// The number of keys: enough for a megabyte of JSON, which is more than a Unix socket holds if nobody reads.
fn copies() -> u64 {
    std::env::var("KEYGEN_TEST_KEYS").map_or(2500, |count| count.parse().unwrap())
}

/// A host with many homes that hold only key.json. They are quickly made, and a list reads nothing else.
fn host_with_many_keys(transport: Transport) -> Host {
    let host = Host::start(transport);
    assert_eq!(host.gen_key(ID, json!({})).unwrap().status, 201, "{}", host.log());
    let mut record = record(&host, ID);
    for number in 0..copies() {
        let home = host.home(&copy_id(number));
        fs::create_dir(&home).unwrap();
        record["created"] = json!(number + 1);
        record["changed"] = json!(number + 1);
        fs::write(home.join("key.json"), record.to_string()).unwrap();
    }
    host
}

fn ask(host: &Host) -> Connection {
    let mut connection = host.connect().unwrap();
    connection.write_all(LIST).unwrap();
    connection
}

/// Reads the beginning of an answer, which must have the status 200.
fn begin(connection: &mut Connection) {
    let mut status = [0; 15];
    connection.read_exact(&mut status).unwrap();
    assert_eq!(&status, b"HTTP/1.1 200 OK");
}

fn rest(connection: &mut Connection) -> Vec<u8> {
    let mut bytes = Vec::new();
    // If the service cuts the connection off, it may be reset.
    let _ = connection.read_to_end(&mut bytes);
    bytes
}

fn peak_memory(host: &Host) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", host.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.split_whitespace().next().unwrap().parse().unwrap()
}

#[test]
fn all_keys_are_listed_in_little_memory() {
    let host = host_with_many_keys(Transport::ListenTcp);
    let before = peak_memory(&host);
    let started = Instant::now();
    let keys = list(&host, "");
    let took = started.elapsed();
    let names: BTreeSet<_> = keys.iter().map(|key| key["name_email"].as_str().unwrap()).collect();
    assert_eq!((names.len() as u64, keys.len() as u64), (copies() + 1, copies() + 1));
    let grown = peak_memory(&host) - before;
    assert!(grown < 4 * 1024, "{grown} kB more for {} keys", keys.len());
    let some = list(&host, &format!("?changed_since={}", copies() - 9));
    assert_eq!(some.len(), 11);
    println!("{} keys in {took:?}, {grown} kB", keys.len());
}

#[test]
fn who_stands_still_is_cut_off_and_who_is_slow_is_not() {
    thread::scope(|scope| {
        for transport in [Transport::ListenTcp, Transport::PassedUnix] {
            scope.spawn(move || {
                let host = host_with_many_keys(transport);
                let started = Instant::now();
                let mut stalled = ask(&host);
                begin(&mut stalled);
                let mut gone = ask(&host);
                begin(&mut gone);
                drop(gone);

                let mut slow = ask(&host);
                let (mut bytes, mut buffer) = (Vec::new(), vec![0; 160 * 1024]);
                while started.elapsed() < Duration::from_secs(7) {
                    let count = slow.read(&mut buffer[..20 * 1024]).unwrap();
                    bytes.extend_from_slice(&buffer[..count]);
                    thread::sleep(Duration::from_millis(200));
                }
                bytes.extend(rest(&mut slow));
                assert!(bytes.ends_with(b"\n]\n\r\n0\r\n\r\n"), "{transport:?}: {}", host.log());

                let cut = rest(&mut stalled);
                // A TCP socket itself holds up to 4 MB, which may be the whole list.
                if transport == Transport::PassedUnix || copies() > 15_000 {
                    assert!(!cut.ends_with(b"0\r\n\r\n"), "{} bytes", cut.len());
                    assert!(
                        host.log().contains("the client took nothing for 5s"),
                        "{}",
                        host.log()
                    );
                }
                assert_eq!(host.get("/ping").unwrap().status, 200);
            });
        }
    });
}

#[test]
fn a_stop_does_not_wait_long_for_a_list() {
    let mut host = host_with_many_keys(Transport::PassedUnix);
    let mut slow = ask(&host);
    begin(&mut slow);
    host.signal(Signal::SIGTERM);
    let stopped = Instant::now();
    let end = thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let (mut bytes, mut buffer) = (Vec::new(), [0; 8 * 1024]);
            while let Ok(count @ 1..) = slow.read(&mut buffer) {
                bytes.extend_from_slice(&buffer[..count]);
                // The client reads all the time, but so slowly that the list would take a minute.
                let pause = if stopped.elapsed() < Duration::from_secs(6) { 200 } else { 0 };
                thread::sleep(Duration::from_millis(pause));
            }
            bytes
        });
        let end = eventually("the service to end", || host.ended());
        assert!(!reader.join().unwrap().ends_with(b"0\r\n\r\n"));
        end
    });
    assert!(end.success(), "{}", host.log());
    let took = stopped.elapsed();
    assert!(took > Duration::from_secs(4), "the list was cut off after {took:?}");
    assert!(host.log().contains("the service stops"), "{}", host.log());
}

#[test]
fn lists_leave_room_for_everybody_else() {
    let host = host_with_many_keys(Transport::PassedUnix);
    let mut lists: Vec<_> = (0..16).map(|_| ask(&host)).collect();
    lists.iter_mut().for_each(begin);
    let busy = host.get("/keys").unwrap();
    assert_eq!((busy.status, busy.header("Retry-After")), (503, Some("5")));
    assert_eq!(host.get("/keys/user%23project@copr.example.org").unwrap().status, 200);
    let head = host.send(b"HEAD /ping HTTP/1.1\r\n\r\n").unwrap();
    assert_eq!(head.status, 200);
    drop(lists);
    eventually("a place", || (host.get("/keys").unwrap().status == 200).then_some(()));
}

#[test]
fn keys_that_are_made_meanwhile_spoil_nothing() {
    let host = Host::start(Transport::PassedUnix);
    assert_eq!(host.gen_key(ID, json!({})).unwrap().status, 201);
    multiply(&host, ID, 300, |_, _| {});
    let made = thread::scope(|scope| {
        let makers: Vec<_> = (0..2)
            .map(|maker| {
                let host = &host;
                scope.spawn(move || {
                    for number in 0..4 {
                        let id = format!("user{maker}#made{number}@copr.example.org");
                        assert_eq!(host.gen_key_patiently(&id, &json!({})).status, 201);
                        // A key whose request was answered with 201 is in every later list.
                        let listed = list(host, "?changed_since=1000");
                        assert!(listed.iter().any(|key| key["name_email"] == *id), "{id}");
                        let path = format!("/keys/{}/pubkey", id.replace('#', "%23"));
                        assert_eq!(host.get(&path).unwrap().status, 200);
                    }
                })
            })
            .collect();
        let mut lists = 0;
        while makers.iter().any(|maker| !maker.is_finished()) {
            let keys: Vec<Value> = list(&host, "");
            assert!((301..=309).contains(&keys.len()), "{}", keys.len());
            lists += 1;
        }
        makers.into_iter().for_each(|maker| maker.join().unwrap());
        lists
    });
    assert!(made > 1);
    assert_eq!(list(&host, "").len(), 309);
    assert!(!host.log().contains("left out"), "{}", host.log());
}
