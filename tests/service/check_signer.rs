//! `check` where `copr-keygen signd` signs. It fails for what our signer needs, and not for what only
//! obs-signd needs.

use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use super::check_host::{ID, OTHER, SignHost};

const SIGNS: &str = "signs as copr-keygen signd does, verified apart";

/// A host whose signer is `copr-keygen signd`.
struct OwnSigner {
    sign_host: SignHost,
    signd: Child,
}

impl OwnSigner {
    /// Starts the signer. It listens on the Unix socket of the host unless `variables` say otherwise.
    fn start(ids: &[&str], variables: &[(&str, &str)]) -> Self {
        let mut sign_host = SignHost::with_keys(ids);
        sign_host.signd = None;
        for (name, value) in variables {
            sign_host.set(name, value);
        }
        let mut signd = sign_host.command(&sign_host.program);
        let signd = signd.arg("signd").stderr(Stdio::null()).spawn().unwrap();
        let this = Self { sign_host, signd };
        let until = Instant::now() + Duration::from_secs(20);
        while !this.sign_host.check(&[]).has("ok", "", "copr-keygen signd answers") {
            assert!(Instant::now() < until, "{:#?}", this.sign_host.check(&[]));
        }
        this
    }
}

impl Drop for OwnSigner {
    fn drop(&mut self) {
        let _ = self.signd.kill();
        let _ = self.signd.wait();
    }
}

#[test]
fn what_only_obs_signd_needs_does_not_matter_where_ours_signs() {
    let own = OwnSigner::start(&[ID, OTHER], &[]);
    let sign_host = &own.sign_host;
    fs::remove_file(sign_host.sign_conf()).unwrap();
    sign_host.assert_well(&["--deep"]);
    let found = sign_host.check(&[]);
    assert!(found.has("ok", "", SIGNS) && found.has("ok", "signd.allow", "has no rules"));
    fs::remove_file(sign_host.path("phrases").join(ID)).unwrap();
    fs::remove_file(sign_host.secret_link(OTHER)).unwrap();
    fs::write(sign_host.path("gnupg/gpg-agent.conf"), "no-allow-loopback-pinentry\n").unwrap();
    fs::write(sign_host.sign_conf(), "gpg: /usr/bin/gpg\nserver: 192.0.2.1\n").unwrap();
    sign_host.assert_well(&[]);
    let found = sign_host.check(&[]);
    assert!(found.has("ok", "", SIGNS), "{found:#?}");
    assert!(!found.lines.iter().any(|line| line["section"] == "obs-signd"), "{found:#?}");
    for subject in [ID, ".key", "gpg-agent.conf"] {
        assert!(
            found.has("note", subject, "it matters to obs-signd only"),
            "{subject}: {found:#?}"
        );
    }
    // `--repair` mends this nevertheless, so that the host can turn to obs-signd.
    let repaired = sign_host.check(&["--repair"]);
    assert!(repaired.has("repaired", ID, "the link is missing"), "{repaired:#?}");
    assert!(sign_host.path("phrases").join(ID).exists());

    // A secret key that may exist nowhere else matters, whichever signer runs.
    let odd = sign_host.path("gnupg/private-keys-v1.d").join(format!("{}.key", "A".repeat(40)));
    fs::copy(sign_host.secret_key(ID), &odd).unwrap();
    sign_host.check(&[]).assert_failed(".key", "may be somebody's only one", "import");
    fs::remove_file(odd).unwrap();
    sign_host.assert_well(&[]);
}

#[test]
fn a_key_that_our_signer_cannot_use_is_told() {
    let own = OwnSigner::start(&[ID], &[]);
    fs::remove_file(own.sign_host.sign_conf()).unwrap();
    let passphrase = own.sign_host.host.home(ID).join("passphrase");
    let good = fs::read(&passphrase).unwrap();
    fs::write(&passphrase, format!("{}\n", "0".repeat(64))).unwrap();
    let found = own.sign_host.check(&[]);
    found.assert_failed(ID, "does not open with the passphrase beside it", "check --deep");
    fs::write(&passphrase, good).unwrap();
    own.sign_host.assert_well(&[]);
    assert!(own.sign_host.host.entries("staging").is_empty());
}

#[test]
fn a_signer_that_is_not_alone_is_told() {
    let mut own = OwnSigner::start(&[ID], &[]);
    // sign.conf leads to a port where another program listens.
    let other = SignHost::with_keys(&[]);
    let conf = own.sign_host.sign_conf();
    fs::copy(other.sign_conf(), &conf).unwrap();
    let found = own.sign_host.check(&[]);
    assert!(found.has("warning", "sign.conf", "clients decide who signs"), "{found:#?}");
    assert!(found.has("ok", ID, SIGNS), "{found:#?}");
    own.signd.kill().unwrap();
    own.signd.wait().unwrap();
    let found = own.sign_host.check(&[]);
    assert!(!found.lines.iter().any(|line| line["section"] == "copr-keygen signd"), "{found:#?}");
}

