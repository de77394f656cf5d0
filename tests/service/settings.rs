//! A mistake in one setting stops the modes that need it, and no other mode. Signing needs two settings only.

use std::fs;
use std::net::{TcpListener, TcpStream, ToSocketAddrs};
use std::os::unix::fs::symlink;
use std::process::{Command, Output};

use copr_keygen::settings::{SETTINGS, Setting};
use serde_json::json;

use super::host::{Host, Transport, eventually};

const ID: &str = "user#project@copr.example.org";

/// A host with one key and with gpg-copr. Its service has been stopped.
fn host_with_key() -> Host {
    let mut host = Host::start(Transport::ListenUnix);
    assert_eq!(host.gen_key_patiently(ID, &json!({})).status, 201, "{}", host.log());
    assert!(host.stop().success());
    symlink(env!("CARGO_BIN_EXE_copr-keygen"), host.scratch().join("gpg-copr")).unwrap();
    host
}

/// Exports the key as obs-signd does.
fn gpg_copr(host: &Host, variable: &str, value: &str) -> Output {
    let mut gpg_copr = Command::new(host.scratch().join("gpg-copr"));
    let environment = host.mode(&[]);
    let environment = environment.get_envs().filter_map(|(name, value)| Some((name, value?)));
    gpg_copr.args(["--export", "-a", ID]).env_clear().envs(environment).env(variable, value);
    gpg_copr.output().unwrap()
}

fn assert_exports(output: &Output, what: &str) {
    let words = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && words.is_empty(), "{what}: {words}");
    assert!(output.stdout.starts_with(b"-----BEGIN PGP PUBLIC KEY BLOCK-----"), "{what}");
}

