//! Authentication and authorization: tokens in both HTTP schemes, their scopes and patterns, and the users of
//! a Unix socket.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use nix::unistd::{getegid, geteuid};
use serde_json::{Value, json};

use super::host::{Host, Reply, Transport};

pub const BOTH: &str = "both-0123456789abcdefghijklmnopqrstuvw";
pub const MAKER: &str = "maker-0123456789abcdefghijklmnopqrstuv";
const READER: &str = "reader-0123456789abcdefghijklmnopqrstu";
const STAGING: &str = "staging-0123456789abcdefghijklmnopqrst";
const WRONG: &str = "wrong-0123456789abcdefghijklmnopqrstuv";

/// Requests that need a token.
const PROTECTED: [&str; 5] =
    ["GET /keys", "GET /keys/a%23b@c", "GET /metrics", "POST /gen_key", "GET /x"];

pub fn file() -> String {
    format!(
        "# made for a test\nboth.1 {BOTH} generate,read\nmaker {MAKER} generate\n\
         reader {READER} read\nstaging {STAGING} generate,read *#*@dev.example.org\n"
    )
}

pub fn write_tokens(host: &Host, text: &str) -> PathBuf {
    let path = host.scratch().join("tokens");
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    path
}

/// Starts a service with a tokens file of this content.
pub fn host_with(transport: Transport, text: &str, environment: &[(&str, &str)]) -> Host {
    let mut host = Host::new(transport, environment);
    let path = write_tokens(&host, text);
    host.set("COPR_KEYGEN_TOKENS_FILE", path.display());
    host.launch();
    host
}

