//! `check`: everything broken on purpose once. The line and its remedy are there, `--repair` mends what
//! can be mended, and the key signs.

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::{Value, json};

use super::certificate::assert_signs;
use super::faults::host_with_gpg;
use super::host::{Host, Transport};
use super::signing::signd_client;

pub const ID: &str = "user#project@copr.example.org";
pub const OTHER: &str = "@group#other@copr.example.org";

/// A sign host with all that belongs to it: gpg-copr, sign.conf, and something that listens where signd
/// would.
pub struct SignHost {
    pub host: Host,
    environment: Vec<(String, String)>,
    signd: Option<TcpListener>,
}

impl SignHost {
    pub fn with_keys(ids: &[&str]) -> Self {
        let host = Host::start(Transport::ListenUnix);
        for id in ids {
            let made = host.gen_key_patiently(id, &json!({}));
            assert_eq!(made.status, 201, "{}", host.log());
        }
        Self::around(host)
    }

    fn around(host: Host) -> Self {
        symlink(env!("CARGO_BIN_EXE_copr-keygen"), host.scratch().join("gpg-copr")).unwrap();
        let signd = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = signd.local_addr().unwrap().port();
        let sign_host = Self { host, environment: Vec::new(), signd: Some(signd) };
        let [phrases, gnupg] = ["phrases", "gnupg"]
            .map(|part| sign_host.host.state().join(part).display().to_string());
        let scratch = sign_host.host.scratch().display();
        let conf = format!(
            "# Test.\nallow: 127.0.0.1\nphrases: {phrases}\ngpg: {scratch}/gpg-copr\n\
             gnupghome: {gnupg}\ntmpdir: {scratch}\npidfile: {scratch}/signd.pid\nport: {port}\n"
        );
        fs::write(sign_host.sign_conf(), conf).unwrap();
        sign_host
    }

    fn sign_conf(&self) -> PathBuf {
        self.host.scratch().join("sign.conf")
    }

    fn set(&mut self, name: &str, value: &str) {
        self.environment.push((name.into(), value.into()));
    }

    pub fn path(&self, path: &str) -> PathBuf {
        self.host.state().join(path)
    }

    fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command.env_clear().env("PATH", "/usr/bin:/bin").env("COPR_KEYGEN_CONFIG", "/dev/null");
        command.env("COPR_KEYGEN_STATE_DIR", self.host.state());
        let listen = format!("unix:{}", self.host.scratch().join("socket").display());
        command.env("COPR_KEYGEN_LISTEN", listen);
        command.envs(self.environment.iter().map(|(k, v)| (k, v)));
        command
    }

    fn run(&self, arguments: &[&str]) -> Output {
        let mut command = self.command(Path::new(env!("CARGO_BIN_EXE_copr-keygen")));
        command.args(["check", "--no-units", "--sign-conf"]).arg(self.sign_conf());
        command.args(arguments).output().unwrap()
    }

    /// Runs `copr-keygen` in another mode, which must succeed.
    pub fn keygen(&self, arguments: &[&str]) {
        let mut command = self.command(Path::new(env!("CARGO_BIN_EXE_copr-keygen")));
        let output = command.args(arguments).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    /// Exit status and all findings.
    pub fn check(&self, arguments: &[&str]) -> Found {
        let output = self.run(&[arguments, &["--json"]].concat());
        let words = String::from_utf8_lossy(&output.stderr).into_owned();
        let lines: Vec<Value> =
            serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {words}"));
        Found { code: output.status.code(), lines }
    }

    /// The page for people, and the exit status.
    fn page(&self, arguments: &[&str]) -> (Option<i32>, String) {
        let output = self.run(arguments);
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    }

    /// `--repair` mends it with a line about `subject`, after which all is well and the key signs, also
    /// the way signd does it.
    pub fn assert_mended(&self, subject: &str, id: &str) {
        let repaired = self.check(&["--repair"]);
        assert!(repaired.has("repaired", subject, ""), "{subject}: {repaired:#?}");
        assert_eq!(repaired.code, Some(0), "{repaired:#?}");
        self.assert_well(&["--deep"]);
        assert_signs(&self.host, id);
        self.assert_signd_signs(id);
    }

    pub fn assert_well(&self, arguments: &[&str]) {
        let found = self.check(arguments);
        assert_eq!(found.code, Some(0), "{found:#?}");
        let odd = |line: &&Value| !matches!(line["level"].as_str(), Some("ok" | "note"));
        assert_eq!(found.lines.iter().find(odd), None);
    }

    fn assert_signd_signs(&self, id: &str) {
        let mut client = self.command(&signd_client());
        client.env("GNUPGHOME", self.path("gnupg")).env("SIGND_PHRASES", self.path("phrases"));
        client.env("SIGND_GPG", self.host.scratch().join("gpg-copr"));
        let signed = client.args(["sign", id, "/etc/hostname"]).output().unwrap();
        let mut end = Command::new("gpgconf");
        let ended = end.arg("--homedir").arg(self.path("gnupg")).args(["--kill", "all"]).status();
        assert!(ended.unwrap().success());
        let words = String::from_utf8_lossy(&signed.stderr);
        assert!(signed.status.success() && signed.stdout.len() > 100, "{words}");
    }

    fn secret_key(&self, id: &str) -> PathBuf {
        let directory = self.host.home(id).join("private-keys-v1.d");
        fs::read_dir(directory).unwrap().next().unwrap().unwrap().path()
    }

    pub fn secret_link(&self, id: &str) -> PathBuf {
        self.path("gnupg/private-keys-v1.d").join(self.secret_key(id).file_name().unwrap())
    }
}

