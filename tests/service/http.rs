//! Hostile and odd bytes on the socket. Whatever arrives, its sender is answered or disconnected after a
//! bounded time, and everybody else is served.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;

use super::host::{Connection, Host, Reply, Transport, gen_key_request};

const KIB: usize = 1024;
const INTERIM: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// Runs `test` over TCP and over a Unix socket at the same time. Afterwards, both must still serve.
fn over_tcp_and_unix(test: impl Fn(&Host) + Sync) {
    thread::scope(|scope| {
        for transport in [Transport::ListenTcp, Transport::PassedUnix] {
            let test = &test;
            scope.spawn(move || {
                let host = Host::start(transport);
                test(&host);
                assert_eq!(host.get("/ping").unwrap().body, "pong\n", "{}", host.log());
            });
        }
    });
}

/// Returns a request to `/gen_key` with these header lines and this body.
fn post(headers: &str, body: &[u8]) -> Vec<u8> {
    [format!("POST /gen_key HTTP/1.1\r\n{headers}\r\n").as_bytes(), body].concat()
}

/// Returns `GET /ping` with these header lines.
fn ping(headers: &str) -> Vec<u8> {
    format!("GET /ping HTTP/1.1\r\n{headers}\r\n").into_bytes()
}

fn open(host: &Host, bytes: &[u8]) -> Connection {
    let mut connection = host.connect().unwrap();
    connection.write_all(bytes).unwrap();
    connection
}

/// Sends every request of a table and checks the status, and that an error is one line of text.
fn assert_answers(host: &Host, table: Vec<(&str, Vec<u8>, u16)>) {
    for (case, bytes, status) in table {
        let reply = host.send(&bytes).unwrap_or_else(|e| panic!("{case}: {e}"));
        assert_eq!(reply.status, status, "{case}: {reply:?}");
        assert_eq!(reply.header("Connection"), Some("close"), "{case}");
        assert_eq!(reply.header("Content-Type"), Some("text/plain;charset=UTF-8"), "{case}");
        assert_eq!(reply.header("Content-Length"), Some(&*reply.body.len().to_string()), "{case}");
        if status >= 400 {
            assert!(reply.body.len() > 10 && reply.body.lines().count() == 1, "{case}: {reply:?}");
        }
    }
}

#[test]
fn ambiguous_lengths_are_refused() {
    over_tcp_and_unix(|host| {
        let length = |value: &str| post(&format!("Content-Length:{value}\r\n"), b"{}");
        let coded = |value: &str| post(&format!("Transfer-Encoding: {value}\r\n"), b"2\r\n{}\r\n0");
        let both = "Content-Length: 2\r\nTransfer-Encoding: chunked\r\n";
        let table = vec![
            ("no body by its length", length(" 0"), 400),
            ("a quarter of all addresses", length(" 4611686018427387904"), 413),
            ("more than 64 bits", length(" 99999999999999999999999"), 413),
            ("a sign", length(" +1"), 400),
            ("negative", length(" -1"), 400),
            ("hexadecimal", length(" 0x10"), 400),
            ("a fraction", length(" 2.0"), 400),
            ("a list", length(" 1, 1"), 400),
            ("words", length(" two"), 400),
            ("digits of another script", length(" ٢"), 400),
            ("empty", length(""), 400),
            ("the same twice", post("Content-Length: 2\r\nContent-Length: 2\r\n", b"{}"), 400),
            ("two lengths", post("Content-Length: 2\r\ncontent-length: 3\r\n", b"{} "), 400),
            ("space before the colon", post("Content-Length : 2\r\n", b"{}"), 400),
            ("folded", post("Content-Length:\r\n 2\r\n", b"{}"), 400),
            ("chunked", coded("chunked"), 400),
            ("identity", coded("identity"), 400),
            ("garbage coding", coded("\x7e~;=,"), 400),
            ("length and coding", post(both, b"{}"), 400),
            ("coding on a GET", ping("Transfer-Encoding: chunked\r\n"), 400),
        ];
        assert_answers(host, table);
    });
}