/// Returns the exit status of a mode and what it says on stderr, with one more variable.
fn mode(host: &Host, words: &[&str], variable: &str, value: &str) -> (Option<i32>, String) {
    let output = host.mode(words).env(variable, value).output().unwrap();
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

/// Like [`mode`], for `signd`. If it listens, there is no exit status.
fn signd(host: &Host, variable: &str, value: &str) -> (Option<i32>, String) {
    let mut signd = Host::signd(host, Transport::ListenUnix, &[(variable, value)]);
    signd.spawn();
    let ended = eventually("signd to listen or to end", || match signd.ended() {
        None => signd.log().contains("listening at").then_some(None),
        ended => Some(ended),
    });
    (ended.and_then(|ended| ended.code()), signd.log())
}

#[test]
fn a_wrong_setting_stops_the_modes_that_need_it_and_no_other() {
    let host = host_with_key();
    // A time that lasts for ever, as far as any clock can tell.
    let endless = "400000000000y";
    let too_long = format!("{}.invalid:5003", "x".repeat(64));
    let wrong = [
        ("LISTEN", "nonsense", "serve"),
        ("LISTEN", &too_long, "serve"),
        ("IDLE_TIMEOUT", endless, "serve"),
        ("IDLE_TIMEOUT", "1 parsec", "serve"),
        ("QUEUE_TIMEOUT", endless, "serve signd"),
        ("POOL_MAX_AGE", endless, "serve fill-pool"),
        ("POOL", "2048", "serve fill-pool"),
        ("KEY_LENGTH", "1024", "serve"),
        ("EXPIRE", "never", "serve"),
        // Without this refusal, a client would be told that a field is wrong which it did not send.
        ("EXPIRE", "90y", "serve"),
        ("TOKENS_FILE", "tokens", "serve"),
        ("TOKENS_FILE", "/nonexistent/tokens", "serve"),
        ("ALLOW_USERS", "nobody-of-that-name", "serve"),
        ("ALLOW_GROUPS", "nobody-of-that-name", "serve"),
        ("ALLOW_ANONYMOUS", "perhaps", "serve"),
        ("GPG_AGENT", "gpg-agent", "serve prolong fill-pool list show signd"),
        ("GPG_TIMEOUT", endless, "serve prolong fill-pool list show signd"),
        ("JOBS", "-1", "serve prolong fill-pool"),
        ("HOOK", "hook", "prolong"),
        // Without a hook, this setting does not matter.
        ("HOOK_TIMEOUT", "1 parsec", ""),
        ("METRICS_FILE", "file", "prolong"),
        ("PASSPHRASE_KEY_FILE", "/nonexistent/key", "serve prolong fill-pool signd"),
        ("PHRASES_DIR", "phrases", "serve prolong fill-pool"),
        ("SIGND_LISTEN", "nonsense", "signd"),
        ("SIGND_ALLOW", "localhost *", "signd"),
        ("SIGND_RESERVED_PORTS", "perhaps", "signd"),
        ("SIGND_SHA1", "perhaps", "signd"),
        ("SIGND_EXPIRED", "perhaps", "signd"),
        ("SIGND_JOBS", "-1", "signd"),
        ("SIGND_METRICS_FILE", "file", "signd"),
        ("CLUSTER_ENDPOINTS", "http://192.0.2.1:2379", "serve prolong"),
        // Without endpoints, these settings do not matter.
        ("CLUSTER_PREFIX", "copr-keygen", ""),
        ("CLUSTER_HOST", "a/b", ""),
        ("CLUSTER_CA_FILE", "ca.crt", ""),
        ("CLUSTER_CERT_FILE", "host.crt", ""),
        ("CLUSTER_KEY_FILE", "host.key", ""),
    ];
    for Setting { name, .. } in SETTINGS {
        // These three are not tried here: modes need state_dir and log_level, and signing needs gpg.
        let is_here =
            wrong.iter().any(|(setting, ..)| setting.to_lowercase() == name.replace('.', "_"));
        let is_needed = ["state_dir", "log_level", "gpg"].contains(name);
        assert!(is_here || is_needed, "no wrong value of {name} is tried here");
    }
    for (setting, value, needed_by) in wrong {
        let variable = format!("COPR_KEYGEN_{setting}");
        let what = format!("{setting}={value}");
        let name = setting.to_lowercase();
        let name = name.replace("signd_", "signd.").replace("cluster_", "cluster.");
        assert_exports(&gpg_copr(&host, &variable, value), &what);
        let modes: [(&str, &[&str]); 4] = [
            ("list", &["list"]),
            ("show", &["show", ID]),
            ("prolong", &["prolong"]),
            ("fill-pool", &["fill-pool"]),
        ];
        for (mode_name, words) in modes {
            let expected = if needed_by.contains(mode_name) { 78 } else { 0 };
            let (status, said) = mode(&host, words, &variable, value);
            assert_eq!(status, Some(expected), "{what}: {mode_name}: {said}");
        }
        let (status, said) = signd(&host, &variable, value);
        let needs_it = needed_by.contains("signd");
        assert_eq!(status, needs_it.then_some(78), "{what}: signd: {said}");
        if needs_it {
            assert_eq!(said.lines().count(), 1, "{what}: {said}");
            assert!(said.contains(&name), "{what}: {said}");
        }
        if needed_by.contains("serve") {
            let (status, said) = mode(&host, &["serve"], &variable, value);
            assert_eq!((status, said.lines().count()), (Some(78), 1), "{what}: {said}");
            assert!(said.contains(&name), "{what}: {said}");
            let check = ["check", "--no-units", "--sign-conf=/dev/null"];
            let page = host.mode(&check).env(&variable, value).output().unwrap();
            let page = String::from_utf8(page.stdout).unwrap();
            let lines = page.lines().filter(|line| line.contains("FAILED"));
            let named = lines.filter(|line| line.contains(&name)).count();
            assert!(named > 0, "{what}: {page}");
        }
    }
    // A wrong setting is reported even by a mode that does not need it.
    let (status, said) = mode(&host, &["list"], "COPR_KEYGEN_HOOK", "hook");
    assert_eq!(status, Some(0));
    assert!(
        said.contains("hook = \"hook\"") && said.contains("must be an absolute path"),
        "{said}"
    );
}

#[test]
fn what_systemd_passes_is_served_whatever_listen_says() {
    let name = format!("{}.invalid:5003", "x".repeat(64));
    for listen in [&*name, "nonsense"] {
        let host = Host::start_with(Transport::PassedTcp, &[("COPR_KEYGEN_LISTEN", listen)]);
        assert_eq!(host.get("/ping").unwrap().status, 200);
    }
}

#[test]
fn signing_goes_on_beside_a_configuration_that_is_no_toml() {
    let host = host_with_key();
    let config = host.scratch().join("config.toml");
    for text in [
        "listen = localhost:5003",
        "colour = 'blue'",
        "log_level = 'loud'",
        "[x]\ny = 1",
        "signd = 1",
    ] {
        fs::write(&config, format!("gpg = '/usr/bin/gpg'\n{text}\n")).unwrap();
        let file = config.to_str().unwrap();
        assert_exports(&gpg_copr(&host, "COPR_KEYGEN_CONFIG", file), text);
        assert_eq!(mode(&host, &["list"], "COPR_KEYGEN_CONFIG", file).0, Some(78), "{text}");
    }
    fs::write(&config, "gpg = /usr/bin/gpg\n").unwrap();
    let refused = gpg_copr(&host, "COPR_KEYGEN_CONFIG", config.to_str().unwrap());
    assert_eq!(refused.status.code(), Some(78));
}

#[test]
fn every_address_of_localhost_is_served() {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let listen = format!("localhost:{port} 127.0.0.2:{port}");
    let mut host = Host::new(Transport::ListenTcp, &[("COPR_KEYGEN_LISTEN", &listen)]);
    host.spawn();
    // localhost may have an IPv6 address by name that this host does not have.
    let here = |ip: &std::net::IpAddr| TcpListener::bind((*ip, 0)).is_ok();
    let mut addresses: Vec<_> = ("localhost", port).to_socket_addrs().unwrap().collect();
    addresses.retain(|address| here(&address.ip()));
    addresses.push(([127, 0, 0, 2], port).into());
    for address in addresses {
        eventually("a connection", || TcpStream::connect(address).ok());
    }
    assert!(host.stop().success(), "{}", host.log());
}

#[test]
fn what_the_old_service_took_for_nothing_takes_the_default() {
    let host = Host::start(Transport::PassedUnix);
    for (n, extra) in [
        json!({"key_length": 0, "expire": ""}),
        json!({"key_length": "", "expire": 0}),
        json!({"key_length": 0.0, "expire": null}),
        json!({"key_length": null, "expire": null, "name_comment": ""}),
    ]
    .into_iter()
    .enumerate()
    {
        let id = format!("user{n}#project@copr.example.org");
        let made = host.gen_key_patiently(&id, &extra);
        assert_eq!(made.status, 201, "{extra}: {}", made.body);
        let record = fs::read_to_string(host.home(&id).join("key.json")).unwrap();
        assert!(record.contains("\"rsa2048\"") && record.contains("\"expires\":null"), "{record}");
    }
    for wrong in [json!({"key_length": "0"}), json!({"key_length": 1}), json!({"expire": " "})] {
        assert_eq!(host.gen_key(ID, wrong).unwrap().status, 400);
    }
}