/// What `check --json` has found.
#[derive(Debug)]
pub struct Found {
    pub code: Option<i32>,
    pub lines: Vec<Value>,
}

impl Found {
    /// Whether there is a line of this level, whose subject ends so and whose message holds the words.
    pub fn has(&self, level: &str, subject: &str, words: &str) -> bool {
        self.line(level, subject, words).is_some()
    }

    fn line(&self, level: &str, subject: &str, words: &str) -> Option<&Value> {
        self.lines.iter().find(|line| {
            line["level"] == level
                && line["subject"].as_str().unwrap().ends_with(subject)
                && line["message"].as_str().unwrap().contains(words)
        })
    }

    /// The line failed, and with it the check; its remedy holds the words.
    pub fn assert_failed(&self, subject: &str, words: &str, remedy: &str) {
        let line = self.line("failed", subject, words);
        let line = line.unwrap_or_else(|| panic!("{subject}: {words}: {:#?}", self.lines));
        assert!(line["remedy"].as_str().unwrap().contains(remedy), "{line}");
        assert_eq!(self.code, Some(1));
    }
}

/// Everything below a directory: what it is, whose, and what is in it.
fn snapshot(directory: &Path) -> BTreeMap<PathBuf, String> {
    let mut found = BTreeMap::new();
    let mut open = vec![directory.to_path_buf()];
    while let Some(path) = open.pop() {
        let at = fs::symlink_metadata(&path).unwrap();
        let content = if at.is_symlink() {
            format!("{:?}", fs::read_link(&path).unwrap())
        } else if at.is_dir() {
            open.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
            String::new()
        } else {
            format!("{:?} {:?}", at.modified().unwrap(), fs::read(&path).unwrap())
        };
        found.insert(path, format!("{:o} {} {} {content}", at.mode(), at.uid(), at.ino()));
    }
    found
}