/// Sends a request with these header lines and returns the reply.
pub fn ask(host: &Host, line: &str, headers: &str, body: &str) -> Reply {
    let length =
        if body.is_empty() { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
    let request = format!("{line} HTTP/1.1\r\nHost: sign-host\r\n{headers}{length}\r\n{body}");
    host.send(request.as_bytes()).unwrap_or_else(|e| panic!("{line}: {e}: {}", host.log()))
}

pub fn bearer(token: &str) -> String {
    format!("Authorization: Bearer {token}\r\n")
}

fn basic(user: &str, password: &str) -> String {
    use base64ct::{Base64, Encoding};
    let mut buffer = [0; 1024];
    let pair = format!("{user}:{password}");
    let code = Base64::encode(pair.as_bytes(), &mut buffer).unwrap();
    format!("Authorization: Basic {code}\r\n")
}

pub fn body(name_email: &str) -> String {
    json!({"name_real": "a_b", "name_email": name_email}).to_string()
}

pub fn status(host: &Host, line: &str, headers: &str) -> u16 {
    ask(host, line, headers, "").status
}

/// Asserts that the text quotes no token, not even the first half of one.
pub fn assert_no_token(text: &str) {
    for token in [BOTH, MAKER, READER, STAGING, WRONG] {
        assert!(!text.contains(&token[..16]), "{text}");
    }
}

#[test]
fn a_right_token_lets_in_and_nothing_else_does() {
    for transport in [Transport::ListenTcp, Transport::PassedUnix] {
        // No client on the Unix socket may do without a token: uid 4000000000 runs no test.
        let host = host_with(transport, &file(), &[("COPR_KEYGEN_ALLOW_USERS", "4000000000")]);
        for headers in [
            bearer(BOTH),
            basic("copr", BOTH),
            basic("", BOTH),
            basic("jürgen", BOTH),
            format!("authorization:bearer   {BOTH}  \r\n"),
            format!("X-Other: y\r\n{}", bearer(READER)),
        ] {
            assert_eq!(status(&host, "GET /keys", &headers), 200, "{headers:?}");
        }
        let halves = format!("{}{}", &BOTH[..19], &MAKER[19..]);
        let wrong = [
            String::new(),
            bearer(WRONG),
            bearer(""),
            bearer(&BOTH[..BOTH.len() - 1]),
            bearer(&format!("{BOTH}x")),
            bearer(&BOTH.to_uppercase()),
            bearer(&format!("{BOTH} {BOTH}")),
            bearer(&format!("{BOTH},{MAKER}")),
            bearer(&halves),
            bearer("both.1"),
            bearer("*"),
            bearer(&"x".repeat(15_000)),
            basic(BOTH, ""),
            basic(BOTH, "x"),
            basic("copr", &format!(":{BOTH}")),
            basic("copr", WRONG),
            format!("Authorization: {BOTH}\r\n"),
            format!("Authorization: Token {BOTH}\r\n"),
            format!("Authorization: Basic {BOTH}\r\n"),
            format!("Authorization: Bearer\t{BOTH}\r\n"),
            format!("Authorization: \"Bearer\" {BOTH}\r\n"),
            format!("Proxy-Authorization: Bearer {BOTH}\r\n"),
            format!("Cookie: token={BOTH}\r\n"),
            "Authorization:\r\n".into(),
            "Authorization: Basic\r\n".into(),
            "Authorization: Basic ====\r\n".into(),
            "Authorization: Basic Og==\r\n".into(),
            "Authorization: Digest username=\"copr\", response=\"\"\r\n".into(),
        ];
        let refused = |headers: &str| {
            for line in PROTECTED {
                let reply = ask(&host, line, headers, "");
                assert_eq!(reply.status, 401, "{line} {headers:?}: {reply:?}");
                assert!(reply.head.contains("WWW-Authenticate: Basic realm=\"copr-keygen\""));
                assert!(reply.head.contains("WWW-Authenticate: Bearer realm=\"copr-keygen\""));
                assert!(reply.body.starts_with("this needs a token, as "), "{reply:?}");
            }
            assert_eq!(status(&host, "GET /ping", headers), 200, "{headers:?}");
        };
        // Every refusal is delayed, so send all of these requests at once.
        thread::scope(|scope| {
            for headers in &wrong {
                scope.spawn(|| refused(headers));
            }
        });
        for twice in [bearer(BOTH).repeat(2), bearer(BOTH) + &basic("copr", WRONG)] {
            assert_eq!(status(&host, "GET /keys", &twice), 400, "{twice:?}");
        }
        for bytes in [&b"Authorization: Bearer \x01\r\n"[..], b"Authorization: Bearer \0\r\n"] {
            let request = [b"GET /keys HTTP/1.1\r\n", bytes, b"\r\n"].concat();
            assert_eq!(host.send(&request).unwrap().status, 400);
        }
        let odd =
            [b"GET /keys HTTP/1.1\r\nAuthorization: Bearer \xff\xfe", BOTH.as_bytes()].concat();
        assert_eq!(host.send(&[&odd[..], b"\r\n\r\n"].concat()).unwrap().status, 401);
        let metrics = ask(&host, "GET /metrics", &bearer(READER), "").body;
        let count = wrong.len() * PROTECTED.len() + 1;
        let counted = format!("copr_keygen_http_requests_total{{status=\"401\"}} {count}\n");
        assert!(metrics.contains(&counted), "{metrics}");
        let log = host.log();
        assert!(log.contains(" GET /keys 200 ") && log.contains(" token=both.1\n"), "{log}");
        // The log is rate-limited: it has lines for ten of these refusals.
        assert_eq!(log.matches(" 401 ").count(), 10, "{log}");
        assert!(log.contains(" warn: "), "{log}");
        assert_no_token(&log);
    }
}

#[test]
fn scopes_and_patterns_bound_a_token_without_telling_what_there_is() {
    let host = host_with(Transport::ListenTcp, &file(), &[]);
    let made = |token: &str, name: &str| ask(&host, "POST /gen_key", &bearer(token), &body(name));
    assert_eq!(made(MAKER, "user#a@example.org").status, 201);
    assert_eq!(made(STAGING, "user#b@dev.example.org").status, 201);
    assert_eq!(made(BOTH, "user#b@dev.example.org").status, 200);

    // A token without the scope is refused with one sentence.
    let reply = made(READER, "user#c@example.org");
    assert_eq!(
        (reply.status, &*reply.body),
        (403, "this token does not have the scope generate\n")
    );
    for line in ["GET /keys", "GET /keys/user%23a@example.org", "GET /metrics", "DELETE /keys"] {
        let reply = ask(&host, line, &bearer(MAKER), "");
        assert_eq!(
            (reply.status, &*reply.body),
            (403, "this token does not have the scope read\n")
        );
    }
    assert_eq!(status(&host, "GET /gen_key", &bearer(MAKER)), 405);
    assert_eq!(status(&host, "GET /nothing", &bearer(MAKER)), 404);

    // An identity that the token's pattern does not match is refused, whether it has a key or not.
    let not_for = (403, "this token is not for this identity\n".to_owned());
    for name in ["user#a@example.org", "user#c@example.org", "user#x@dev.example.org.evil"] {
        let reply = made(STAGING, name);
        assert_eq!((reply.status, reply.body), not_for, "{name}");
        for part in ["", "/pubkey"] {
            let path = format!("GET /keys/{}{part}", name.replace('#', "%23"));
            let reply = ask(&host, &path, &bearer(STAGING), "");
            assert_eq!((reply.status, reply.body), not_for, "{path}");
        }
    }
    let names = |token: &str| -> Vec<String> {
        let list: Value =
            serde_json::from_str(&unchunked(&ask(&host, "GET /keys", &bearer(token), ""))).unwrap();
        let name = |key: &Value| key["name_email"].as_str().unwrap().to_owned();
        list.as_array().unwrap().iter().map(name).collect()
    };
    assert_eq!(names(STAGING), ["user#b@dev.example.org"]);
    assert_eq!(names(READER).len(), 2);
    let own = "GET /keys/user%23b@dev.example.org/pubkey";
    assert_eq!(status(&host, own, &bearer(STAGING)), 200);
    assert_eq!(host.entries("keys").len(), 2);

    let log = host.log();
    assert!(log.contains(" 403 ") && log.contains("user#c@example.org token=staging"), "{log}");
    assert_no_token(&log);
}

fn unchunked(reply: &Reply) -> String {
    let mut rest = reply.body.as_str();
    let mut text = String::new();
    while let Some((size, after)) = rest.split_once("\r\n") {
        let size = usize::from_str_radix(size, 16).unwrap();
        text.push_str(&after[..size]);
        rest = after[size..].trim_start_matches("\r\n");
    }
    text
}

#[test]
fn tokens_are_rotated_without_an_outage() {
    let line = |name: &str, token: &str| format!("{name} {token} generate,read\n");
    let mut host = host_with(Transport::PassedTcp, &line("spring", BOTH), &[]);
    let lets_in =
        |host: &Host| [BOTH, MAKER].map(|token| status(host, "GET /keys", &bearer(token)));
    assert_eq!(lets_in(&host), [200, 401]);
    for (text, expected) in [
        (line("spring", BOTH) + &line("autumn", MAKER), [200, 200]),
        (line("autumn", MAKER), [401, 200]),
    ] {
        write_tokens(&host, &text);
        assert_eq!(host.stop().code(), Some(0));
        host.launch();
        assert_eq!(lets_in(&host), expected);
    }
}

#[test]
fn what_token_prints_lets_in() {
    let host = Host::new(Transport::ListenTcp, &[]);
    let output = host.run(&["token", "backend.2026", "--pattern", "*#*@copr.example.org"]);
    let line = String::from_utf8(output.stdout).unwrap();
    let words: Vec<_> = line.split_whitespace().collect();
    assert_eq!(
        (words[0], words[2], words[3]),
        ("backend.2026", "generate,read", "*#*@copr.example.org")
    );
    assert!(!host.state().exists(), "it needs no state and makes none");
    let host = host_with(Transport::ListenTcp, &line, &[]);
    assert_eq!(status(&host, "GET /keys", &basic("copr", words[1])), 200);
    for bad in [
        &["token", "a b"][..],
        &["token", "a", "--scopes", "all"],
        &["token", "a", "--pattern", "["],
    ] {
        assert_eq!(host.run(bad).status.code(), Some(2), "{bad:?}");
    }
}

#[test]
fn who_is_not_let_in_is_told_before_the_body_is_read() {
    for transport in [Transport::ListenTcp, Transport::PassedUnix] {
        let host = host_with(transport, &file(), &[("COPR_KEYGEN_ALLOW_USERS", "4000000000")]);
        let head = |length: usize, more: &str| {
            format!("POST /gen_key HTTP/1.1\r\nContent-Length: {length}\r\n{more}\r\n")
        };
        let started = Instant::now();
        for (announced, sent) in
            [(60_000, 0), (60_000, 10), (2, 2), (60_000, 60_000), (1_000_000, 1_000_000)]
        {
            let mut connection = host.connect().unwrap();
            let bytes = [head(announced, &bearer(WRONG)).as_bytes(), &vec![b' '; sent]].concat();
            let _ = connection.write_all(&bytes);
            let mut status = [0; 12];
            connection.read_exact(&mut status).unwrap();
            assert_eq!(&status, b"HTTP/1.1 401", "{announced}, {sent}");
        }
        let mut answer = String::new();
        let mut waiting = host.connect().unwrap();
        waiting.write_all(head(9, "Expect: 100-continue\r\n").as_bytes()).unwrap();
        waiting.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 401"), "{answer}");
        assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
        // With a right token, a body that is too large is still refused.
        let mut large = host.connect().unwrap();
        large.write_all(head(70_000, &bearer(BOTH)).as_bytes()).unwrap();
        assert_eq!(large.reply().unwrap().status, 413);
    }
}

#[test]
fn users_of_a_unix_socket_are_known_to_the_kernel() {
    let (uid, gid) = (geteuid().to_string(), getegid().to_string());
    let (user, group) = ("COPR_KEYGEN_ALLOW_USERS", "COPR_KEYGEN_ALLOW_GROUPS");
    let other = "4000000000";
    // The allowed user or group, then the statuses for a client without a token, with a wrong one and with a
    // right one: first on a service without tokens, then on one with tokens.
    for (environment, without_tokens, with_tokens) in [
        (&[][..], [200, 200, 200], [200, 401, 200]),
        (&[(user, &*uid)], [200, 200, 200], [200, 401, 200]),
        (&[(group, &*gid)], [200, 200, 200], [200, 401, 200]),
        (&[(user, other), (group, &*gid)], [200, 200, 200], [200, 401, 200]),
        (&[(user, other)], [403, 403, 403], [401, 401, 200]),
        (&[(group, other)], [403, 403, 403], [401, 401, 200]),
    ] {
        let statuses = |host: &Host| {
            let headers = [String::new(), bearer(WRONG), bearer(READER)];
            headers.map(|headers| status(host, "GET /keys", &headers))
        };
        let host = Host::start_with(Transport::PassedUnix, environment);
        assert_eq!(statuses(&host), without_tokens, "{environment:?}");
        let host = host_with(Transport::ListenUnix, &file(), environment);
        assert_eq!(statuses(&host), with_tokens, "{environment:?}");
    }
    // `allow_users` allows nobody over TCP.
    let host = host_with(Transport::ListenTcp, &file(), &[(user, &uid)]);
    assert_eq!(status(&host, "GET /keys", ""), 401);
}

#[test]
fn another_user_is_told_from_the_one_that_is_allowed() {
    if !geteuid().is_root() {
        return; // becoming somebody else needs root; the system test does that as well
    }
    let as_user = |host: &Host, uid: &str, gid: &str| {
        for (path, mode) in
            [(host.scratch().to_owned(), 0o711), (host.scratch().join("socket"), 0o666)]
        {
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        }
        let mut curl = Command::new("setpriv");
        curl.args([
            "--reuid",
            uid,
            "--regid",
            gid,
            "--clear-groups",
            "curl",
            "--disable",
            "--silent",
        ]);
        curl.args(["--output", "/dev/null", "--write-out", "%{http_code}", "--unix-socket"]);
        curl.arg(host.scratch().join("socket")).arg("http://localhost/keys");
        String::from_utf8(curl.output().unwrap().stdout).unwrap()
    };
    let allow = [("COPR_KEYGEN_ALLOW_USERS", "daemon 0"), ("COPR_KEYGEN_ALLOW_GROUPS", "games")];
    let host = Host::start_with(Transport::PassedUnix, &allow);
    // In the user database, games has uid 5 and group 60. It is let in even if its process runs with another
    // group.
    for (uid, gid, expected) in [
        ("1", "1", "200"),
        ("2", "2", "403"),
        ("2", "60", "200"),
        ("5", "2", "200"),
        ("0", "0", "200"),
    ] {
        assert_eq!(as_user(&host, uid, gid), expected, "{uid}:{gid}: {}", host.log());
    }
    assert!(host.log().contains(" unix:uid=2,pid="), "{}", host.log());
}
