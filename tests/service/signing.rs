//! obs-signd's side: `gpg-copr`, the shared agent, and signatures that other tools verify.

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use serde_json::json;

use super::certificate::text;
use super::faults::stand_in;
use super::host::{Host, Transport, eventually};
use super::programs::write_script;

const ID: &str = "user#project@copr.example.org";

/// A sign host with `gpg-copr` installed beside it.
pub struct SignHost(pub Host);

impl SignHost {
    fn start() -> Self {
        let host = Host::start(Transport::ListenUnix);
        symlink(env!("CARGO_BIN_EXE_copr-keygen"), host.scratch().join("gpg-copr")).unwrap();
        Self(host)
    }

    pub fn with_key() -> Self {
        let host = Self::start();
        host.make(ID);
        host
    }

    pub fn make(&self, id: &str) {
        let made = self.0.gen_key(id, json!({})).unwrap();
        assert_eq!(made.status, 201, "{}", self.0.log());
    }

    fn program(&self) -> PathBuf {
        self.0.scratch().join("gpg-copr")
    }

    /// Returns a command that runs `program` in the environment of signd's children.
    fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command.env_clear().env("PATH", "/usr/bin:/bin");
        command.env("GNUPGHOME", self.0.state().join("gnupg"));
        command.env("COPR_KEYGEN_STATE_DIR", self.0.state());
        command.env("COPR_KEYGEN_CONFIG", "/dev/null");
        command.env("SIGND_PHRASES", self.0.state().join("phrases"));
        command.env("SIGND_GPG", self.program());
        command
    }

    pub fn gpg_copr(&self, arguments: &[&str]) -> Output {
        self.command(&self.program()).args(arguments).output().unwrap()
    }

    fn signd_client(&self, arguments: &[&str]) -> Output {
        self.command(&signd_client()).args(arguments).output().unwrap()
    }

    /// Signs a file as `id`, and has gpgv verify the signature with nothing but the exported key.
    fn sign_and_verify(&self, id: &str) -> Result<(), String> {
        let name = format!("{:016x}", rand::random::<u64>());
        let [file, signature, keyring] =
            ["data", "sig", "gpg"].map(|kind| self.0.scratch().join(format!("{name}.{kind}")));
        fs::write(&file, &name).unwrap();
        let signed = stdout_of(self.signd_client(&["sign", id, file.to_str().unwrap()]))?;
        fs::write(&signature, signed).unwrap();
        let exported = stdout_of(self.gpg_copr(&["--export", id]))?;
        fs::write(&keyring, exported).unwrap();
        let verified = Command::new("gpgv")
            .arg("--keyring")
            .args([&keyring, &signature, &file])
            .output()
            .expect("gpgv is missing; install the package gpgv");
        stdout_of(verified).map(drop)
    }

    fn end_agent(&self) {
        let mut kill = self.command(Path::new("gpgconf"));
        assert!(kill.args(["--kill", "gpg-agent"]).status().unwrap().success());
        // A dying agent accepts connections until it has ended, and answers none of them.
        eventually("the agent to end", || {
            let mut ask = self.command(Path::new("gpg-connect-agent"));
            let asked = ask.args(["--no-autostart", "/bye"]).output().unwrap();
            String::from_utf8_lossy(&asked.stderr).contains("no gpg-agent running").then_some(())
        });
    }

    /// Runs gpg-copr with a stand-in for gpg. Returns what the stand-in has got: arguments, environment and
    /// stdin.
    pub fn recorded(&self, home: &Path, arguments: &[&str], stdin: &str) -> String {
        let script = self.0.scratch().join("gpg-recorder");
        write_script(&script, "printf '<%s>\\n' \"$@\"\nenv | sort\ncat");
        let input = self.0.scratch().join("stdin");
        fs::write(&input, stdin).unwrap();
        let mut command = self.command(&self.program());
        command.env("COPR_KEYGEN_GPG", &script).env("GNUPGHOME", home).args(arguments);
        let output = command.stdin(fs::File::open(&input).unwrap()).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    }
}

impl Drop for SignHost {
    fn drop(&mut self) {
        self.end_agent();
    }
}