#[test]
fn a_host_that_is_well_is_told_so_and_left_as_it_is() {
    let sign_host = SignHost::with_keys(&[ID, OTHER]);
    let before = snapshot(&sign_host.host.state());
    sign_host.assert_well(&[]);
    sign_host.assert_well(&["--deep"]);
    let (code, page) = sign_host.page(&["--deep"]);
    assert_eq!(code, Some(0), "{page}");
    assert!(page.ends_with("\nThis host is well.\n") && !page.contains('\x1b'), "{page}");
    for words in [
        "state_dir: ",
        "(environment variable COPR_KEYGEN_STATE_DIR)",
        "gpg-agent: version 2.",
        "neither haveged nor rngd is needed",
        "2 keys: every certificate is whole, every secret key signs",
        "2 keys, each with both links, and no others",
        "signd answers",
        "copr-keygen answers",
        "not under systemd",
        "none expires within a year",
    ] {
        assert!(page.contains(words), "{words}: {page}");
    }
    assert_eq!(snapshot(&sign_host.host.state()), before);
    sign_host.assert_well(&["--repair"]);
    assert_eq!(snapshot(&sign_host.host.state()), before, "there was nothing to repair");
}

#[test]
fn without_repair_nothing_is_changed_however_bad_it_is() {
    let sign_host = SignHost::with_keys(&[ID, OTHER]);
    let home = sign_host.host.home(ID);
    fs::remove_file(home.join("key.json")).unwrap();
    fs::set_permissions(home.join("passphrase"), Permissions::from_mode(0o644)).unwrap();
    fs::remove_file(sign_host.path("phrases").join(OTHER)).unwrap();
    fs::write(sign_host.path("phrases/x.lock"), "").unwrap();
    fs::write(sign_host.path("gnupg/trustdb.gpg"), "").unwrap();
    fs::remove_dir(sign_host.path("pool")).unwrap();
    let before = snapshot(&sign_host.host.state());
    for arguments in [&[][..], &["--deep"]] {
        assert_eq!(sign_host.check(arguments).code, Some(1));
        assert_eq!(snapshot(&sign_host.host.state()), before);
    }
    sign_host.assert_mended("key.json", ID);
}

#[test]
fn modes_that_let_others_in_are_mended() {
    let sign_host = SignHost::with_keys(&[ID]);
    let home = format!("keys/{ID}");
    let secret = sign_host.secret_key(ID);
    let secret = secret.strip_prefix(sign_host.host.state()).unwrap().to_str().unwrap();
    let cases = [
        ("keys", 0o755, "0755 instead of 0700"),
        ("gnupg/gpg-agent.conf", 0o664, "0664 instead of 0600"),
        (&home, 0o750, "0750 instead of 0700"),
        (&format!("{home}/passphrase"), 0o644, "0644 instead of 0600"),
        (&format!("{home}/openpgp-revocs.d"), 0o777, "0777 instead of 0700"),
        (secret, 0o604, "0604 instead of 0600"),
        // Closed even to the owner.
        (&format!("{home}/private-keys-v1.d"), 0o000, "0000 instead of 0700"),
    ];
    for (path, mode, words) in cases {
        let full = sign_host.path(path);
        fs::set_permissions(&full, Permissions::from_mode(mode)).unwrap();
        sign_host.check(&[]).assert_failed(path, words, "check --repair");
        sign_host.assert_mended(path, ID);
    }
}

