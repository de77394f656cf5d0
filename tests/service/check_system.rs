//! `check` on everything around the homes: settings, gpg, signd, time, and the number of keys.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::PathBuf;
use std::process::Command;

use serde_json::json;

use super::check_host::{ID, SignHost};
use super::faults::host_with_gpg;
use super::host::{Host, Transport};
use super::programs::write_script;

#[test]
fn expired_keys_are_counted_and_named() {
    let host = host_with_gpg("", &[]);
    let stand_in = |script: &str| {
        write_script(&host.scratch().join("gpg"), script);
    };
    // Keys that are created in 2020. The request sets their lifetime.
    stand_in(
        "case \"$*\" in *--gen-key*) sed 's/^Creation-Date:.*/Creation-Date: 20200101T000000/' | \
         gpg --faked-system-time=20200101T000000 \"$@\";; *) exec gpg \"$@\";; esac",
    );
    let expired: Vec<_> = (0..12).map(|n| format!("user#old{n}@copr.example.org")).collect();
    let first = host.gen_key_patiently(&expired[0], &json!({"expire": "1y"}));
    assert_eq!(first.status, 201, "{}", host.log());
    stand_in("exec gpg \"$@\"");
    for (project, expire) in [("month", "20d"), ("quarter", "80d"), ("year", "300d")] {
        let id = format!("user#{project}@copr.example.org");
        assert_eq!(host.gen_key_patiently(&id, &json!({"expire": expire})).status, 201);
    }
    let sign_host = SignHost::around(host);
    // According to key.json, the service made the key today.
    let found = sign_host.check(&["--deep"]);
    found.assert_failed("old0@copr.example.org/key.json", "the certificate says 2020-12-31", "");
    assert!(!found.has("failed", "", "cannot be used"), "{found:#?}");
    let repaired = sign_host.check(&["--deep", "--repair"]);
    repaired.assert_failed("old0@copr.example.org'", "has expired", "prolong --expired");
    assert!(repaired.has("warning", "keys", "1 key expires within 30 days"), "{repaired:#?}");
    assert!(repaired.has("note", "keys", "2 keys expire within 90 days"), "{repaired:#?}");
    assert!(repaired.has("note", "keys", "3 keys expire within 365 days"), "{repaired:#?}");

    // For a long list, copies of that home will do.
    for copy in &expired[1..] {
        let (from, to) = (sign_host.host.home(&expired[0]), sign_host.host.home(copy));
        assert!(Command::new("cp").arg("-a").arg(from).arg(to).status().unwrap().success());
    }
    let (code, page) = sign_host.page(&[]);
    assert_eq!(code, Some(1));
    assert_eq!(page.matches("': has expired\n").count(), 10, "{page}");
    assert!(page.contains("… and 2 more"), "{page}");
}

#[test]
fn missing_and_mixed_gnupg_is_told() {
    let mut sign_host = SignHost::with_keys(&[ID]);
    for (variable, setting) in [("COPR_KEYGEN_GPG", "gpg"), ("COPR_KEYGEN_GPG_AGENT", "gpg_agent")]
    {
        sign_host.environment.clear();
        sign_host.set(variable, "/nonexistent/program");
        let found = sign_host.check(&[]);
        let remedy = format!("correct the setting {setting}");
        found.assert_failed("/nonexistent/program", "could not be started", &remedy);
    }
    let old = sign_host.host.scratch().join("old-agent");
    for (version, level, words) in [
        ("2.2.3", "warning", "is old"),
        ("2.0.22", "failed", "too old"),
        ("9.9.9", "warning", "but gpg is 2."),
    ] {
        write_script(&old, &format!("echo 'gpg-agent (GnuPG) {version}'"));
        sign_host.environment.clear();
        sign_host.set("COPR_KEYGEN_GPG_AGENT", old.to_str().unwrap());
        let found = sign_host.check(&[]);
        assert!(found.has(level, "old-agent", words), "{version}: {found:#?}");
    }
}

