//! `OPTIONS` tells the methods of a path. Load balancers ask it to see whether the service is there.

use super::auth::{ask, file, host_with};
use super::host::{Host, Reply, Transport};

/// The request of HAProxy's `option httpchk` without any parameter.
const HAPROXY: &[u8] = b"OPTIONS / HTTP/1.0\r\n\r\n";

fn assert_allows(reply: &Reply, allow: &str) {
    assert_eq!((reply.status, reply.header("Allow")), (204, Some(allow)), "{reply:?}");
    assert_eq!((&*reply.body, reply.header("Content-Length")), ("", None), "{reply:?}");
    assert_eq!(reply.header("Connection"), Some("close"), "{reply:?}");
    assert!(reply.header("X-Request-Id").is_some(), "{reply:?}");
}

#[test]
fn every_path_says_which_methods_it_has() {
    let host = Host::start(Transport::PassedUnix);
    for (path, allow) in [
        ("/ping", "GET, HEAD, OPTIONS"),
        ("/gen_key", "POST, OPTIONS"),
        ("/keys", "GET, HEAD, OPTIONS"),
        ("/keys?changed_since=1", "GET, HEAD, OPTIONS"),
        ("/keys/user%23none@copr.example.org", "GET, HEAD, OPTIONS"),
        ("/keys/user%23none@copr.example.org/pubkey", "GET, HEAD, OPTIONS"),
        ("/metrics", "GET, HEAD, OPTIONS"),
        ("*", "GET, HEAD, POST, OPTIONS"),
        ("http://sign-host/ping", "GET, HEAD, OPTIONS"),
        ("/", "OPTIONS"),
        ("/nothing", "OPTIONS"),
    ] {
        assert_allows(&ask(&host, &format!("OPTIONS {path}"), "", ""), allow);
    }
    // A body is not needed, but allowed.
    assert_allows(&ask(&host, "OPTIONS /gen_key", "", "{}"), "POST, OPTIONS");
    assert_eq!(host.entries("keys"), [""; 0]);
}

#[test]
fn a_load_balancer_needs_no_token_to_see_that_the_service_is_there() {
    // No client on the Unix socket may do without a token: uid 4000000000 runs no test.
    let nobody = [("COPR_KEYGEN_ALLOW_USERS", "4000000000")];
    for host in [
        Host::start(Transport::ListenTcp),
        host_with(Transport::ListenTcp, &file(), &[]),
        host_with(Transport::PassedUnix, &file(), &nobody),
        Host::start_with(Transport::PassedUnix, &nobody),
    ] {
        assert_allows(&host.send(HAPROXY).unwrap(), "OPTIONS");
        let wrong = "Authorization: Bearer wrong\r\n";
        for path in ["/", "*", "/ping", "/nothing"] {
            assert_eq!(ask(&host, &format!("OPTIONS {path}"), wrong, "").status, 204, "{path}");
        }
    }
}
