//! 201 and 200 both promise that the key survives a power cut, so neither is sent before the key is on the
//! disk.

use std::io::{ErrorKind, Write};
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::json;

use super::host::{Connection, Host, Transport, eventually, gen_key_request};
use super::shim::Disk;

const ID: &str = "user#project@copr.example.org";

/// Longer than any answer takes unless it is held up.
const HELD_UP: Duration = Duration::from_secs(1);

/// A running service, and the disk that controls and records its calls of fsync(2).
fn host() -> (Host, Disk) {
    let mut host = Host::new(Transport::PassedUnix, &[]);
    let fsync = Disk::of(&mut host);
    host.launch();
    (host, fsync)
}

fn keys(host: &Host) -> PathBuf {
    host.state().join("keys")
}

/// The directories that have an entry for each key.
fn directories(host: &Host) -> [PathBuf; 3] {
    ["keys", "gnupg/private-keys-v1.d", "phrases"].map(|part| host.state().join(part))
}

/// Sends a request for the key and returns the connection.
fn ask(host: &Host) -> Connection {
    let body = json!({"name_real": "user_project", "name_email": ID}).to_string();
    let mut connection = host.connect().unwrap();
    connection.write_all(&gen_key_request(body.as_bytes())).unwrap();
    connection
}

/// Asserts that the request is not answered yet. The answer can be waited for afterwards.
fn assert_held_up(connection: &mut Connection) {
    connection.limit_reads(HELD_UP);
    let error = connection.reply().err();
    assert_eq!(error.map(|e| e.kind()), Some(ErrorKind::WouldBlock), "it was answered");
    connection.limit_reads(Duration::from_secs(40));
}

#[test]
fn nobody_hears_of_a_key_before_each_directory_has_it_on_the_disk() {
    let (host, fsync) = host();
    for directory in directories(&host) {
        let before = fsync.count("begin", &directory);
        fsync.hold(&directory);
        let mut maker = ask(&host);
        eventually("the disk to be waited for", || {
            (fsync.count("begin", &directory) > before).then_some(())
        });
        let mut other = ask(&host);
        assert_held_up(&mut other);
        fsync.release();
        assert_eq!(maker.reply().unwrap().status, 201, "{}", host.log());
        assert_eq!(other.reply().unwrap().status, 200, "{}", host.log());
        let output = host.run(&["remove", "--yes", ID]);
        assert!(output.status.success(), "{output:?}");
    }
}

#[test]
fn a_key_that_could_not_be_written_through_is_not_said_to_exist() {
    let (host, fsync) = host();
    for directory in [keys(&host), host.state().join("phrases")] {
        fsync.fail(&directory);
        assert_eq!(host.gen_key(ID, json!({})).unwrap().status, 500, "{}", host.log());
        assert!(host.home(ID).exists(), "it failed before there was a key");
        assert_eq!(host.gen_key(ID, json!({})).unwrap().status, 500, "{}", host.log());
        fsync.heal();
        let before = fsync.count("end", &directory);
        assert_eq!(host.gen_key(ID, json!({})).unwrap().status, 200, "{}", host.log());
        assert!(fsync.count("end", &directory) > before);
        let output = host.run(&["remove", "--yes", ID]);
        assert!(output.status.success(), "{output:?}");
    }
}

#[test]
fn what_another_process_has_not_written_through_yet_is_written_through_for_it() {
    let (host, fsync) = host();
    let mut rival = Host::new(Transport::PassedUnix, &[]);
    rival.set("COPR_KEYGEN_STATE_DIR", host.state().display());
    let rivals = Disk::of(&mut rival);
    rival.launch();
    fsync.hold(&keys(&host));
    let mut maker = ask(&host);
    eventually("the key to be there", || host.home(ID).exists().then_some(()));
    rivals.hold(&keys(&host));
    let mut other = ask(&rival);
    assert_held_up(&mut other);
    rivals.release();
    assert_eq!(other.reply().unwrap().status, 200, "{}", rival.log());
    for directory in directories(&host) {
        assert!(rivals.count("end", &directory) > 0, "{directory:?}: {:?}", rivals.log());
    }
    fsync.release();
    assert_eq!(maker.reply().unwrap().status, 201, "{}", host.log());
}

#[test]
fn what_a_killed_process_did_not_write_through_the_next_one_does() {
    let (mut host, fsync) = host();
    fsync.hold(&keys(&host));
    thread::scope(|scope| {
        let request = scope.spawn(|| host.gen_key(ID, json!({})));
        eventually("the key to be there", || host.home(ID).exists().then_some(()));
        host.signal(Signal::SIGKILL);
        assert!(request.join().unwrap().is_err());
    });
    host.wait();
    host.launch();
    let mut next = ask(&host);
    assert_held_up(&mut next);
    fsync.release();
    assert_eq!(next.reply().unwrap().status, 200, "{}", host.log());
}

#[test]
fn a_key_that_is_known_to_be_on_the_disk_costs_no_fsync() {
    let names: Vec<_> = (0..5).map(|n| format!("user#p{n}@copr.example.org")).collect();
    let (mut host, fsync) = host();
    for name in &names {
        assert_eq!(host.gen_key_patiently(name, &json!({})).status, 201, "{}", host.log());
    }
    let before = fsync.log().len();
    for name in names.iter().cycle().take(50) {
        assert_eq!(host.gen_key(name, json!({})).unwrap().status, 200);
    }
    assert_eq!(fsync.log().len(), before, "those that it made itself");
    // A new process does not know which keys are on the disk. Once nothing has changed for a few seconds, the
    // fsync(2) calls of its first request count for all keys.
    eventually("one request to pay for all", || {
        assert!(host.stop().success());
        host.launch();
        assert_eq!(host.gen_key(&names[0], json!({})).unwrap().status, 200);
        let before = fsync.log().len();
        for name in names.iter().cycle().take(10) {
            assert_eq!(host.gen_key(name, json!({})).unwrap().status, 200);
        }
        (fsync.log().len() == before).then_some(())
    });
}