#[test]
fn what_belongs_to_somebody_else_is_given_back_by_root() {
    let sign_host = SignHost::with_keys(&[ID]);
    if !nix::unistd::geteuid().is_root() {
        // Only root can give files away. That the state of somebody else is told: /tmp is root's.
        let mut foreign = SignHost::around(Host::new(Transport::ListenUnix, &[]));
        foreign.set("COPR_KEYGEN_STATE_DIR", "/tmp");
        foreign.check(&[]).assert_failed("/tmp", "belongs to root", "run check as root");
        return;
    }
    let home = format!("keys/{ID}");
    for path in ["gnupg", &home, &format!("{home}/pubring.kbx"), &format!("{home}/key.json")] {
        chown(sign_host.path(path), Some(65534), Some(65534)).unwrap();
        let found = sign_host.check(&[]);
        found.assert_failed(path, "not to root", "as root: copr-keygen check --repair");
        sign_host.assert_mended(path, ID);
        assert_eq!(fs::metadata(sign_host.path(path)).unwrap().uid(), 0);
    }

    // The state of another user: root becomes that user, and nothing of it is root's afterwards.
    let state = sign_host.host.state();
    let chowned = Command::new("chown").args(["-R", "65534:65534"]).arg(state).status();
    assert!(chowned.unwrap().success());
    fs::set_permissions(sign_host.host.scratch(), Permissions::from_mode(0o777)).unwrap();
    sign_host.assert_well(&["--deep"]);
    fs::remove_file(sign_host.host.home(ID).join("key.json")).unwrap();
    chown(sign_host.host.home(ID), Some(0), Some(0)).unwrap();
    let repaired = sign_host.check(&["--repair", "--deep"]);
    assert_eq!(repaired.code, Some(0), "{repaired:#?}");
    assert!(repaired.has("repaired", ID, "belongs to root"), "{repaired:#?}");
    assert!(repaired.has("repaired", "key.json", "is missing"), "{repaired:#?}");
    let roots = snapshot(&sign_host.host.state());
    let links = |line: &String| line.starts_with("120777 ");
    let roots: Vec<_> =
        roots.iter().filter(|(_, line)| line.contains(" 0 ") && !links(line)).collect();
    assert_eq!(roots, []);
    sign_host.assert_well(&["--deep"]);
}

#[test]
fn a_link_leads_no_repair_out_of_the_state() {
    let sign_host = SignHost::with_keys(&[ID]);
    let victim = sign_host.host.scratch().join("victim");
    fs::create_dir(&victim).unwrap();
    fs::write(victim.join("passphrase"), "precious").unwrap();
    for path in [victim.clone(), victim.join("passphrase")] {
        fs::set_permissions(path, Permissions::from_mode(0o755)).unwrap();
    }
    let before = snapshot(&victim);
    symlink(&victim, sign_host.path("keys").join(OTHER)).unwrap();
    symlink(victim.join("passphrase"), sign_host.host.home(ID).join("strange")).unwrap();
    let found = sign_host.check(&["--repair", "--deep"]);
    found.assert_failed(&format!("keys/{OTHER}"), "is not a directory", "restore");
    assert!(found.has("note", "strange", "does not belong into a home"), "{found:#?}");
    assert_eq!(snapshot(&victim), before);

    for part in ["staging", "pool", "keys", "phrases", "gnupg"] {
        let (path, away) = (sign_host.path(part), sign_host.host.scratch().join("away"));
        fs::rename(&path, &away).unwrap();
        symlink(&victim, &path).unwrap();
        let found = sign_host.check(&["--repair", "--deep"]);
        found.assert_failed(part, "is not a directory", "move ");
        assert_eq!(snapshot(&victim), before, "{part}");
        fs::remove_file(&path).unwrap();
        fs::rename(&away, &path).unwrap();
    }
}

#[test]
fn a_half_deleted_home_is_named_and_left_alone() {
    let sign_host = SignHost::with_keys(&[ID, OTHER]);
    let secret = sign_host.secret_key(ID);
    let secret = secret.strip_prefix(sign_host.host.home(ID)).unwrap().to_str().unwrap();
    for file in ["pubring.kbx", "passphrase", secret] {
        let path = sign_host.host.home(ID).join(file);
        let away = sign_host.host.scratch().join("away");
        fs::rename(&path, &away).unwrap();
        let before = snapshot(&sign_host.host.state());
        let found = sign_host.check(&["--repair", "--deep"]);
        found.assert_failed(&format!("keys/{ID}/{file}"), "is missing", "from a backup");
        assert_eq!(snapshot(&sign_host.host.state()), before, "{file}");
        fs::write(&path, "").unwrap();
        let found = sign_host.check(&[]);
        found.assert_failed(&format!("keys/{ID}/{file}"), "is empty", "from a backup");
        fs::rename(&away, &path).unwrap();
        sign_host.assert_well(&[]);
    }
    fs::remove_dir_all(sign_host.host.home(ID).join("openpgp-revocs.d")).unwrap();
    let found = sign_host.check(&[]);
    assert!(found.has("warning", "openpgp-revocs.d", "signs without it"), "{found:#?}");
    assert_eq!(found.code, Some(0));
}