/// Returns the path of the client that does what signd does. cargo builds examples with all tests, but not
/// with a single one.
pub fn signd_client() -> PathBuf {
    let program = std::env::current_exe().unwrap();
    let program = program.parent().unwrap().parent().unwrap().join("examples/signd-client");
    assert!(
        program.exists(),
        "{} is missing: run `cargo build --locked --examples`",
        program.display()
    );
    program
}

pub fn stdout_of(output: Output) -> Result<Vec<u8>, String> {
    match output.status.success() {
        true => Ok(output.stdout),
        false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
    }
}

#[test]
fn the_calls_of_signd_are_answered_as_gpg_answers_them() {
    let host = SignHost::with_key();
    for probe in [["--pinentry-mode=loopback", "--version"], ["--no-armor", "--version"]] {
        let output = stdout_of(host.gpg_copr(&probe)).unwrap();
        assert!(output.starts_with(b"gpg (GnuPG"), "{probe:?}");
    }
    // Neither Debian's nor upstream's gpg has this option. signd finds out by the exit status.
    let has_digests =
        Command::new("gpg").args(["--files-are-digests", "--version"]).output().unwrap();
    let probe = host.gpg_copr(&["--files-are-digests", "--version"]);
    assert_eq!(probe.status.code(), has_digests.status.code());

    let armored = stdout_of(host.gpg_copr(&["--export", "-a", ID])).unwrap();
    assert_eq!(String::from_utf8(armored).unwrap(), host.0.gpg(ID, &["--export", "-a"]));

    let locate =
        ["--locate-key", "--with-fingerprint", "--with-keygrip", "--with-colons", "--", ID];
    let listing = String::from_utf8(stdout_of(host.gpg_copr(&locate)).unwrap()).unwrap();
    let record = fs::read_to_string(host.0.home(ID).join("key.json")).unwrap();
    for kind in ["fpr", "grp"] {
        let line = listing.lines().find(|line| line.starts_with(kind)).unwrap();
        assert!(record.contains(line.split(':').nth(9).unwrap()), "{line}");
    }
    assert!(listing.lines().any(|l| l.starts_with("pub") && l.split(':').nth(11) == Some("scSC")));
}

#[test]
fn an_agent_mode_signature_verifies_elsewhere() {
    let host = SignHost::with_key();
    host.sign_and_verify(ID).unwrap();
    // When the agent is gone, a new one starts.
    host.end_agent();
    host.sign_and_verify(ID).unwrap();
    // A key made while the agent runs signs at once.
    let other = "@group#project@copr.example.org";
    host.make(other);
    host.sign_and_verify(other).unwrap();
    // A lost link comes back with the next request for the key.
    let links = host.0.state().join("gnupg/private-keys-v1.d");
    for link in fs::read_dir(&links).unwrap() {
        fs::remove_file(link.unwrap().path()).unwrap();
    }
    host.end_agent();
    assert!(host.sign_and_verify(ID).is_err());
    assert_eq!(host.0.gen_key(ID, json!({})).unwrap().status, 200);
    host.sign_and_verify(ID).unwrap();
}

#[test]
fn an_unknown_user_fails_as_with_gpg() {
    let host = SignHost::with_key();
    let unknown = "nobody#project@copr.example.org";
    let refused = host.signd_client(&["pubkey", unknown]);
    assert!(String::from_utf8_lossy(&refused.stderr).contains("unknown key: nobody#project@"));
    let exported = host.gpg_copr(&["--export", "-a", unknown]);
    assert!(exported.stdout.is_empty());
    assert!(String::from_utf8_lossy(&exported.stderr).contains("nothing exported"));
    let signed = host.gpg_copr(&["--batch", "-u", unknown, "-sbo", "-", "/dev/null"]);
    assert_eq!(signed.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&signed.stderr).contains("No secret key"));
}

