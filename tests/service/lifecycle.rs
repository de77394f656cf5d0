//! Idling, stopping, and what the service tells systemd about it.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::ExitStatus;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use nix::sys::stat::Mode;
use serde_json::json;
use tempfile::TempDir;

use super::host::{
    Connection, DoneWhenDropped, Host, Reply, Transport, eventually, gen_key_request,
};
use super::programs::write_script;

const ID: &str = "user#project@copr.example.org";
const PING: &[u8] = b"GET /ping HTTP/1.1\r\nHost: sign-host\r\n\r\n";

/// A directory with a path short enough for a socket.
pub fn scratch() -> TempDir {
    tempfile::Builder::new().prefix("ckg-").tempdir_in("/tmp").unwrap()
}

fn end_of(host: &mut Host) -> ExitStatus {
    eventually("the service to end", || host.ended())
}

/// Sends a request for a key and returns the connection.
fn ask_for_key(host: &Host) -> Connection {
    let body = json!({"name_real": "user_project", "name_email": ID}).to_string();
    let mut connection = host.connect().unwrap();
    connection.write_all(&gen_key_request(body.as_bytes())).unwrap();
    connection
}

/// A gpg that waits at a gate, which is a FIFO, before it does anything.
struct GatedGpg(TempDir);

impl GatedGpg {
    fn new() -> Self {
        let directory = scratch();
        let program = directory.path().join("gpg");
        write_script(&program, "read -r line <\"$0.gate\"\nexec /usr/bin/gpg \"$@\"");
        nix::unistd::mkfifo(&directory.path().join("gpg.gate"), Mode::S_IRWXU).unwrap();
        Self(directory)
    }

    fn program(&self) -> String {
        self.0.path().join("gpg").to_str().unwrap().into()
    }

    /// Waits until gpg is at the gate. The gate opens when the returned file is dropped.
    fn at_gate(&self) -> File {
        let gate = self.0.path().join("gpg.gate");
        let mut options = OpenOptions::new();
        // Opening the FIFO fails at once as long as gpg does not read from it.
        options.write(true).custom_flags(libc::O_NONBLOCK);
        eventually("gpg to start", || options.open(&gate).ok())
    }

    fn open_for_ever(&self) {
        let gate = self.0.path().join("gpg.gate");
        fs::remove_file(&gate).unwrap();
        fs::write(gate, "\n").unwrap();
    }
}

#[test]
fn an_idle_service_exits_and_the_next_connection_is_answered_by_the_next() {
    for transport in [Transport::PassedTcp, Transport::PassedUnix] {
        let mut host = Host::new(transport, &[("COPR_KEYGEN_IDLE_TIMEOUT", "300ms")]);
        host.spawn();
        assert!(end_of(&mut host).success(), "{}", host.log());
        let mut waiting = host.connect().unwrap();
        waiting.write_all(PING).unwrap();
        host.spawn();
        assert_eq!(waiting.reply().unwrap().status, 200, "{}", host.log());
        assert!(end_of(&mut host).success(), "{}", host.log());
    }
}

#[test]
fn no_request_is_lost_across_idle_exits() {
    for transport in [Transport::PassedTcp, Transport::PassedUnix] {
        // A short watchdog interval wakes the accept loop often.
        let settings = [("COPR_KEYGEN_IDLE_TIMEOUT", "10ms"), ("WATCHDOG_USEC", "8000")];
        let mut host = Host::new(transport, &settings);
        host.spawn();
        let (host, done) = (Mutex::new(host), AtomicBool::new(false));
        let (ends, answers) = thread::scope(|scope| {
            let guard = DoneWhenDropped(&done);
            // Starts the service again as systemd would, but sooner.
            let supervisor = scope.spawn(|| {
                let mut ends = Vec::new();
                while !done.load(Ordering::Relaxed) {
                    let mut host = host.lock().unwrap();
                    if let Some(end) = host.ended() {
                        ends.push(end);
                        host.spawn();
                    }
                    drop(host);
                    thread::sleep(Duration::from_millis(2));
                }
                ends
            });
            let ask = |number: u64| -> io::Result<Reply> {
                thread::sleep(Duration::from_millis(number * 7 % 40));
                let mut connection = host.lock().unwrap().connect()?;
                connection.write_all(PING)?;
                connection.reply()
            };
            let answers: Vec<_> = (0..40).map(ask).collect();
            drop(guard);
            (supervisor.join().unwrap(), answers)
        });
        let log = host.lock().unwrap().log();
        for answer in answers {
            assert_eq!(answer.unwrap().status, 200, "{log}");
        }
        assert!(ends.len() >= 3 && ends.iter().all(ExitStatus::success), "{ends:?}: {log}");
    }
}