#[test]
fn what_is_not_http_is_refused() {
    let client_hello = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03garbage".to_vec();
    let table: [(&str, &[u8]); 16] = [
        ("TLS", &client_hello),
        ("HTTP/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
        ("HTTP/0.9", b"GET /ping\r\n"),
        ("a version to come", b"GET /ping HTTP/3.0\r\n\r\n"),
        ("a lower-case version", b"GET /ping http/1.1\r\n\r\n"),
        ("garbage", b"\0\x01\xfe\xff\0\0garbage"),
        ("another protocol", b"SSH-2.0-OpenSSH_9.2\r\n"),
        ("NUL in the method", b"G\0T /ping HTTP/1.1\r\n\r\n"),
        ("NUL in the path", b"GET /pi\0ng HTTP/1.1\r\n\r\n"),
        ("an escape sequence in the path", b"GET /\x1b[31m HTTP/1.1\r\n\r\n"),
        ("a space in the path", b"GET /pi ng HTTP/1.1\r\n\r\n"),
        ("NUL in a name", b"GET /ping HTTP/1.1\r\nA\0: b\r\n\r\n"),
        ("NUL in a value", b"GET /ping HTTP/1.1\r\nA: b\0\r\n\r\n"),
        ("a control byte in a value", b"GET /ping HTTP/1.1\r\nA: b\x08\r\n\r\n"),
        ("a bare CR in a value", b"GET /ping HTTP/1.1\r\nA: b\rc: d\r\n\r\n"),
        ("a header without a colon", b"GET /ping HTTP/1.1\r\nAccept\r\n\r\n"),
    ];
    over_tcp_and_unix(|host| {
        assert_answers(host, table.iter().map(|(case, b)| (*case, b.to_vec(), 400)).collect());
    });
}

#[test]
fn sizes_are_bounded_and_the_refusal_can_be_read() {
    let padded = |size: usize| vec![b' '; size];
    over_tcp_and_unix(|host| {
        let long_path = format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(17 * KIB));
        let long_method = format!("{} /ping HTTP/1.1\r\n\r\n", "A".repeat(17 * KIB));
        // Builds a head of exactly `size` bytes.
        let filling = |size: usize| {
            let rest = ping("A: \r\n").len();
            ping(&format!("A: {}\r\n", "b".repeat(size - rest)))
        };
        let table = vec![
            ("64 headers", ping(&"A: b\r\n".repeat(64)), 200),
            ("65 headers", ping(&"A: b\r\n".repeat(65)), 431),
            ("the longest head", filling(16 * KIB), 200),
            ("a head too long", filling(16 * KIB + 1), 431),
            ("a path too long", long_path.into_bytes(), 431),
            ("a method too long", long_method.into_bytes(), 431),
            ("a head that has no end", [&b"GET /"[..], &[b'a'; 100_000]].concat(), 431),
            // 400, because the body is not JSON: so the service has read it.
            ("the longest body", gen_key_request(&padded(64 * KIB)), 400),
            ("a body too long", gen_key_request(&padded(64 * KIB + 1)), 413),
            ("a body of a megabyte", gen_key_request(&padded(1024 * KIB)), 413),
        ];
        assert_answers(host, table);
    });
}

