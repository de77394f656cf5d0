//! Malformed requests: each is answered with a sentence or hung up on, and the next client gets its
//! signature.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::time::{Duration, Instant};

use super::host::{Transport, eventually};
use super::signer_client::{argument, new, old};
use super::signer_host::{ID, SignerHost, answer, ask_new, send, time};

/// Sends `request`, ends writing, and returns what comes back: nothing if the service just closes the
/// connection.
fn cut(host: &SignerHost, request: &[u8]) -> Vec<u8> {
    let mut connection = send(host, request);
    connection.shut_down(Shutdown::Write);
    let mut bytes = Vec::new();
    let _ = connection.read_to_end(&mut bytes); // a reset ends the connection, too
    bytes
}

/// Returns a request of two lengths and of what follows them.
fn framed(a: u16, b: u16, rest: &[u8]) -> Vec<u8> {
    [&a.to_be_bytes()[..], &b.to_be_bytes(), rest].concat()
}

/// Returns a request in the new form with a count and lengths that may be wrong.
fn counted(count: u16, lengths: &[u16], rest: &[u8]) -> Vec<u8> {
    let lengths = lengths.iter().flat_map(|length| length.to_be_bytes());
    let body = [&count.to_be_bytes()[..], &lengths.collect::<Vec<_>>(), rest].concat();
    framed(u16::try_from(body.len()).unwrap(), 0, &body)
}

#[test]
fn lengths_that_contradict_what_comes_are_named() {
    let host = SignerHost::with_key();
    for (request, expected) in [
        (framed(5, 0, b""), "packet size mismatch"),
        (framed(5, 5, b"user"), "packet size mismatch"),
        (framed(0xffff, 0xffff, &[b'x'; 1000]), "packet size mismatch"),
        (framed(1, 0, b"\0"), "packet too small"),
        (counted(0, &[], b""), "the request names no command"),
        (counted(0, &[], b"ping"), "packet size mismatch"),
        (counted(1, &[3], b"ping"), "packet size mismatch"),
        (counted(1, &[5], b"ping"), "packet too small"),
        (counted(2, &[4], b"ping"), "packet too small"),
        (counted(0xffff, &[], b""), "packet too small"),
        (counted(1, &[0], b""), "unknown command: "),
        (counted(2, &[4, 0], b"sign"), "sign: at least one argument required"),
        (counted(3, &[4, 0, 0], b"sign"), "the request names no user"),
        (counted(1, &[6], b"pubkey"), "the request names no user"),
    ] {
        let bytes = cut(&host, &request);
        let refused = super::signer_client::parse(&bytes).unwrap_err();
        assert_eq!(refused, expected, "{request:?}");
    }
    // The largest number of strings, and then strings of the largest length.
    let empty = counted(32_766, &[0; 32_766], b"");
    assert_eq!(host.ask(&empty).unwrap_err(), "unknown command: ");
    let long = vec![b'4'; 0xffff];
    let refused = host.ask(&old(ID, &long)).unwrap_err();
    assert!(refused.starts_with("bad hash 444") && refused.len() < 1000, "{}", refused.len());
    let refused = host.ask(&old(&long, "PUBKEY")).unwrap_err();
    assert!(refused.starts_with("unknown key: 444") && refused.len() < 1000, "{}", refused.len());
    let log = host.signd.log();
    let longest = log.lines().map(str::len).max().unwrap_or_default();
    assert!(longest < 2000, "{longest}");
    host.assert_signs(ID);
}

#[test]
fn every_beginning_of_a_request_ends_without_a_signature() {
    let host = SignerHost::with_key();
    let digest = argument(8, b"data", 0, time());
    for request in [old(ID, format!("SHA256:{digest}")), new(&["sign", ID, &digest])] {
        for length in (0..request.len()).step_by(3) {
            let bytes = cut(&host, &request[..length]);
            if !bytes.is_empty() {
                super::signer_client::parse(&bytes).unwrap_err();
            }
        }
    }
    assert_eq!(host.log_of(" sign ok "), [""; 0]);
    host.assert_signs(ID);
}