#[test]
fn a_service_that_nobody_would_start_again_does_not_exit() {
    let mut hosts = [
        (Transport::ListenTcp, "50ms"),
        (Transport::ListenUnix, "50ms"),
        (Transport::PassedTcp, "0"),
        (Transport::PassedUnix, "0s"),
    ]
    .map(|(transport, limit)| Host::start_with(transport, &[("COPR_KEYGEN_IDLE_TIMEOUT", limit)]));
    thread::sleep(Duration::from_millis(700));
    for host in &mut hosts {
        assert_eq!(host.ended(), None, "{}", host.log());
        assert_eq!(host.get("/ping").unwrap().status, 200);
    }
}

#[test]
fn a_service_with_a_request_is_not_idle() {
    let gpg = GatedGpg::new();
    let settings = [("COPR_KEYGEN_IDLE_TIMEOUT", "50ms"), ("COPR_KEYGEN_GPG", &gpg.program())];
    let mut host = Host::new(Transport::PassedUnix, &settings);
    // A client that has sent half a request counts as well.
    let mut sending = host.connect().unwrap();
    sending.write_all(&PING[..20]).unwrap();
    host.spawn();
    thread::sleep(Duration::from_millis(400));
    let mut working = ask_for_key(&host);
    sending.write_all(&PING[20..]).unwrap();
    assert_eq!(sending.reply().unwrap().status, 200, "{}", host.log());
    let gate = gpg.at_gate();
    thread::sleep(Duration::from_millis(400));
    drop(gate);
    assert_eq!(working.reply().unwrap().status, 201, "{}", host.log());
    assert!(end_of(&mut host).success(), "{}", host.log());
    assert!(host.home(ID).is_dir());
}

#[test]
fn a_signal_lets_the_running_request_finish_and_new_ones_wait_for_the_next_process() {
    for transport in [Transport::PassedTcp, Transport::PassedUnix] {
        let gpg = GatedGpg::new();
        let mut host = Host::start_with(transport, &[("COPR_KEYGEN_GPG", &gpg.program())]);
        let mut working = ask_for_key(&host);
        let gate = gpg.at_gate();
        host.signal(Signal::SIGTERM);
        thread::sleep(Duration::from_millis(400));
        let mut late = host.connect().unwrap();
        late.write_all(PING).unwrap();
        assert_eq!(host.ended(), None, "{}", host.log());
        drop(gate);
        assert_eq!(working.reply().unwrap().status, 201, "{}", host.log());
        assert!(end_of(&mut host).success(), "{}", host.log());
        assert_eq!(host.entries("staging"), [""; 0]);
        host.spawn();
        assert_eq!(late.reply().unwrap().status, 200, "{}", host.log());
    }
}

#[test]
fn both_signals_end_it_and_it_removes_only_a_socket_of_its_own() {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        for (transport, leaves_socket) in
            [(Transport::ListenUnix, false), (Transport::PassedUnix, true)]
        {
            let mut host = Host::start(transport);
            host.signal(signal);
            assert!(end_of(&mut host).success(), "{}", host.log());
            assert_eq!(host.scratch().join("socket").exists(), leaves_socket, "{transport:?}");
        }
    }
}

#[test]
fn a_second_signal_ends_it_at_once_and_nothing_is_half_made() {
    let gpg = GatedGpg::new();
    let mut host = Host::start_with(Transport::ListenUnix, &[("COPR_KEYGEN_GPG", &gpg.program())]);
    let mut working = ask_for_key(&host);
    let gate = gpg.at_gate();
    host.signal(Signal::SIGTERM);
    // If both signals were pending at once, they would count as one. The socket is gone once the first has
    // been taken.
    let socket = host.scratch().join("socket");
    eventually("the socket to go", || (!socket.exists()).then_some(()));
    host.signal(Signal::SIGTERM);
    assert_eq!(end_of(&mut host).code(), Some(1), "{}", host.log());
    assert_eq!(working.read(&mut [0]).unwrap_or_default(), 0, "an answer came");
    eventually("gpg and its agent to end", || {
        processes_with(&host.state()).is_empty().then_some(())
    });
    drop(gate);
    for directory in ["keys", "phrases", "gnupg/private-keys-v1.d"] {
        assert_eq!(host.entries(directory), [""; 0]);
    }
    gpg.open_for_ever();
    host.launch();
    assert_eq!(host.entries("staging"), [""; 0]);
    assert_eq!(host.gen_key(ID, json!({})).unwrap().status, 201, "{}", host.log());
}