#[test]
fn methods_and_paths_are_answered_as_http_asks() {
    let line = |line: &str| format!("{line} HTTP/1.1\r\nHost: sign-host\r\n\r\n").into_bytes();
    over_tcp_and_unix(|host| {
        let table = vec![
            ("a query", line("GET /ping?x=1&y=/gen_key"), 200),
            ("an old client", b"GET /ping HTTP/1.0\r\n\r\n".to_vec(), 200),
            ("line feeds alone", b"GET /ping HTTP/1.1\nHost: sign-host\n\n".to_vec(), 200),
            ("empty lines ahead", [b"\r\n\r\n", &ping("")[..]].concat(), 200),
            ("a body that nobody needs", [&ping("Content-Length: 2\r\n")[..], b"{}"].concat(), 200),
            ("no such path", line("GET /"), 404),
            ("a path below", line("GET /ping/"), 404),
            ("up and down", line("GET /../ping"), 404),
            ("encoded", line("GET /%70ing"), 404),
            ("another letter case", line("GET /PING"), 404),
            ("a proxy's method", line("CONNECT sign-host:443"), 404),
        ];
        assert_answers(host, table);
        for (request, allow) in [
            ("POST /ping", "GET, HEAD"),
            ("BREW /ping", "GET, HEAD"),
            ("GET /gen_key", "POST"),
            ("PUT /gen_key", "POST"),
            ("post /gen_key", "POST"),
        ] {
            let reply = host.send(&line(request)).unwrap();
            assert_eq!((reply.status, reply.header("Allow")), (405, Some(allow)), "{request}");
        }
        let head = host.send(&line("HEAD /ping")).unwrap();
        assert_eq!((head.status, &*head.body), (200, ""));
        assert_eq!(head.header("Content-Length"), Some("5"));
    });
}

#[test]
fn a_connection_carries_one_request() {
    over_tcp_and_unix(|host| {
        let both = [ping(""), post("Content-Length: 2\r\n", b"{}")].concat();
        let mut answers = String::new();
        // The second request is never read, which may reset the connection after the answer.
        let _ = open(host, &both).read_to_string(&mut answers);
        assert!(answers.starts_with("HTTP/1.1 200 OK\r\n"), "{answers}");
        assert_eq!(answers.matches("HTTP/1.1").count(), 1, "{answers}");
        assert!(answers.ends_with("\r\n\r\npong\n"), "{answers}");
        assert!(!host.log().contains("POST /gen_key"), "{}", host.log());
    });
}

#[test]
fn who_stops_sending_still_gets_the_answer_and_who_leaves_is_let_go() {
    over_tcp_and_unix(|host| {
        let mut half_closed = open(host, &gen_key_request(b"{}"));
        half_closed.shut_down(Shutdown::Write);
        assert_eq!(half_closed.reply().unwrap().status, 400);
        // Without the rest of the request there is nothing to answer.
        for bytes in [&b""[..], b"GET /pi", &post("Content-Length: 9\r\n", b"{}")] {
            let mut incomplete = open(host, bytes);
            incomplete.shut_down(Shutdown::Write);
            assert_eq!(incomplete.read(&mut [0]).unwrap(), 0, "{bytes:?}");
        }
        for bytes in [&b""[..], b"GET /pi", &ping(""), &post("Content-Length: 9\r\n", b"{}")] {
            drop(open(host, bytes));
        }
    });
}

#[test]
fn a_client_that_asks_first_is_told_to_continue() {
    over_tcp_and_unix(|host| {
        let expect = |length: usize| {
            post(&format!("Expect: 100-continue\r\nContent-Length: {length}\r\n"), b"")
        };
        let mut waiting = open(host, &expect(2));
        let mut interim = [0; INTERIM.len()];
        waiting.read_exact(&mut interim).unwrap();
        assert_eq!(interim, INTERIM);
        waiting.write_all(b"{}").unwrap();
        assert_eq!(waiting.reply().unwrap().status, 400);
        // A client is not told to continue with a body that will be refused.
        let mut answer = String::new();
        open(host, &expect(64 * KIB + 1)).read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
    });
}