#[test]
fn a_sign_conf_that_leads_past_our_signer_is_put_right_by_the_command() {
    let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
    let listen = format!("127.0.0.1:{port}");
    let own = OwnSigner::start(&[ID], &[("COPR_KEYGEN_SIGND_LISTEN", &listen)]);
    let conf = own.sign_host.sign_conf();
    fs::write(&conf, "proxyport: 1\nport: 1").unwrap();
    own.sign_host.assert_remedy_mends("sign.conf", "where nothing of ours answers");
    own.sign_host.assert_well(&[]);
    assert!(fs::read_to_string(conf).unwrap().ends_with(&format!("port: {port}\n")));
}

#[test]
fn rules_for_users_who_do_not_exist_are_taken_out_by_the_command() {
    let mut own = OwnSigner::start(&[ID], &[]);
    let sign_host = &mut own.sign_host;
    fs::remove_file(sign_host.sign_conf()).unwrap();
    let config = sign_host.host.scratch().join("config.toml");
    sign_host.set("COPR_KEYGEN_CONFIG", config.to_str().unwrap());
    for text in [
        "[signd]\nallow = [\"127.0.0.1 *\", \"unix:no-such-user user#*@[cd]*.example.org\"]\n",
        "[signd]\nallow = [\n    'unix:no.such/user *',\n    'unix:root *#*'\n]\n",
        "[signd]\nallow = [\"unix:no-such-user *\" , \"unix:0 *\", \"::1 *\"]\n",
    ] {
        fs::write(&config, text).unwrap();
        sign_host.assert_remedy_mends("signd.allow", "is not known on this host");
        sign_host.assert_well(&[]);
        assert!(!fs::read_to_string(&config).unwrap().contains("such"), "{text}");
    }
    // Without its only rule, signd would admit this host. The other two lists are too intricate for the
    // pattern in a command.
    for text in [
        "[signd]\nallow = [\"unix:no-such-user *\"]\n",
        "[signd]\nallow = \"unix:no-such-user *, 127.0.0.1 *\"\n",
        "[signd]\nallow = [\"unix:no-such-user *\", \"unix:no-such-user *\", \"::1 *\"]\n",
    ] {
        fs::write(&config, text).unwrap();
        let found = sign_host.check(&[]);
        found.assert_failed(
            "signd.allow",
            "copr-keygen signd does not start",
            "correct the setting",
        );
    }
    fs::write(&config, "[signd]\nallow = \"0.0.0.0/0 *\"\n").unwrap();
    let found = sign_host.check(&[]);
    assert!(found.has("warning", "signd.allow", "lets every host have signed"), "{found:#?}");
}

#[test]
fn reserved_ports_must_say_something() {
    let mut own = OwnSigner::start(&[ID], &[]);
    fs::remove_file(own.sign_host.sign_conf()).unwrap();
    own.sign_host.set("COPR_KEYGEN_SIGND_RESERVED_PORTS", "true");
    let first = "/proc/sys/net/ipv4/ip_unprivileged_port_start";
    let first: u32 = fs::read_to_string(Path::new(first)).unwrap().trim().parse().unwrap();
    let found = own.sign_host.check(&[]);
    if first < 1024 {
        let words = format!("every user of this host may take ports from {first} on");
        let line = found.line("warning", "signd.reserved_ports", &words).unwrap();
        assert_eq!(line["is_command"], true, "{line}");
    } else {
        assert!(found.has("ok", "signd.reserved_ports", "only root may ask"), "{found:#?}");
    }
    own.sign_host.set("COPR_KEYGEN_SIGND_ALLOW", "::/0 *, 127.0.0.1 *");
    let found = own.sign_host.check(&[]);
    assert!(
        found.has("warning", "signd.allow", "only that root uses it, over there"),
        "{found:#?}"
    );
}

#[test]
fn rules_on_lines_of_their_own_are_read_as_the_signer_reads_them() {
    let mut own = OwnSigner::start(&[ID], &[]);
    let rules = "127.0.0.1 *\n0.0.0.0/0 *\nunix:nosuchuser *\n";
    own.sign_host.set("COPR_KEYGEN_SIGND_ALLOW", rules);
    let found = own.sign_host.check(&[]);
    assert!(found.has("failed", "signd.allow", "nosuchuser"), "{found:#?}");
    assert!(found.has("warning", "signd.allow", "\"0.0.0.0/0 *\" lets every host"), "{found:#?}");
}