/// Returns the command lines of processes that name a file below `directory`.
fn processes_with(directory: &Path) -> Vec<String> {
    let directory = directory.to_str().unwrap();
    let processes = fs::read_dir("/proc").unwrap().flatten();
    let lines = processes.filter_map(|entry| fs::read(entry.path().join("cmdline")).ok());
    let lines = lines.map(|line| String::from_utf8_lossy(&line).replace('\0', " "));
    lines.filter(|line| line.contains(directory)).collect()
}

/// A stand-in for the socket on which systemd receives notifications (sd_notify(3)).
struct Manager {
    socket: UnixDatagram,
    directory: TempDir,
}

impl Manager {
    fn new() -> Self {
        let directory = scratch();
        let socket = UnixDatagram::bind(directory.path().join("notify")).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        Self { socket, directory }
    }

    fn address(&self) -> String {
        self.directory.path().join("notify").to_str().unwrap().into()
    }

    /// Receives the next message.
    fn next(&self) -> io::Result<String> {
        let mut message = [0; 2048];
        loop {
            match self.socket.recv(&mut message) {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
                Ok(length) => return Ok(String::from_utf8_lossy(&message[..length]).trim().into()),
            }
        }
    }

    /// Waits for a message that begins with `beginning` and returns it.
    fn hears(&self, beginning: &str) -> String {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            let message = self.next().unwrap_or_else(|e| panic!("no {beginning}: {e}"));
            assert!(Instant::now() < deadline, "no {beginning}, but {message}");
            if message.starts_with(beginning) {
                return message;
            }
        }
    }

    /// Returns all messages until none has arrived for the time `quiet`.
    fn everything(&self, quiet: Duration) -> Vec<String> {
        self.socket.set_read_timeout(Some(quiet)).unwrap();
        let messages = std::iter::from_fn(|| self.next().ok()).collect();
        self.socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        messages
    }
}

#[test]
fn systemd_hears_how_the_service_is() {
    const LIMIT: Duration = Duration::from_secs(2);
    let manager = Manager::new();
    let limit = LIMIT.as_micros().to_string();
    let environment = [("NOTIFY_SOCKET", &*manager.address()), ("WATCHDOG_USEC", &limit)];
    let mut host = Host::new(Transport::ListenTcp, &environment);
    host.spawn();
    assert_eq!(manager.next().unwrap(), "READY=1");
    assert_eq!(host.get("/ping").unwrap().status, 200, "{}", host.log());
    let status = manager.hears("STATUS=");
    assert!(status.starts_with("STATUS=keys made: 0"), "{status}");
    for _ in 0..4 {
        let before = Instant::now();
        manager.hears("WATCHDOG=1");
        assert!(before.elapsed() < LIMIT, "systemd would have killed it");
    }
    assert_eq!(host.gen_key(ID, json!({})).unwrap().status, 201, "{}", host.log());
    manager.hears("STATUS=keys made: 1,");

    // A process that hangs sends no sign of life.
    host.signal(Signal::SIGSTOP);
    manager.everything(Duration::from_millis(100));
    assert_eq!(manager.everything(LIMIT), [""; 0]);
    host.signal(Signal::SIGCONT);
    manager.hears("WATCHDOG=1");

    host.signal(Signal::SIGTERM);
    manager.hears("STOPPING=1");
    assert!(end_of(&mut host).success(), "{}", host.log());
}

#[test]
fn systemd_hears_of_an_idle_exit_and_of_no_watchdog_that_it_did_not_ask_for() {
    // The second watchdog is for another process.
    for watchdog in [&[][..], &[("WATCHDOG_USEC", "20000"), ("WATCHDOG_PID", "1")]] {
        let manager = Manager::new();
        let mut host = Host::new(Transport::PassedUnix, watchdog);
        host.set("NOTIFY_SOCKET", manager.address());
        host.set("COPR_KEYGEN_IDLE_TIMEOUT", "300ms");
        host.spawn();
        assert!(end_of(&mut host).success(), "{}", host.log());
        let messages = manager.everything(Duration::from_millis(50));
        assert_eq!(messages.first().unwrap(), "READY=1", "{messages:?}");
        assert!(messages.iter().any(|message| message == "STOPPING=1"), "{messages:?}");
        assert!(!messages.iter().any(|message| message.contains("WATCHDOG")), "{messages:?}");
    }
}