#[test]
fn a_wrong_record_is_written_anew() {
    let sign_host = SignHost::with_keys(&[ID, OTHER]);
    let record = sign_host.host.home(ID).join("key.json");
    let good = fs::read_to_string(&record).unwrap();
    let other = fs::read_to_string(sign_host.host.home(OTHER).join("key.json")).unwrap();
    for (bad, words) in [
        (None, "is missing"),
        (Some(""), "cannot be understood"),
        (Some("{\"fingerprint\": 5}"), "cannot be understood"),
        (Some(&*other), "names another secret key"),
    ] {
        fs::remove_file(&record).unwrap();
        if let Some(bad) = bad {
            fs::write(&record, bad).unwrap();
            fs::set_permissions(&record, Permissions::from_mode(0o600)).unwrap();
        }
        sign_host.check(&[]).assert_failed(&format!("{ID}/key.json"), words, "check --repair");
        sign_host.assert_mended("key.json", ID);
        let same = |text: &str| {
            let mut value: Value = serde_json::from_str(text).unwrap();
            value["changed"].take();
            value
        };
        assert_eq!(same(&fs::read_to_string(&record).unwrap()), same(&good));
    }
    // What only gpg can tell.
    let wrong = good.replace("\"expires\":null", "\"expires\":4000000000");
    assert_ne!(wrong, good);
    fs::write(&record, wrong).unwrap();
    sign_host.assert_well(&[]);
    sign_host.check(&["--deep"]).assert_failed(
        "key.json",
        "the certificate says never",
        "--repair",
    );
    let repaired = sign_host.check(&["--deep", "--repair"]);
    assert!(repaired.has("repaired", "key.json", "the certificate says never"), "{repaired:#?}");
    sign_host.assert_well(&["--deep"]);
}

#[test]
fn a_deep_check_finds_what_cannot_sign() {
    let sign_host = SignHost::with_keys(&[ID, OTHER]);
    let (home, other) = (sign_host.host.home(ID), sign_host.host.home(OTHER));
    let swap = |file: &str| {
        let good = fs::read(home.join(file)).unwrap();
        fs::write(home.join(file), fs::read(other.join(file)).unwrap()).unwrap();
        good
    };
    let subject = format!("keys/{ID}");
    for (file, words, remedy) in [
        ("passphrase", "Bad passphrase", "the file passphrase is not the one of this key"),
        ("pubring.kbx", "is the certificate of another secret key", "from a backup"),
    ] {
        let good = swap(file);
        sign_host.assert_well(&[]);
        let found = sign_host.check(&["--deep", "--repair"]);
        found.assert_failed(&subject, words, remedy);
        assert!(!found.has("failed", OTHER, ""), "{found:#?}");
        assert_eq!(sign_host.host.entries("staging"), [""; 0]);
        fs::write(home.join(file), good).unwrap();
    }
    let secret = sign_host.secret_key(ID);
    let good = fs::read(&secret).unwrap();
    fs::write(&secret, &good[..good.len() / 2]).unwrap();
    sign_host.check(&["--deep"]).assert_failed(&subject, "cannot be used", "from a backup");
    fs::write(&secret, good).unwrap();

    let renamed = "user#renamed@copr.example.org";
    fs::rename(&home, sign_host.host.home(renamed)).unwrap();
    sign_host.check(&["--repair"]);
    let found = sign_host.check(&["--deep"]);
    assert!(found.has("warning", renamed, "no user ID"), "{found:#?}");
}