#[test]
fn files_are_digests_mode_reaches_gpg_as_signd_meant_it() {
    let host = SignHost::with_key();
    let call = "--batch --force-v3-sigs --files-are-digests --digest-algo=SHA256 --no-verbose \
                --no-armor --no-secmem-warning --ignore-time-conflict --pinentry-mode=loopback \
                --passphrase-fd=0 -u";
    let mut arguments: Vec<_> = call.split_whitespace().collect();
    arguments.extend([ID, "-sbo", "-", "00ff@00637f"]);
    let agent_home = host.0.state().join("gnupg");
    let seen = host.recorded(&agent_home, &arguments, "the phrase\n");
    let fingerprint = host.0.gpg(ID, &["--with-colons", "-k"]);
    let fingerprint = fingerprint.lines().find_map(|l| l.strip_prefix("fpr:::::::::")).unwrap();
    let words = [
        "--homedir",
        agent_home.to_str().unwrap(),
        "--no-auto-check-trustdb",
        "--trust-model=always",
        "--lock-never",
        "--auto-key-locate=clear,local",
        "--disable-dirmngr",
        "--default-sig-expire=0",
        "--no-default-keyring",
        "--keyring",
        host.0.home(ID).join("pubring.kbx").to_str().unwrap(),
        "--batch",
        "--force-v3-sigs",
        "--files-are-digests",
        "--digest-algo=SHA256",
        "--no-verbose",
        "--no-armor",
        "--no-secmem-warning",
        "--ignore-time-conflict",
        "--pinentry-mode=loopback",
        "--passphrase-fd=0",
        "-s",
        "-b",
        "-o",
        "-",
        "-u",
        fingerprint.trim_end_matches(':'),
        "--",
        "00ff@00637f",
    ]
    .map(|word| format!("<{word}>\n"))
    .concat();
    let rest = seen.strip_prefix(&words).unwrap_or_else(|| panic!("{seen}\nis not\n{words}"));
    let environment: Vec<_> = rest.lines().filter(|line| !line.starts_with("PWD=")).collect();
    assert_eq!(environment, ["LC_ALL=C.UTF-8", "PATH=/usr/bin:/bin", "the phrase"]);
}

#[test]
fn hostile_users_are_neither_options_nor_other_identities() {
    let host = SignHost::with_key();
    let agent_home = host.0.state().join("gnupg");
    let long = "x".repeat(300);
    let users = [
        "--version",
        "-o/tmp/x",
        "--homedir=/tmp",
        "a b",
        "*",
        "",
        &long,
        "a\u{1b}[31m",
        "a\nb",
        "user",
        "project@copr.example.org",
        "<",
        "=user",
        "@",
        "..",
        "a#b@c.lock",
        "--",
        "&ABCD",
    ];
    for user in users {
        let calls: [&[&str]; 3] = [
            &["--export", "-a", user],
            &["--locate-key", "--with-colons", "--", user],
            &["--batch", "--passphrase-fd=0", "-u", user, "-sbo", "-", "x"],
        ];
        for call in calls {
            let seen = host.recorded(&agent_home, call, "");
            let inert = format!("<={user}>\n");
            assert_eq!(seen.matches(&inert).count(), 1, "{call:?} became {seen}");
            assert!(!seen.contains("--keyring"), "{call:?} got a keyring: {seen}");
        }
        let exported = host.gpg_copr(&["--export", "-a", user]);
        assert!(exported.stdout.is_empty(), "{user:?} exported something");
    }
}

#[test]
fn a_foreign_home_gets_plain_gpg() {
    let host = SignHost::with_key();
    let foreign = host.0.scratch().join("foreign");
    fs::create_dir(&foreign).unwrap();
    let arguments = ["--batch", "--gen-key", "--no-such-option", "x"];
    let seen = host.recorded(&foreign, &arguments, "in");
    let (words, environment) = seen.split_at(seen.find("COPR_").unwrap());
    assert_eq!(words, "<--batch>\n<--gen-key>\n<--no-such-option>\n<x>\n");
    assert!(environment.contains(&format!("GNUPGHOME={}\n", foreign.display())));
}