#[test]
fn a_signd_that_is_stopped_or_led_astray_is_told() {
    let mut sign_host = SignHost::with_keys(&[ID]);
    let good = fs::read_to_string(sign_host.sign_conf()).unwrap();
    let line = |name: &str| good.lines().find(|line| line.starts_with(name)).unwrap().to_owned();
    let scratch = sign_host.host.scratch().display().to_string();
    for (from, to, words, remedy) in [
        (line("phrases:"), "phrases: /tmp", "our keys are elsewhere", "'phrases: "),
        (line("phrases:"), "", "has no phrases:", "'phrases: "),
        (line("gpg:"), "gpg: /usr/bin/gpg", "is not gpg-copr", "gpg: /usr/bin/gpg-copr"),
        (line("gpg:"), "gpg: /nonexistent/gpg-copr", "cannot be run", "gpg: /usr/bin/gpg-copr"),
        (line("gnupghome:"), "gnupghome: /root/.gnupg", "not our agent's home", "gnupghome: "),
        (line("tmpdir:"), "tmpdir: /nonexistent", "tmpdir: /nonexistent", "tmpdir: /run/signd"),
        (line("pidfile:"), "pidfile: run/signd.pid", "no absolute path", "pidfile: /run/signd"),
        (line("allow:"), "# allow: 127.0.0.1", "every client is refused", "allow: 127.0.0.1"),
        (line("allow:"), "allow: ::1\nserver: 192.0.2.1", "never hears", "sed -i "),
    ] {
        assert_ne!(from, to);
        fs::write(sign_host.sign_conf(), good.replace(&from, to)).unwrap();
        sign_host.check(&["--repair"]).assert_failed("sign.conf", words, remedy);
    }
    // A gpg-copr that is not this copr-keygen.
    let copy = format!("{scratch}/other");
    fs::create_dir(&copy).unwrap();
    fs::copy("/bin/true", format!("{copy}/gpg-copr")).unwrap();
    let gpg = format!("gpg: {copy}/gpg-copr");
    fs::write(sign_host.sign_conf(), good.replace(&line("gpg:"), &gpg)).unwrap();
    sign_host.check(&[]).assert_failed("sign.conf", "is not this copr-keygen", "gpg-copr");

    // The line is right, but the program that it names does not exist.
    let (gpg_copr, aside) = (format!("{scratch}/gpg-copr"), format!("{scratch}/aside"));
    fs::write(sign_host.sign_conf(), &good).unwrap();
    fs::rename(&gpg_copr, &aside).unwrap();
    if !PathBuf::from("/usr/bin/gpg-copr").exists() {
        let right = good.replace(&line("gpg:"), "gpg: /usr/bin/gpg-copr");
        fs::write(sign_host.sign_conf(), right).unwrap();
        let found = sign_host.check(&[]);
        found.assert_failed("sign.conf", "cannot be run", "install copr-keygen again");
        assert_eq!(found.line("failed", "sign.conf", "cannot").unwrap()["is_command"], false);
    }
    fs::rename(&aside, &gpg_copr).unwrap();

    fs::remove_file(sign_host.sign_conf()).unwrap();
    sign_host.check(&[]).assert_failed("sign.conf", "No such file", "install obs-signd");
    fs::create_dir(sign_host.sign_conf()).unwrap();
    sign_host.check(&[]).assert_failed("sign.conf", "not a regular file", "as a file");
    fs::remove_dir(sign_host.sign_conf()).unwrap();
    fs::write(sign_host.sign_conf(), &good).unwrap();
    sign_host.assert_well(&[]);

    let port = line("port:").replace("port: ", "127.0.0.1:");
    sign_host.signd = None;
    sign_host.check(&[]).assert_failed(&port, "signd does not answer", "systemctl start ");
}

#[test]
fn a_configuration_that_is_wrong_is_a_line_of_the_page() {
    let mut sign_host = SignHost::with_keys(&[]);
    let config = sign_host.host.scratch().join("config.toml");
    let config = config.to_str().unwrap().to_owned();
    sign_host.set("COPR_KEYGEN_CONFIG", &config);
    for (text, words) in [
        (None, "cannot be read"),
        (Some("colour = 'red'"), "colour: unknown setting"),
        (Some("jobs = 1\nexpire"), "line 2"),
    ] {
        if let Some(text) = text {
            fs::write(&config, text).unwrap();
        }
        let (code, page) = sign_host.page(&[]);
        assert_eq!(code, Some(78), "{page}");
        assert!(page.contains(&format!("FAILED    configuration: {config}")), "{page}");
        assert!(page.contains(words) && page.contains("-> correct it"), "{page}");
        let found = sign_host.check(&["--repair"]);
        assert_eq!((found.code, found.lines.len()), (Some(78), 1), "{found:#?}");
        assert!(found.has("failed", "configuration", words), "{found:#?}");
    }
    fs::write(&config, "").unwrap();
    sign_host.set("COPR_KEYGEN_COLOUR", "red");
    let found = sign_host.check(&[]);
    assert!(found.has("warning", "COPR_KEYGEN_COLOUR", "is no setting"), "{found:#?}");
    assert_eq!(found.code, Some(0));
}