#[test]
fn expired_keys_are_counted_and_named() {
    let host = host_with_gpg("", &[]);
    let stand_in = |script: &str| {
        let script = format!("#!/bin/sh\n{script}\n");
        fs::write(host.scratch().join("gpg"), script).unwrap();
    };
    // Keys of the year 2020: the request says how long they live.
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
    // The service believes that it was made today.
    let found = sign_host.check(&["--deep"]);
    found.assert_failed("old0@copr.example.org/key.json", "the certificate says 2020-12-31", "");
    assert!(!found.has("failed", "", "cannot be used"), "{found:#?}");
    let repaired = sign_host.check(&["--deep", "--repair"]);
    repaired.assert_failed("old0@copr.example.org'", "has expired", "prolong --expired");
    assert!(repaired.has("warning", "keys", "1 key expires within 30 days"), "{repaired:#?}");
    assert!(repaired.has("note", "keys", "2 keys expire within 90 days"), "{repaired:#?}");
    assert!(repaired.has("note", "keys", "3 keys expire within 365 days"), "{repaired:#?}");

    // Copies will do for a long list.
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
        let script = format!("#!/bin/sh\necho 'gpg-agent (GnuPG) {version}'\n");
        fs::write(&old, script).unwrap();
        fs::set_permissions(&old, Permissions::from_mode(0o755)).unwrap();
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
        (line("phrases:"), "phrases: /tmp", "our keys are elsewhere", "write \"phrases: "),
        (line("phrases:"), "", "has no phrases:", "write \"phrases: "),
        (line("gpg:"), "gpg: /usr/bin/gpg", "is not gpg-copr", "gpg: /usr/bin/gpg-copr"),
        (line("gpg:"), "gpg: /nonexistent/gpg-copr", "cannot be run", "gpg: /usr/bin/gpg-copr"),
        (line("gnupghome:"), "gnupghome: /root/.gnupg", "not our agent's home", "gnupghome: "),
        (line("tmpdir:"), "tmpdir: /nonexistent", "tmpdir: /nonexistent", "tmpdir: /run/signd"),
        (line("pidfile:"), "pidfile: run/signd.pid", "no absolute path", "pidfile: /run/signd"),
        (line("allow:"), "# allow: 127.0.0.1", "every client is refused", "allow: 127.0.0.1"),
        (
            line("allow:"),
            "allow: ::1\nserver: 192.0.2.1",
            "never hears",
            "take the server: line out",
        ),
    ] {
        assert_ne!(from, to);
        fs::write(sign_host.sign_conf(), good.replace(&from, to)).unwrap();
        sign_host.check(&["--repair"]).assert_failed("sign.conf", words, remedy);
    }
    // A gpg-copr of another copr-keygen.
    let copy = format!("{scratch}/other");
    fs::create_dir(&copy).unwrap();
    fs::copy("/bin/true", format!("{copy}/gpg-copr")).unwrap();
    let gpg = format!("gpg: {copy}/gpg-copr");
    fs::write(sign_host.sign_conf(), good.replace(&line("gpg:"), &gpg)).unwrap();
    sign_host.check(&[]).assert_failed("sign.conf", "is not this copr-keygen", "gpg-copr");

    fs::remove_file(sign_host.sign_conf()).unwrap();
    sign_host.check(&[]).assert_failed("sign.conf", "No such file", "install obs-signd");
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

    // A part of it is made with --repair.
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
    let started = std::time::Instant::now();
    let found = sign_host.check(&[]);
    let took = started.elapsed();
    assert!(found.has("ok", "keys", &format!("{count} keys, with every file")), "{found:#?}");
    assert_eq!(found.code, Some(0));
    eprintln!("{count} homes: {took:?}");
    // 3 s for 50,000 on a core of its own; here others work too, in a build that is not optimised.
    assert!(took.as_secs() < 5 + count as u64 / 2_000, "{took:?}");
}
