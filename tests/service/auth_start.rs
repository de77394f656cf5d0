//! serve refuses to start with faulty tokens, and on an address that other hosts can reach without a token.

use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::PermissionsExt;

use super::auth::{BOTH, MAKER, assert_no_token, bearer, file, status, write_tokens};
use super::host::{Host, Transport};

/// Starts serve, which must refuse to start. Returns the one line that it logs.
fn refusal(host: &mut Host) -> String {
    host.spawn();
    assert_eq!(host.wait().code(), Some(78), "{}", host.log());
    let log = host.log();
    assert_eq!(log.lines().count(), 1, "{log}");
    assert_no_token(&log);
    log
}

#[test]
fn tokens_that_are_not_as_they_must_be_keep_serve_from_starting() {
    let good = format!("good {BOTH} read\n");
    for (text, mode, expected) in [
        (
            format!("{good}short {} read", &MAKER[..31]),
            0o600,
            "tokens: line 2: the token is shorter than 32",
        ),
        (format!("{good}again {BOTH} read"), 0o600, "line 2: has the same token as line 1"),
        (format!("{MAKER}\n"), 0o600, "line 1: must be NAME TOKEN SCOPES"),
        (String::new(), 0o600, "holds no token"),
        (good.clone(), 0o644, "has mode 0644"),
        (good.clone(), 0o660, "has mode 0660"),
    ] {
        let mut host = Host::new(Transport::ListenTcp, &[]);
        let path = write_tokens(&host, &text);
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        host.set("COPR_KEYGEN_TOKENS_FILE", path.display());
        let log = refusal(&mut host);
        assert!(log.contains(expected), "{log}");
        // `check` reports the same.
        let page = host.run(&["check", "--no-units"]);
        let page = String::from_utf8(page.stdout).unwrap();
        assert!(page.contains("FAILED    tokens: ") && page.contains(expected), "{page}");
        assert_no_token(&page);
    }
    // A credential that systemd-creds has encrypted and nothing has decrypted.
    let sealed =
        "Whxqht+dQJax1aZeCGLxmiAAAAABAAAADAAAABAAAAArpcZ92GqRRMR3SRIAAAAAZmZIO4axViEJhQP\n";
    for transport in [Transport::ListenTcp, Transport::PassedUnix] {
        let mut host = Host::new(transport, &[]);
        write_tokens(&host, sealed);
        let directory = host.scratch().display().to_string();
        host.set("CREDENTIALS_DIRECTORY", directory);
        assert!(
            refusal(&mut host)
                .contains("the credential tokens cannot be read: it is still encrypted")
        );
    }
    let mut host =
        Host::new(Transport::ListenTcp, &[("COPR_KEYGEN_TOKENS_FILE", "/nonexistent/tokens")]);
    assert!(refusal(&mut host).contains("tokens_file /nonexistent/tokens: cannot be read"));
    // The last two cannot be uids: -1 as an unsigned number, and a number of more than 32 bits.
    for name in ["nobody-of-that-name", "+0", "-1", "4294967295", "4294967296"] {
        for setting in ["allow_users", "allow_groups"] {
            let variable = format!("COPR_KEYGEN_{}", setting.to_uppercase());
            let mut host = Host::new(Transport::ListenTcp, &[(&variable, name)]);
            let expected = format!("{setting}: {name:?} is not known on this host");
            assert!(refusal(&mut host).contains(&expected));
            let page = String::from_utf8(host.run(&["check", "--no-units"]).stdout).unwrap();
            assert!(page.contains(&format!("FAILED    users: {expected}")), "{page}");
        }
    }

    // serve takes tokens from a systemd credential. It refuses to start if `tokens_file` is set as well.
    let mut host = Host::new(Transport::ListenTcp, &[]);
    let path = write_tokens(&host, &file());
    let directory = host.scratch().display().to_string();
    host.set("CREDENTIALS_DIRECTORY", &directory);
    host.launch();
    let statuses = ["", &*bearer(BOTH)].map(|headers| status(&host, "GET /keys", headers));
    assert_eq!(statuses, [401, 200]);
    host.stop();
    host.set("COPR_KEYGEN_TOKENS_FILE", path.display());
    host.spawn();
    assert_eq!(host.wait().code(), Some(78), "{}", host.log());
    assert!(host.log().contains("leave one of them"), "{}", host.log());
}