#[test]
fn a_state_that_is_not_there_is_not_made() {
    let sign_host = SignHost::around(Host::new(Transport::ListenUnix, &[]));
    for arguments in [&[][..], &["--repair", "--deep"]] {
        let found = sign_host.check(arguments);
        found.assert_failed("state", "does not exist", "systemd-tmpfiles --create");
        assert!(!sign_host.host.state().exists());
    }
    fs::write(sign_host.host.state(), "").unwrap();
    sign_host.check(&["--repair"]).assert_failed("state", "is not a directory", "move it away");
    fs::remove_file(sign_host.host.state()).unwrap();

    // A missing directory inside the state is made with --repair.
    let sign_host = SignHost::with_keys(&[]);
    fs::remove_dir(sign_host.path("phrases")).unwrap();
    sign_host.check(&[]).assert_failed("phrases", "is missing", "check --repair");
    let repaired = sign_host.check(&["--repair"]);
    assert!(repaired.has("repaired", "phrases", "is missing"), "{repaired:#?}");
    assert_eq!(fs::metadata(sign_host.path("phrases")).unwrap().mode() & 0o7777, 0o700);
    sign_host.assert_well(&[]);
}

#[test]
fn many_homes_are_quickly_looked_through() {
    let count: usize =
        std::env::var("KEYGEN_TEST_KEYS").ok().and_then(|n| n.parse().ok()).unwrap_or(300);
    let sign_host = SignHost::with_keys(&[]);
    let private = |path: PathBuf, text: &str| {
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
    };
    for number in 0..count {
        let name = format!("user{number}#project@copr.example.org");
        let (grip, fingerprint) = (format!("{number:040X}"), format!("F{number:039X}"));
        let home = sign_host.host.home(&name);
        for directory in ["", "private-keys-v1.d", "openpgp-revocs.d"] {
            fs::create_dir(home.join(directory)).unwrap();
            let closed = Permissions::from_mode(0o700);
            fs::set_permissions(home.join(directory), closed).unwrap();
        }
        let record = json!({"fingerprint": fingerprint, "keygrip": grip, "algorithm": "rsa2048",
                            "created": 1, "expires": null, "changed": 1});
        private(home.join("key.json"), &record.to_string());
        for file in ["pubring.kbx", "passphrase"] {
            private(home.join(file), "x");
        }
        private(home.join(format!("private-keys-v1.d/{grip}.key")), "x");
        private(home.join(format!("openpgp-revocs.d/{fingerprint}.rev")), "x");
        let secret = format!("../../keys/{name}/private-keys-v1.d/{grip}.key");
        let links = sign_host.path("gnupg/private-keys-v1.d");
        symlink(secret, links.join(format!("{grip}.key"))).unwrap();
        symlink(format!("../keys/{name}/passphrase"), sign_host.path("phrases").join(name))
            .unwrap();
    }
    // `check` signs with the newest key only, so the others need not be real keys.
    let made = sign_host.host.gen_key_patiently(ID, &json!({}));
    assert_eq!(made.status, 201, "{}", sign_host.host.log());
    let count = count + 1;
    let started = std::time::Instant::now();
    let found = sign_host.check(&[]);
    let took = started.elapsed();
    assert!(found.has("ok", "keys", &format!("{count} keys, with every file")), "{found:#?}");
    assert_eq!(found.code, Some(0));
    eprintln!("{count} homes: {took:?}");
    // A dedicated core takes 3 s for 50,000 homes. This limit allows for other load and for an unoptimised
    // build.
    assert!(took.as_secs() < 5 + count as u64 / 2_000, "{took:?}");
}
