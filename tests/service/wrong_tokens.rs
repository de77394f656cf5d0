//! A flood of wrong tokens: clients with a right one do not notice it, and memory does not grow.

use std::fs;
use std::io::{Read, Write};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::auth::{BOTH, ask, bearer, body, host_with};
use super::host::{DoneWhenDropped, Host, Transport};

/// The number of clients that send wrong tokens at once.
const CLIENTS: usize = 128;

/// The number of wrong tokens: `KEYGEN_TEST_WRONG_TOKENS`, or 3,000. By hand, the test is run with 100,000.
fn count() -> usize {
    let text = std::env::var("KEYGEN_TEST_WRONG_TOKENS").unwrap_or_else(|_| "3000".into());
    text.parse().unwrap()
}

/// Returns the resident memory of the service, in KiB.
fn resident(host: &Host) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", host.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").trim().parse().unwrap()
}

/// Sends a request with a right token for a key that exists. Returns how long that takes.
fn right(host: &Host) -> Duration {
    let began = Instant::now();
    let reply = ask(host, "POST /gen_key", &bearer(BOTH), &body("user#right@copr.example.org"));
    assert_eq!(reply.status, 200, "{reply:?}");
    began.elapsed()
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}

#[test]
fn a_flood_of_wrong_tokens_is_not_felt() {
    let host = host_with(Transport::PassedTcp, &format!("both {BOTH} generate,read"), &[]);
    let made = ask(&host, "POST /gen_key", &bearer(BOTH), &body("user#right@copr.example.org"));
    assert_eq!(made.status, 201);
    let alone = median((0..300).map(|_| right(&host)).collect());
    // A first flood of a tenth makes the service allocate the threads and buffers that it needs.
    flood(&host, count() / 10);
    let before = resident(&host);
    let (during, took) = flood(&host, count());
    let after = resident(&host);
    let during_median = median(during.clone());
    println!(
        "{} wrong tokens in {took:.1?} ({:.0}/s); right requests: median {alone:.2?} alone, \
         {during_median:.2?} during ({} of them); resident {before} KiB before, {after} KiB after",
        count(),
        count() as f64 / took.as_secs_f64(),
        during.len(),
    );
    let log = host.log();
    assert!(log.lines().filter(|line| line.contains(" 401 ")).count() <= 100, "{log}");
    assert!(after < before + 4096, "{before} KiB grew to {after} KiB");
    let metrics = ask(&host, "GET /metrics", &bearer(BOTH), "").body;
    let total = count() + count() / 10;
    assert!(metrics.contains(&format!("total{{status=\"401\"}} {total}\n")), "{metrics}");
}

/// Sends wrong tokens from many clients, and right requests beside them. Returns the time of each right
/// request, and of all together.
fn flood(host: &Host, count: usize) -> (Vec<Duration>, Duration) {
    let (next, done) = (AtomicUsize::new(0), AtomicBool::new(false));
    let began = Instant::now();
    let times = thread::scope(|scope| {
        let guard = DoneWhenDropped(&done);
        let clients: Vec<_> = (0..CLIENTS)
            .map(|_| {
                scope.spawn(|| {
                    loop {
                        let number = next.fetch_add(1, Ordering::SeqCst);
                        if number >= count {
                            return;
                        }
                        wrong(host, number);
                    }
                })
            })
            .collect();
        let right = scope.spawn(|| {
            let mut times = Vec::new();
            while !done.load(Ordering::SeqCst) || times.is_empty() {
                times.push(right(host));
                thread::sleep(Duration::from_millis(5));
            }
            times
        });
        for client in clients {
            client.join().unwrap();
        }
        drop(guard);
        right.join().unwrap()
    });
    (times, began.elapsed())
}

fn wrong(host: &Host, number: usize) {
    let mut connection = host.connect().unwrap();
    let headers = format!("{}{}", bearer(&format!("wrong-{number:032}")), "Host: sign-host\r\n");
    let request = format!("GET /keys HTTP/1.1\r\n{headers}\r\n");
    connection.write_all(request.as_bytes()).unwrap();
    let mut status = [0; 12];
    connection.read_exact(&mut status).unwrap();
    assert_eq!(&status, b"HTTP/1.1 401");
}