#[test]
fn users_that_are_no_file_names_are_refused() {
    let host = SignerHost::with_key();
    let digest = format!("SHA256:{}", argument(8, b"data", 0, time()));
    let illegal = [
        "../keys/user#project@copr.example.org",
        "..",
        ".",
        ".user#project@copr.example.org",
        "/etc/passwd",
        "user#project@copr.example.org/",
        "user#project@copr.example.org/../other",
    ];
    for user in illegal {
        for argument in ["PUBKEY", &digest] {
            let refused = host.ask(&old(user, argument)).unwrap_err();
            assert_eq!(refused, format!("illegal user {user}"));
        }
        let refused = ask_new(&host, &["pubkey", &format!("SHA256:{user}")]).unwrap_err();
        assert_eq!(refused, format!("illegal user {user}"));
    }
    for user in ["user", "-u", "--help", "*", "user#*@copr.example.org", "ü#ä@ö", "<user>", "a b"]
    {
        let refused = host.ask(&old(user, &digest)).unwrap_err();
        assert_eq!(refused, format!("unknown key: {user}"));
    }
    for user in [
        "user\n#project@copr.example.org",
        "user\0",
        "\x1b[2Juser#project@copr.example.org",
        "user\x7f#project@copr.example.org",
        "user\r",
    ] {
        assert_eq!(host.ask(&old(user, &digest)).unwrap_err(), "malformed argument");
    }
    for user in [&b"\xff\xfe"[..], b"user\xc3", b"\xc0\xaf", b"\xed\xa0\x80"] {
        assert_eq!(host.ask(&old(user, &digest)).unwrap_err(), "malformed argument");
        assert_eq!(host.ask(&old(ID, user)).unwrap_err(), "malformed argument");
        assert_eq!(host.ask(&new(&[&b"pubkey"[..], user])).unwrap_err(), "malformed argument");
    }
    // Characters that control a terminal are shown escaped.
    for user in ["user\u{202e}", "user\u{85}", "user\u{9b}2J"] {
        let refused = host.ask(&old(user, &digest)).unwrap_err();
        let expected: String = user.chars().flat_map(char::escape_unicode).take(24).collect();
        assert!(refused.starts_with("unknown key: user\\u{"), "{refused:?} {expected}");
    }
    // In the old form, an empty user is refused as such.
    let refused = host.ask(&old("", &digest)).unwrap_err();
    assert_eq!(refused, "the request names no user");
    assert_eq!(host.log_of(" sign ok "), [""; 0]);
    host.assert_signs(ID);
}

#[test]
fn digests_that_are_none_are_named_and_not_signed() {
    let host = SignerHost::with_key();
    let good = argument(8, b"data", 0, time());
    let (digest, end) = good.split_once('@').unwrap();
    for (hash, argument, expected) in [
        ("SHA256", format!("{}@{end}", &digest[2..]), "a SHA256 digest has 32 bytes, not 31"),
        ("SHA256", format!("{digest}00@{end}"), "a SHA256 digest has 32 bytes, not 33"),
        ("SHA256", format!("@{end}"), "a SHA256 digest has 32 bytes, not 0"),
        ("SHA512", good.clone(), "a SHA512 digest has 64 bytes, not 32"),
        ("SHA256", format!("{}@{end}", &digest[1..]), "the digest is not hexadecimal"),
        ("SHA256", format!("{}g@{end}", &digest[1..]), "the digest is not hexadecimal"),
        ("SHA256", format!("0x{}@{end}", &digest[2..]), "the digest is not hexadecimal"),
        ("SHA256", format!("{} @{end}", &digest[1..]), "the digest is not hexadecimal"),
        ("SHA256", digest.to_owned(), "there is no @"),
        ("SHA256", format!("{digest}@02{}", &end[2..]), "begin with 00 or 01"),
        ("SHA256", format!("{digest}@13{}", &end[2..]), "begin with 00 or 01"),
        ("SHA256", format!("{digest}@{end}00"), "begin with 00 or 01"),
        ("SHA256", format!("{digest}@{}", &end[2..]), "begin with 00 or 01"),
        ("SHA256", format!("{digest}@"), "begin with 00 or 01"),
        ("SHA256", format!("{digest}@{end}@{end}"), "begin with 00 or 01"),
        ("SHA256", format!("{digest}@00 1234567"), "begin with 00 or 01"),
        ("SHA256", "0404@0000000000".into(), "a SHA256 digest has 32 bytes, not 2"),
        ("SHA224", good.clone(), "hash algorithm SHA224 is not one of SHA256, SHA384 and SHA512"),
        ("MD5", good.clone(), "hash algorithm MD5 is not one of"),
        ("", good.clone(), "hash algorithm  is not one of"),
        ("SHA256 ", good.clone(), "is not one of"),
    ] {
        let by_old = host.ask(&old(ID, format!("{hash}:{argument}"))).unwrap_err();
        assert!(by_old.contains(expected), "{hash}:{argument}: {by_old}");
        let user = format!("{hash}:{ID}");
        assert_eq!(ask_new(&host, &["sign", &user, &argument]).unwrap_err(), by_old);
        // A good digest beside the bad one is not signed either.
        assert!(ask_new(&host, &["sign", &user, &good, &argument]).is_err());
    }
    assert_eq!(host.log_of(" sign ok "), [""; 0]);
    host.assert_signs(ID);
}

