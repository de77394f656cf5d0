//! SIGKILL at any moment loses nothing and leaves nothing half-made.
//!
//! `KEYGEN_TEST_KILLS` is the number of kills (25 unless set).

use std::fs;
use std::io::{self, Write};
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use super::certificate::assert_signs;
use super::faults::processes_of;
use super::host::{Connection, DoneWhenDropped, Host, Transport, eventually, gen_key_request};

const CLIENTS: usize = 6;

/// The number of keys, picked at random, that have to make a signature in the end.
const SIGNED_WITH: usize = 40;

#[test]
fn kills_at_random_moments_lose_nothing_and_leave_nothing_half_made() {
    let kills = std::env::var("KEYGEN_TEST_KILLS").map_or(25, |text| text.parse().unwrap());
    let began = Instant::now();
    let mut host = Host::new(Transport::PassedUnix, &[]);
    host.launch();
    let socket = host.scratch().join("socket");
    let answers = Answers::default();
    thread::scope(|scope| {
        let _enough = answers.enough_when_dropped();
        for client in 0..CLIENTS {
            let (socket, answers) = (&socket, &answers);
            scope.spawn(move || ask_for_keys(socket, client, answers));
        }
        for kill in 0..kills {
            wait_for_a_bad_moment(&host, kill);
            assert!(host.ended().is_none(), "it ended by itself: {}", host.log());
            let promised = answers.promised();
            host.signal(Signal::SIGKILL);
            assert_eq!(host.wait().signal(), Some(Signal::SIGKILL as i32));
            // The next start finds exactly this state.
            assert_all_are_whole(&host, &promised);
            host.spawn();
        }
    });
    let promised = answers.promised();
    assert_all_are_whole(&host, &promised);
    // Asking for a key repairs the links that a kill may have prevented.
    for id in host.entries("keys") {
        assert_eq!(host.gen_key(&id, json!({})).unwrap().status, 200, "{}", host.log());
    }
    assert!(host.stop().success());
    assert_nothing_is_left_over(&host);
    let some = promised.len().min(SIGNED_WITH);
    for index in rand::seq::index::sample(&mut rand::rng(), promised.len(), some) {
        assert_signs(&host, &promised[index]);
    }
    let (made, existed) = answers.counts();
    println!(
        "{kills} kills, {} keys: {made} answered 201, {existed} answered 200 after a kill, {:.0?}",
        host.entries("keys").len(),
        began.elapsed()
    );
    assert!(made > 0, "killed too early for any key: {}", host.log());
}

/// Waits for a moment early in the life of the service, in the middle of its work, or while it publishes a
/// key.
fn wait_for_a_bad_moment(host: &Host, round: usize) {
    let milliseconds = |range| Duration::from_millis(rand::random_range(range));
    match round % 3 {
        0 => thread::sleep(milliseconds(0..150)),
        1 => thread::sleep(milliseconds(0..1000)),
        _ => {
            let links = host.state().join("gnupg/private-keys-v1.d");
            let last_link = || fs::metadata(&links).unwrap().modified().unwrap();
            let (before, deadline) = (last_link(), Instant::now() + Duration::from_secs(2));
            while last_link() == before && Instant::now() < deadline {
                thread::yield_now();
            }
            // Half of the time, kill at once: what follows the link takes less time than the shortest sleep.
            if rand::random() {
                thread::sleep(Duration::from_micros(rand::random_range(0..5_000)));
            }
        }
    }
}

/// Requests one new key after the other, and repeats each request until it is answered.
fn ask_for_keys(socket: &Path, client: usize, answers: &Answers) {
    for number in 0.. {
        let id = format!("user{client}#project{number}@copr.example.org");
        loop {
            if answers.enough.load(Ordering::Relaxed) {
                return;
            }
            match ask_for_key(socket, &id) {
                Ok(status @ (200 | 201)) => break answers.add(&id, status),
                Ok(503) => thread::sleep(Duration::from_millis(100)),
                Ok(status) => panic!("{id} was answered {status}"),
                // The service was killed, so whether the key exists is unknown.
                Err(_) => {}
            }
        }
    }
}

fn ask_for_key(socket: &Path, id: &str) -> io::Result<u16> {
    let stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(Duration::from_secs(60)))?;
    let mut connection = Connection::Unix(stream);
    let body = json!({"name_real": "user_project", "name_email": id}).to_string();
    connection.write_all(&gen_key_request(body.as_bytes()))?;
    Ok(connection.reply()?.status)
}

/// The answers that the clients have got.
#[derive(Default)]
struct Answers {
    all: Mutex<Vec<(String, u16)>>,
    enough: AtomicBool,
}

impl Answers {
    fn enough_when_dropped(&self) -> DoneWhenDropped<'_> {
        DoneWhenDropped(&self.enough)
    }

    fn add(&self, id: &str, status: u16) {
        self.all.lock().unwrap().push((id.into(), status));
    }

    /// Returns the identities whose key was promised by an answer.
    fn promised(&self) -> Vec<String> {
        self.all.lock().unwrap().iter().map(|(id, _)| id.clone()).collect()
    }

    fn counts(&self) -> (usize, usize) {
        let all = self.all.lock().unwrap();
        let made = all.iter().filter(|(_, status)| *status == 201).count();
        (made, all.len() - made)
    }
}

/// Asserts that every home in `keys/` is complete, that every promised key is there, and that `phrases/`
/// names only keys that exist.
fn assert_all_are_whole(host: &Host, promised: &[String]) {
    let keys = host.entries("keys");
    for id in &keys {
        assert_home_is_whole(&host.home(id));
    }
    let phrases = host.entries("phrases");
    for id in promised.iter() {
        assert!(keys.binary_search(id).is_ok(), "the key of {id} is gone: {}", host.log());
        assert!(phrases.binary_search(id).is_ok(), "the phrase of {id} is gone: {}", host.log());
    }
    for id in phrases {
        assert!(keys.binary_search(&id).is_ok(), "a phrase without a key: {id}: {}", host.log());
    }
}

fn assert_home_is_whole(home: &Path) {
    let read = |file: &str| fs::read(home.join(file)).unwrap_or_else(|e| panic!("{home:?}: {e}"));
    assert!(read("pubring.kbx").len() > 500, "{home:?}");
    assert_eq!(read("passphrase").len(), 65, "{home:?}");
    let record: Value = serde_json::from_slice(&read("key.json")).unwrap();
    let keygrip = record["keygrip"].as_str().unwrap();
    let secret_key = read(&format!("private-keys-v1.d/{keygrip}.key"));
    assert!(String::from_utf8_lossy(&secret_key).contains("protected-private-key"), "{home:?}");
    assert_eq!(fs::read_dir(home.join("private-keys-v1.d")).unwrap().count(), 1, "{home:?}");
    assert_eq!(fs::read_dir(home).unwrap().count(), 5, "{home:?}: more than belongs there");
}

fn assert_nothing_is_left_over(host: &Host) {
    assert_eq!(host.entries("staging"), [""; 0], "{}", host.log());
    let keys = host.entries("keys");
    assert_eq!(host.entries("phrases"), keys);
    for directory in ["phrases", "gnupg/private-keys-v1.d"] {
        let entries = host.entries(directory);
        assert_eq!(entries.len(), keys.len(), "{directory}");
        for entry in entries {
            let link = host.state().join(directory).join(&entry);
            assert!(link.is_file(), "{directory}/{entry} leads nowhere: {}", host.log());
        }
    }
    // If its gpg was killed with the service, an agent finds that out within a few seconds and ends.
    eventually("all gpg processes have ended", || processes_of(host).is_empty().then_some(()));
}
