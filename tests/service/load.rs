//! Many clients at once.

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use serde_json::json;

use super::faults::host_with_gpg;
use super::host::{Connection, Host, Transport};

#[test]
fn twenty_clients_get_twenty_keys_from_twenty_runs_of_gpg_on_all_cores() {
    let count =
        r#"echo start >>"$here/runs"; gpg "$@"; code=$?; echo end >>"$here/runs"; exit $code"#;
    let host = host_with_gpg(count, &[]);
    let begin = Barrier::new(20);
    let answers: Vec<(String, u16)> = thread::scope(|scope| {
        let clients: Vec<_> = (0..20)
            .map(|client| {
                let (host, begin) = (&host, &begin);
                scope.spawn(move || {
                    begin.wait();
                    // Every client asks for ten of the identities, so that all are asked for ten
                    // times, some at once and some again later.
                    let ids = (0..10).map(|step| (client / 2 + step * 2) % 20);
                    ids.map(|number| {
                        let id = format!("user#project{number}@copr.example.org");
                        let status = host.gen_key_when_free(&id).status;
                        (id, status)
                    })
                    .collect::<Vec<_>>()
                })
            })
            .collect();
        clients.into_iter().flat_map(|client| client.join().unwrap()).collect()
    });

    let count = |wanted| answers.iter().filter(|(_, status)| *status == wanted).count();
    assert_eq!((count(201), count(200)), (20, 180), "{}", host.log());
    assert_eq!(host.entries("keys").len(), 20);
    assert_eq!(host.entries("phrases"), host.entries("keys"));
    assert_eq!(host.entries("staging"), [""; 0]);

    let runs = fs::read_to_string(host.scratch().join("runs")).unwrap();
    // GnuPG 2.2 spoils one key in thousands. The service then makes another one.
    let spoiled = host.log().matches("another one is made").count();
    assert_eq!(runs.lines().filter(|line| *line == "start").count(), 20 + spoiled);
    let cores = thread::available_parallelism().unwrap().get();
    let most = most_at_once(&runs);
    assert!(most <= cores && most >= cores.min(2), "{most} at once on {cores} cores");
}

/// Returns the largest number of runs that overlapped, from a log of their starts and ends.
fn most_at_once(runs: &str) -> usize {
    let mut running = 0;
    let counts = runs.lines().map(|line| {
        running = if line == "start" { running + 1 } else { running - 1 };
        running
    });
    counts.max().unwrap_or_default()
}

#[test]
fn under_idle_and_dripping_connections_it_stays_quick_and_small() {
    allow_open_files(4096);
    let mut host = Host::new(Transport::PassedTcp, &[]);
    host.limit_files(1024); // the limit that a service of systemd has
    host.launch();
    // Nobody else connects to this one: it shows how long a request takes on a machine as busy as this is now.
    let undisturbed = Host::start(Transport::PassedTcp);
    let idle: Vec<_> = (0..2000).map(|_| host.connect().unwrap()).collect();
    let mut drippers: Vec<_> = (0..200).map(|number| Dripper::new(&host, number)).collect();

    let ping = |host: &Host| {
        let asked = Instant::now();
        assert_eq!(host.get("/ping").unwrap().status, 200);
        asked.elapsed()
    };
    // The first one waits until all connections before it are accepted. Waiting for a dripper would take five
    // seconds.
    let first = ping(&host);
    assert!(first < Duration::from_secs(5), "the first: {first:?}");
    let opened = Instant::now();
    let (mut times, mut undisturbed_worst) = (Vec::new(), Duration::ZERO);
    let mut threads = 0;
    while opened.elapsed() < Duration::from_secs(3) {
        times.push(ping(&host));
        undisturbed_worst = undisturbed_worst.max(ping(&undisturbed));
        threads = threads.max(process_status(&host, "Threads"));
        if times.len() % 10 == 0 {
            drippers.iter_mut().for_each(Dripper::drip);
        }
    }
    times.sort();
    let (median, worst) = (times[times.len() / 2], times[times.len() - 1]);
    assert!(median <= Duration::from_millis(100), "median of {}: {median:?}", times.len());
    let bound = Duration::from_secs(1) + 2 * undisturbed_worst;
    assert!(worst <= bound, "worst of {}: {worst:?}, at most {bound:?}", times.len());
    assert!(threads <= 300, "{threads} threads");

    while drippers.iter().any(|dripper| dripper.is_connected) {
        assert!(opened.elapsed() < Duration::from_secs(20), "drippers are still served");
        drippers.iter_mut().for_each(Dripper::drip);
        thread::sleep(Duration::from_millis(50));
    }
    let peak = process_status(&host, "VmHWM");
    assert!(peak < 64 * 1024, "{peak} kB");
    assert_eq!(host.gen_key("user#project@copr.example.org", json!({})).unwrap().status, 201);
    println!(
        "{} pings: median {median:?}, worst {worst:?}; {threads} threads, {peak} kB",
        times.len()
    );
    drop(idle);
}

/// A client that sends its request byte by byte and never finishes.
struct Dripper {
    connection: Connection,
    is_connected: bool,
}

impl Dripper {
    fn new(host: &Host, number: usize) -> Self {
        let mut connection = host.connect().unwrap();
        let begin: &[u8] = match number % 2 {
            0 => b"GET /ping HTTP/1.1\r\nX-Long: ",
            _ => b"POST /gen_key HTTP/1.1\r\nContent-Length: 60000\r\n\r\n",
        };
        connection.write_all(begin).unwrap();
        Self { connection, is_connected: true }
    }

    /// Sends one byte more, and sees whether the service has hung up.
    fn drip(&mut self) {
        if let (true, Connection::Tcp(stream)) = (self.is_connected, &mut self.connection) {
            stream.set_nonblocking(true).unwrap();
            let is_open = |result: std::io::Result<usize>| match result {
                Ok(count) => count > 0,
                Err(e) => e.kind() == ErrorKind::WouldBlock,
            };
            self.is_connected = is_open(stream.write(b"x")) && is_open(stream.read(&mut [0; 512]));
        }
    }
}

/// Returns a number from `/proc/PID/status` of the service.
fn process_status(host: &Host, field: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", host.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    line.and_then(|value| value.split_whitespace().next()?.parse().ok()).unwrap()
}

/// Raises RLIMIT_NOFILE of this process, which holds the client end of every connection.
fn allow_open_files(count: u64) {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    assert!(hard >= count, "the hard limit of open files is {hard}: raise it (ulimit -Hn {count})");
    setrlimit(Resource::RLIMIT_NOFILE, soft.max(count), hard).unwrap();
}