#[test]
fn what_follows_a_request_is_not_answered_and_does_not_hide_the_answer() {
    for transport in [Transport::ListenTcp, Transport::ListenUnix] {
        let host = SignerHost::with_keys(&[ID], transport, &[]);
        let request = old(ID, format!("SHA256:{}", argument(8, b"data", 0, time())));
        for extra in [1, 4, 1000, 300_000] {
            let answered = host.ask(&[&request[..], &vec![0; extra]].concat());
            assert!(answered.is_ok(), "{extra}: {answered:?}");
            let refused = host.ask(&[&old(".", "PUBKEY")[..], &vec![0; extra]].concat());
            assert_eq!(refused.unwrap_err(), "illegal user .", "{extra}");
        }
        // Of two requests in one connection, the first one is answered.
        assert!(host.ask(&[&request[..], &request].concat()).is_ok());
    }
}

#[test]
fn who_is_silent_drips_or_leaves_costs_nobody_anything() {
    let host = SignerHost::with_keys(&[ID], Transport::ListenTcp, &[]);
    let request = old(ID, format!("SHA256:{}", argument(8, b"data", 0, time())));
    let begun = Instant::now();
    let mut silent = host.signd.connect().unwrap();
    let mut dripping = send(&host, &request[..1]);
    let mut slow = send(&host, &request[..1]);
    for (number, byte) in request[1..].iter().enumerate() {
        // This client is slow, but done in time.
        if number % 8 == 0 {
            std::thread::sleep(Duration::from_millis(20));
        }
        slow.write_all(&[*byte]).unwrap();
    }
    answer(&mut slow).unwrap();
    // These clients leave before the answer. Their signatures are made, and nobody keeps them.
    for _ in 0..20 {
        drop(send(&host, &request));
    }
    host.assert_signs(ID);
    // The silent client and the dripping one are hung up on, without an answer.
    let mut rest = request[1..].iter().cycle();
    eventually("the dripping one to be cut off", || {
        dripping.limit_reads(Duration::from_millis(100));
        let written = begun.elapsed() > Duration::from_secs(25)
            || dripping.write_all(&[*rest.next().unwrap()]).is_err();
        let mut byte = [0];
        match dripping.read(&mut byte) {
            Ok(0) => Some(()),
            Ok(_) => panic!("it is answered"),
            Err(e) if e.kind() == std::io::ErrorKind::WouldBlock && !written => None,
            Err(_) => Some(()),
        }
    });
    let mut bytes = Vec::new();
    let _ = silent.read_to_end(&mut bytes);
    assert!(bytes.is_empty());
    assert!(begun.elapsed() > Duration::from_secs(9), "{:?}", begun.elapsed());
    host.assert_signs(ID);
    // The log has one line for each client that asked, and none for the two that did not.
    eventually("the lines", || (host.log_of(" sign ok ").len() == 23).then_some(()));
    assert_eq!(host.log_of(" malformed "), [""; 0]);
}