#[test]
fn slow_senders_are_told_the_time_and_cut_off() {
    let stalled_body = post("Content-Length: 60000\r\n", b"{");
    let cases: [(&[u8], bool, u64); 6] = [
        (b"", false, 5),
        (b"GET /ping HTTP/1.1\r\nHost:", false, 5),
        (b"GET /ping HTTP/1.1\r\nHost:", true, 5),
        (b"\r\n", false, 5),
        (&stalled_body, false, 10),
        (&stalled_body, true, 10),
    ];
    over_tcp_and_unix(|host| {
        thread::scope(|scope| {
            for (bytes, drips, seconds) in cases {
                scope.spawn(move || {
                    let started = Instant::now();
                    let mut connection = open(host, bytes);
                    let reply = if drips { drip(&mut connection) } else { connection.reply() };
                    let took = started.elapsed();
                    let case = format!("{:?}, {drips}: {took:?}", String::from_utf8_lossy(bytes));
                    assert_eq!(reply.unwrap().status, 408, "{case}");
                    assert!(took > Duration::from_secs(seconds - 1), "{case}");
                    assert!(took < Duration::from_secs(20), "{case}");
                });
            }
            // Meanwhile other clients are served, however many wait.
            let _stalled: Vec<_> = (0..4).map(|_| open(host, cases[4].0)).collect();
            let made = host.gen_key("user#while-others-stall@copr.example.org", json!({})).unwrap();
            assert_eq!(made.status, 201, "{}", host.log());
        });
    });
}

/// Sends a byte every second until an answer comes.
fn drip(connection: &mut Connection) -> std::io::Result<Reply> {
    connection.limit_reads(Duration::from_secs(1));
    loop {
        match connection.reply() {
            Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => {
                // The answer may be on its way already.
                let _ = connection.write_all(b"x");
            }
            answered => return answered,
        }
    }
}

#[test]
fn every_answer_has_an_id_of_its_own() {
    over_tcp_and_unix(|host| {
        let nowhere = b"GET / HTTP/1.1\r\n\r\n".to_vec();
        let requests = [ping(""), b"garbage\r\n\r\n".to_vec(), gen_key_request(b"{}"), nowhere];
        let mut ids: Vec<_> = requests
            .iter()
            .map(|bytes| host.send(bytes).unwrap().header("X-Request-Id").unwrap().to_owned())
            .collect();
        assert!(ids.iter().all(|id| id.len() == 16), "{ids:?}");
        let log = host.log();
        assert!(ids.iter().all(|id| log.contains(id.as_str())), "{ids:?} in {log}");
        ids.sort();
        ids.dedup();
        assert_eq!(ids.len(), requests.len(), "{ids:?}");
    });
}

#[test]
fn nothing_that_a_terminal_obeys_gets_into_the_log() {
    over_tcp_and_unix(|host| {
        let paths: [&[u8]; 7] = [
            b"/\x1b]0;owned\x07",
            b"/%1b%5d0;owned%07%0a",
            "/\u{9b}31m\u{202e}\u{2028}\u{85}\u{feff}".as_bytes(),
            b"/\xff\xfe\x9b",
            b"/\\x1b[31m\\n",
            b"/\"quoted\"'",
            &[b'a'; 5000],
        ];
        for path in paths {
            let request = [b"GET /", path, b" HTTP/1.1\r\n\r\n"].concat();
            let reply = host.send(&request).unwrap();
            assert!(matches!(reply.status, 400 | 404), "{reply:?}");
            assert!(!reply.body.contains("owned"), "{reply:?}");
        }
        let log = host.log();
        let obeyed =
            |c: char| (c.is_control() && c != '\n') || ('\u{2028}'..='\u{202e}').contains(&c);
        assert!(!log.contains(obeyed), "{log:?}");
        assert!(log.lines().all(|line| line.len() < 500), "{log}");
    });
}

#[test]
fn an_answer_is_not_lost_to_what_was_sent_behind_its_request() {
    let host = Host::start(Transport::PassedTcp);
    for _ in 0..20 {
        let mut connection = host.connect().unwrap();
        let request = b"GET /ping HTTP/1.1\r\nHost: sign-host\r\n\r\n";
        connection.write_all(&[&request[..], &[b'x'; 60_000]].concat()).unwrap();
        let mut answer = String::new();
        // If the connection were reset, this would fail.
        connection.read_to_string(&mut answer).unwrap();
        assert!(answer.ends_with("\r\n\r\npong\n"), "{answer}");
    }
}