#[test]
fn operators_find_keys_in_other_ways_too() {
    let host = SignHost::with_key();
    let other = "other#project@copr.example.org";
    host.make(other);
    let list = |arguments: &[&str]| {
        let listing = stdout_of(host.gpg_copr(arguments)).unwrap();
        let listing = String::from_utf8(listing).unwrap();
        let of = |kind: &str| {
            let lines = listing.lines().filter(|line| line.starts_with(kind));
            lines.map(|line| line.split(':').nth(9).unwrap().to_owned()).collect::<Vec<_>>()
        };
        (of("fpr"), of("uid"))
    };
    let all = list(&["--with-colons", "--list-keys"]);
    assert_eq!(all.0.len(), 2);
    let one = list(&["--with-colons", "--list-keys", &format!("<{other}>")]);
    assert_eq!(one.1, [format!("user_project <{other}>")]);
    let fingerprint = &one.0[0];
    for id in [&fingerprint[..], &fingerprint[24..], &format!("0x{}", &fingerprint[24..])] {
        assert_eq!(list(&["--with-colons", "-k", id]), one, "{id}");
    }
    // A damaged home does not get in the way of another one.
    let names = [ID, other];
    let prints = names
        .map(|id| list(&["--with-colons", "--list-keys", &format!("<{id}>")]).0.swap_remove(0));
    for (at, damaged) in names.into_iter().enumerate() {
        let passphrase = host.0.home(damaged).join("passphrase");
        let aside = host.0.scratch().join("aside");
        fs::rename(&passphrase, &aside).unwrap();
        let whole = &prints[1 - at];
        assert_eq!(list(&["--with-colons", "-k", whole]).0, [whole.as_str()]);
        let refused = host.gpg_copr(&["-k", &prints[at]]);
        let words = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(words.contains("damaged") && words.contains(damaged), "{words}");
        fs::rename(&aside, &passphrase).unwrap();
    }
    let refused = host.gpg_copr(&["--delete-secret-keys", other]);
    assert_eq!(refused.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&refused.stderr).starts_with("gpg-copr: not run: "));
}

#[test]
fn signds_keycache_learns_of_every_new_key() {
    let host = SignHost::start();
    let marker = || {
        let found = fs::metadata(host.0.state().join("gnupg/pubring.kbx")).unwrap();
        (found.mtime(), found.size(), found.ino())
    };
    let mut seen = vec![marker()];
    for n in 0..3 {
        host.make(&format!("user{n}#project@copr.example.org"));
        seen.push(marker());
        assert_ne!(seen[n], seen[n + 1]);
    }
}

#[test]
fn signatures_and_new_keys_do_not_disturb_each_other() {
    // A release is tested with 500 signatures and 20 keys.
    let number = |name: &str, default| std::env::var(name).map_or(default, |n| n.parse().unwrap());
    let signatures: usize = number("KEYGEN_TEST_SIGNATURES", 48);
    let keys: usize = number("KEYGEN_TEST_KEYS", 4);
    let host = SignHost::with_key();
    let started = Instant::now();
    let failures: Vec<String> = std::thread::scope(|scope| {
        let signers: Vec<_> = (0..8)
            .map(|_| {
                let host = &host;
                scope.spawn(move || {
                    let results = (0..signatures / 8).map(|_| host.sign_and_verify(ID));
                    results.filter_map(Result::err).collect::<Vec<_>>()
                })
            })
            .collect();
        for n in 0..keys {
            host.make(&format!("user{n}#project@copr.example.org"));
        }
        signers.into_iter().flat_map(|signer| signer.join().unwrap()).collect()
    });
    assert_eq!(failures, [""; 0]);
    eprintln!("{signatures} signatures, {keys} keys: {:?}", started.elapsed());
    assert!(started.elapsed() < Duration::from_secs(300));
}

#[test]
fn gpg_is_started_with_no_signal_blocked() {
    let mut host = Host::start(Transport::PassedUnix);
    assert_eq!(host.gen_key_patiently(ID, &json!({})).status, 201, "{}", host.log());
    let gpg = stand_in(&host, "exec grep SigBlk /proc/self/status");
    host.set("COPR_KEYGEN_GPG", gpg.display());
    // In the first case the process becomes gpg, in the second it starts gpg for each key.
    for arguments in [["gpg", "--", "--version"], ["gpg", "--", "--list-keys"]] {
        let output = host.run(&arguments);
        assert_eq!(text(&output), "SigBlk:\t0000000000000000\n", "{arguments:?}");
    }
}
