//! Which clients may have `signd` sign with which keys.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsRawFd;
use std::time::Instant;

use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrIn, bind, connect, socket};
use nix::unistd::geteuid;

use super::certificate::{as_stranger, succeed};
use super::host::{Connection, Host, Transport};
use super::signer_client::{Answer, argument, new, old, parse, probe};
use super::signer_host::{ABSENT, ID, OTHER, SignerHost, host_with, time};

const STRANGER: &str = "this client may not have anything signed; the setting signd.allow of the sign host names \
                        those that may";

fn allow(rules: &str) -> Vec<(&str, &str)> {
    vec![("COPR_KEYGEN_SIGND_ALLOW", rules)]
}

fn own_user() -> String {
    format!("unix:{}", geteuid())
}

/// Returns one request of each kind that is about a key.
fn requests(id: &str) -> Vec<Vec<u8>> {
    let digest = argument(8, b"data", 0, time());
    vec![
        old(id, "PUBKEY"),
        old(id, format!("SHA256:{digest}")),
        old(id, format!("SHA256:{}", probe(8))),
        old(id, argument(2, b"data", 0, time())),
        new(&["pubkey", id]),
        new(&["sign", &format!("SHA256:{id}"), &digest]),
    ]
}

#[test]
fn a_stranger_hears_the_same_whatever_he_asks() {
    let keys = host_with(&[ID]);
    for (transport, rules) in [
        (Transport::ListenTcp, "192.0.2.0/24 *, ::1 *, unix:root *"),
        (Transport::ListenUnix, "127.0.0.1 *, unix:4242 *"),
        (Transport::PassedUnix, "0.0.0.0/0 *, ::/0 *"),
    ] {
        let mut signd = Host::signd(&keys, transport, &allow(rules));
        signd.launch();
        let host = |request: &[u8]| super::signer_host::ask(&signd, request);
        for request in [ID, ABSENT].into_iter().flat_map(requests) {
            assert_eq!(host(&request).unwrap_err(), STRANGER, "{transport:?}");
        }
        let begun = Instant::now();
        for request in [vec![0; 4], new(&["ping"]), new(&["keygen"]), vec![0xff; 100_000]] {
            assert_eq!(host(&request).unwrap_err(), STRANGER, "{transport:?}");
        }
        assert!(begun.elapsed().as_millis() >= 4 * 200, "each waits for its answer");
        assert!(signd.stop().success());
        assert!(!signd.log().contains(" ok "), "{}", signd.log());
    }
}

#[test]
fn each_client_signs_with_the_keys_that_its_rules_name() {
    let keys = host_with(&[ID, OTHER]);
    let unix = format!("{} user#*, 127.0.0.0/8 other#*@copr.example.org x#*", own_user());
    for (transport, mine, forbidden) in
        [(Transport::ListenTcp, OTHER, ID), (Transport::ListenUnix, ID, OTHER)]
    {
        let mut signd = Host::signd(&keys, transport, &allow(&unix));
        signd.launch();
        let ask = |request: &[u8]| super::signer_host::ask(&signd, request);
        let own = requests(mine);
        for (number, request) in own.iter().enumerate() {
            // The fourth request has a digest of SHA1, which is refused.
            assert_eq!(ask(request).is_ok(), number != 3, "{transport:?}: {number}");
        }
        assert!(ask(&[0; 4]).is_ok());
        // Whether the key exists or not, the words are the same.
        let words = |id: &str| -> Vec<String> {
            requests(id).iter().map(|request| ask(request).unwrap_err().replace(id, "ID")).collect()
        };
        let absent = match mine {
            ID => ABSENT,
            _ => "user#absent@copr.example.org",
        };
        let heard = words(forbidden);
        assert_eq!(heard, words(absent));
        for refused in heard {
            assert!(refused.contains("this client may not use the key, if there is one"));
        }
        // If its rules allow a key that does not exist, the client hears so.
        let none =
            if mine == ID { "user#none@copr.example.org" } else { "x#none@copr.example.org" };
        let unknown = ask(&old(none, "PUBKEY")).unwrap_err();
        assert_eq!(unknown, format!("unknown key: {none}"));
        assert!(signd.stop().success());
        let log = signd.log();
        let lines: Vec<_> = log.lines().filter(|line| line.contains(" forbidden ")).collect();
        assert_eq!(lines.len(), 12, "{log}");
        assert!(lines.iter().all(|line| line.contains(forbidden) || line.contains(absent)));
    }
}

/// Sends a request over TCP from the local port `port`.
fn ask_from(port: u16, to: SocketAddr, request: &[u8]) -> Answer {
    let SocketAddr::V4(to) = to else { panic!("{to}") };
    let socket =
        socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).unwrap();
    bind(socket.as_raw_fd(), &SockaddrIn::new(127, 0, 0, 1, port)).unwrap();
    connect(socket.as_raw_fd(), &SockaddrIn::from(to)).unwrap();
    let mut stream = TcpStream::from(socket);
    stream.write_all(request).unwrap();
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).unwrap();
    parse(&bytes)
}

#[test]
fn reserved_ports_keep_the_programs_of_users_away() {
    let keys = host_with(&[ID]);
    let environment = [("COPR_KEYGEN_SIGND_RESERVED_PORTS", "true")];
    let host = SignerHost::around(keys, Transport::PassedTcp, &environment);
    let Connection::Tcp(stream) = host.signd.connect().unwrap() else { panic!() };
    let to = stream.peer_addr().unwrap();
    let request = &requests(ID)[1];
    assert_eq!(host.ask(request).unwrap_err(), STRANGER);
    // On a Unix socket the user is known anyhow, so the port does not matter.
    let mut by_unix = Host::signd(&host.keys, Transport::ListenUnix, &environment);
    by_unix.launch();
    assert!(super::signer_host::ask(&by_unix, request).is_ok());
    if !geteuid().is_root() {
        return; // only root may use ports below 1024
    }
    // Some of these ports may be in use.
    let port = (600..1024).find(|port| std::net::TcpListener::bind(("127.0.0.1", *port)).is_ok());
    assert!(ask_from(port.unwrap(), to, request).is_ok());
}

#[test]
fn another_user_is_refused_at_the_unix_socket_and_named_in_the_log() {
    if !geteuid().is_root() {
        return; // only root can become another user
    }
    let keys = host_with(&[ID]);
    let host = SignerHost::around(keys, Transport::ListenUnix, &[]);
    let path = host.signd.scratch().join("socket");
    for directory in [host.signd.scratch(), &path] {
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o777);
        std::fs::set_permissions(directory, mode).unwrap();
    }
    let mut other = as_stranger();
    // signd refuses this user before it looks at the request, so any request will do.
    other.args(["curl", "--silent", "--http0.9", "http://localhost/", "--unix-socket"]);
    let output = succeed(other.arg(&path));
    assert_eq!(parse(&output.stdout).unwrap_err(), STRANGER);
    assert_eq!(host.log_of("unix:uid=12345,").len(), 1, "{}", host.signd.log());
    host.assert_signs(ID);
}