#[test]
fn a_token_can_be_replaced_by_another_of_the_same_name() {
    // A byte order mark and CR LF, as an editor on Windows writes them, are allowed.
    let text =
        format!("\u{feff}# ours\r\nbackend {BOTH} generate,read\r\nbackend {MAKER} generate\r\n");
    let mut host = Host::new(Transport::ListenTcp, &[]);
    let path = write_tokens(&host, &text);
    host.set("COPR_KEYGEN_TOKENS_FILE", path.display());
    host.launch();
    let statuses = [BOTH, MAKER].map(|token| status(&host, "GET /keys", &bearer(token)));
    assert_eq!(statuses, [200, 403], "{}", host.log());
    assert_eq!(host.log().matches(" token=backend").count(), 2, "{}", host.log());
    let page = String::from_utf8(host.run(&["check", "--no-units"]).stdout).unwrap();
    assert!(page.contains(&format!("ok        tokens: 2 in {}", path.display())), "{page}");
    assert_no_token(&page);
}

#[test]
fn other_hosts_may_not_reach_a_service_without_tokens() {
    let listen = "COPR_KEYGEN_LISTEN";
    let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
    let open = format!("0.0.0.0:{port}");
    for address in [open.clone(), format!("[::]:{port}"), format!("127.0.0.1:0 0.0.0.0:{port}")] {
        let mut host = Host::new(Transport::ListenTcp, &[(listen, &address)]);
        let log = refusal(&mut host);
        assert!(log.contains("can reach ") && log.contains("allow_anonymous = true"), "{log}");
        let page = String::from_utf8(host.run(&["check", "--no-units"]).stdout).unwrap();
        assert!(page.contains("can be reached by other hosts, and there are no tokens"), "{page}");
    }
    // The address of a socket that systemd passes counts as well.
    let hold = |environment: &[(&str, &str)]| {
        let mut host = Host::new(Transport::PassedTcp, environment);
        host.hold(TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap());
        host
    };
    assert!(refusal(&mut hold(&[])).contains("can reach 0.0.0.0:"));
    let mut host = hold(&[("COPR_KEYGEN_ALLOW_ANONYMOUS", "true")]);
    host.launch();
    assert_eq!(status(&host, "GET /keys", ""), 200);
    let mut host = hold(&[]);
    let path = write_tokens(&host, &file());
    host.set("COPR_KEYGEN_TOKENS_FILE", path.display());
    host.launch();
    assert_eq!(
        [status(&host, "GET /keys", ""), status(&host, "GET /keys", &bearer(BOTH))],
        [401, 200]
    );
}

#[test]
fn check_sees_the_tokens_that_it_is_handed_as_the_service_is() {
    let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
    let listen = format!("0.0.0.0:{port}");
    let mut host = Host::new(Transport::ListenTcp, &[("COPR_KEYGEN_LISTEN", &listen)]);
    write_tokens(&host, &file());
    let directory = host.scratch().display().to_string();
    host.set("CREDENTIALS_DIRECTORY", directory);
    let page = |host: &Host| {
        let page = String::from_utf8(host.run(&["check", "--no-units"]).stdout).unwrap();
        assert_no_token(&page);
        page
    };
    let said = page(&host);
    assert!(said.contains(" in CREDENTIALS_DIRECTORY"), "{said}");
    assert!(
        said.contains(&format!("{listen}: can be reached by other hosts; a token is")),
        "{said}"
    );
    write_tokens(&host, "no token\n");
    let said = page(&host);
    assert!(said.contains("FAILED    tokens: the credential tokens: line 1: "), "{said}");
}
