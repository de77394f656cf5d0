//! The one gpg-agent that signs with all keys. Many clients sign at once. Configuration that older versions
//! or operators wrote survives or is updated. `check` reports on the agent, and on whether signd can reach
//! its directory.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use serde_json::json;

use super::certificate::as_stranger;
use super::check_host::{ID, SignHost};
use super::host::{Host, Transport, eventually};
use super::signing::signd_client;

/// More clients than the agent can serve at once with its initial secure memory, whatever the key length.
const CLIENTS: usize = 48;

/// The gpg-agent.conf that versions without `auto-expand-secmem` wrote.
const OLD_CONFIGURATION: &str = "\
# Written by copr-keygen when it is missing.
allow-loopback-pinentry
s2k-count 65536
default-cache-ttl 0
max-cache-ttl 0
disable-scdaemon
extra-socket none
browser-socket none
";

const WANTED: &str = "auto-expand-secmem 0x100000\n";

impl SignHost {
    /// A sign host with one key of `bits` bits.
    fn with_key_of(bits: u32) -> Self {
        let host = Host::start(Transport::ListenUnix);
        let made = host.gen_key_patiently(ID, &json!({"key_length": bits}));
        assert_eq!(made.status, 201, "{}", host.log());
        Self::around(host)
    }

    fn configuration(&self) -> PathBuf {
        self.path("gnupg/gpg-agent.conf")
    }

    /// Restarts the service on the same state.
    fn serve_again(&mut self) {
        assert!(self.host.stop().success());
        self.host.launch();
    }

    fn sign_at_once(&self) -> Result<(), String> {
        let mut client = self.command(&signd_client());
        client.env("SIGND_GPG", self.host.scratch().join("gpg-copr"));
        sign_at_once(&mut client, &self.path("gnupg"), &self.path("phrases"), &self.host)
    }
}

/// Signs with `CLIENTS` clients at once. Then gpgv verifies every signature with nothing but the certificate.
fn sign_at_once(
    client: &mut Command,
    gnupg: &Path,
    phrases: &Path,
    host: &Host,
) -> Result<(), String> {
    let signature = host.scratch().join("signatures");
    let keyring = host.scratch().join("keyring");
    fs::write(&keyring, host.pubkey(ID)).unwrap();
    client.env("GNUPGHOME", gnupg).env("SIGND_PHRASES", phrases);
    let signed =
        client.args(["sign-at-once", ID, "/etc/hostname", &CLIENTS.to_string()]).output().unwrap();
    if !signed.status.success() {
        return Err(String::from_utf8_lossy(&signed.stderr).into_owned());
    }
    fs::write(&signature, signed.stdout).unwrap();
    let mut gpgv = Command::new("gpgv");
    gpgv.arg("--status-fd=1").arg("--keyring").arg(&keyring).arg(&signature).arg("/etc/hostname");
    let verified = gpgv.output().expect("gpgv is missing; install the package gpgv");
    let status = String::from_utf8(verified.stdout).unwrap();
    assert_eq!(status.matches("[GNUPG:] GOODSIG ").count(), CLIENTS, "{status}");
    Ok(())
}

impl Host {
    fn pubkey(&self, id: &str) -> Vec<u8> {
        let output = self.run(&["pubkey", id]);
        let mut dearmor = Command::new("gpg");
        dearmor.arg("--dearmor").stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut dearmor = dearmor.spawn().unwrap();
        dearmor.stdin.take().unwrap().write_all(&output.stdout).unwrap();
        dearmor.wait_with_output().unwrap().stdout
    }
}

/// Ends the agent of a home when dropped.
struct EndAgent(PathBuf);

impl Drop for EndAgent {
    fn drop(&mut self) {
        let mut kill = Command::new("gpgconf");
        let _ = kill.arg("--homedir").arg(&self.0).args(["--kill", "gpg-agent"]).status();
    }
}

#[test]
fn many_clients_sign_at_once_with_keys_of_every_length() {
    for bits in [2048, 3072, 4096] {
        let sign_host = SignHost::with_key_of(bits);
        let _end = EndAgent(sign_host.path("gnupg"));
        sign_host.sign_at_once().unwrap();
        sign_host.assert_well(&[]);
    }
}

#[test]
fn many_clients_sign_at_once_in_an_exported_home() {
    let sign_host = SignHost::with_key_of(4096);
    let exported = sign_host.host.scratch().join("exported");
    sign_host.keygen(&["export", "--to", exported.to_str().unwrap()]);
    let _end = EndAgent(exported.join("gnupg"));
    let mut client = Command::new(signd_client());
    client.env_clear().env("PATH", "/usr/bin:/bin").env("SIGND_GPG", "/usr/bin/gpg");
    let (gnupg, phrases) = (exported.join("gnupg"), exported.join("phrases"));
    sign_at_once(&mut client, &gnupg, &phrases, &sign_host.host).unwrap();
}

#[test]
fn what_an_older_version_wrote_is_brought_up_to_date_by_whatever_opens_the_state() {
    let mut sign_host = SignHost::with_key_of(4096);
    let _end = EndAgent(sign_host.path("gnupg"));
    let conf = sign_host.configuration();
    let exported = sign_host.host.scratch().join("exported");
    let exported = exported.to_str().unwrap();
    let (gnupg, phrases) = (format!("{exported}/gnupg"), format!("{exported}/phrases"));
    for mode in [
        &["export", "--to", exported][..],
        &["import", "--from", &gnupg, "--phrases", &phrases],
        &["prolong"],
        &["fill-pool"],
        &["remove", "--yes", ID],
        &["undo", ID],
    ] {
        fs::write(&conf, OLD_CONFIGURATION).unwrap();
        sign_host.keygen(mode);
        assert_eq!(
            fs::read_to_string(&conf).unwrap(),
            format!("{OLD_CONFIGURATION}{WANTED}"),
            "{mode:?}"
        );
    }
    fs::write(&conf, OLD_CONFIGURATION).unwrap();
    sign_host.serve_again();
    assert_eq!(fs::read_to_string(&conf).unwrap(), format!("{OLD_CONFIGURATION}{WANTED}"));
    let log = sign_host.host.log();
    assert!(log.contains("added auto-expand-secmem 0x100000"), "{log}");
    assert!(log.contains("restart signd"), "{log}");
    sign_host.sign_at_once().unwrap();
    // The second start has nothing to add, so it logs nothing.
    sign_host.serve_again();
    assert_eq!(sign_host.host.log().matches("added auto-expand").count(), 1);
}

#[test]
fn what_an_operator_wrote_for_the_agent_stays() {
    let mut sign_host = SignHost::with_key_of(2048);
    let conf = sign_host.configuration();
    let own = b"# ours: \xff\nlog-file /dev/null\r\n  s2k-count\t1024\nno-allow-loopback-pinentry";
    fs::write(&conf, own).unwrap();
    sign_host.serve_again();
    assert_eq!(fs::read(&conf).unwrap(), [&own[..], b"\n", WANTED.as_bytes()].concat());
    // A different value is the operator's decision and stays as well.
    let decided = format!("{OLD_CONFIGURATION}auto-expand-secmem 0x8000\n");
    fs::write(&conf, &decided).unwrap();
    sign_host.serve_again();
    assert_eq!(fs::read_to_string(&conf).unwrap(), decided);
    sign_host.assert_well(&[]);

    // If gpg-agent.conf is a symbolic link to a file elsewhere, `check` says so, and its remedy works as
    // printed.
    let elsewhere = sign_host.host.scratch().join("agent.conf");
    fs::write(&elsewhere, OLD_CONFIGURATION).unwrap();
    fs::remove_file(&conf).unwrap();
    symlink(&elsewhere, &conf).unwrap();
    sign_host.serve_again();
    assert!(sign_host.host.log().contains("is a symbolic link, so it was left alone"));
    assert_eq!(fs::read_to_string(&elsewhere).unwrap(), OLD_CONFIGURATION);
    sign_host.check(&["--repair"]).assert_failed("gpg-agent.conf", "is a symbolic link", "printf ");
    sign_host.run_remedy("failed", "gpg-agent.conf");
    assert_eq!(fs::read_to_string(&elsewhere).unwrap(), format!("{OLD_CONFIGURATION}\n{WANTED}"));
    assert!(fs::symlink_metadata(&conf).unwrap().is_symlink());
    sign_host.assert_well(&[]);
}

impl SignHost {
    /// Runs the remedy of a finding, exactly as printed, in a shell.
    fn run_remedy(&self, level: &str, subject: &str) {
        let found = self.check(&[]);
        let line = found.line(level, subject, "").unwrap_or_else(|| panic!("{found:#?}"));
        let done = Command::new("sh").arg("-c").arg(line["remedy"].as_str().unwrap()).output();
        let done = done.unwrap();
        assert!(done.status.success(), "{line}: {}", String::from_utf8_lossy(&done.stderr));
    }
}

#[test]
fn check_names_a_configuration_that_lacks_something_and_an_agent_that_has_not_read_it() {
    let sign_host = SignHost::with_key_of(4096);
    let _end = EndAgent(sign_host.path("gnupg"));
    let conf = sign_host.configuration();
    fs::write(&conf, OLD_CONFIGURATION).unwrap();
    let failed = sign_host.sign_at_once().unwrap_err();
    assert!(failed.contains("Cannot allocate memory"), "{failed}");

    sign_host.check(&[]).assert_failed("gpg-agent.conf", "auto-expand-secmem", "check --repair");
    let repaired = sign_host.check(&["--repair"]);
    assert!(repaired.has("repaired", "gpg-agent.conf", "auto-expand-secmem"), "{repaired:#?}");
    // An agent applies this option only when it starts, not on SIGHUP. So `check` reports it until a new
    // agent runs.
    let mut reload = sign_host.command(Path::new("gpgconf"));
    reload.arg("--homedir").arg(sign_host.path("gnupg")).args(["--reload", "gpg-agent"]);
    assert!(reload.status().unwrap().success());
    let found = sign_host.check(&[]);
    let agent = found.line("warning", "S.gpg-agent", "started before gpg-agent.conf was changed");
    let remedy = agent.unwrap_or_else(|| panic!("{found:#?}"))["remedy"].as_str().unwrap();
    assert!(remedy.starts_with("kill "), "{remedy}");
    sign_host.run_remedy("warning", "S.gpg-agent");
    eventually("the agent to end", || {
        let found = sign_host.check(&[]);
        (!found.has("warning", "S.gpg-agent", "")).then_some(())
    });
    sign_host.sign_at_once().unwrap();
    sign_host.assert_well(&[]);

    fs::remove_file(&conf).unwrap();
    sign_host.check(&[]).assert_failed("gpg-agent.conf", "is missing", "check --repair");
    assert!(sign_host.check(&["--repair"]).has("repaired", "gpg-agent.conf", "is missing"));
    // A directory or FIFO in place of the file must not make `check` block.
    fs::remove_file(&conf).unwrap();
    fs::create_dir(&conf).unwrap();
    sign_host.check(&["--repair"]).assert_failed("gpg-agent.conf", "not a regular file", "mv ");
    fs::remove_dir(&conf).unwrap();
    mkfifo(&conf, Mode::S_IRUSR | Mode::S_IWUSR).unwrap();
    sign_host.check(&["--repair"]).assert_failed("gpg-agent.conf", "not a regular file", "mv ");
    fs::remove_file(&conf).unwrap();
    fs::remove_file(sign_host.path("gnupg/pubring.kbx")).unwrap();
    let found = sign_host.check(&[]);
    assert!(found.has("warning", "gnupg/pubring.kbx", "is missing"), "{found:#?}");
    sign_host.check(&["--repair"]);
    sign_host.check(&["--repair"]).assert_nothing_repaired();
}

impl super::check_host::Found {
    fn assert_nothing_repaired(&self) {
        assert!(!self.has("repaired", "", "") && !self.has("failed", "", ""), "{self:#?}");
    }
}

/// A stand-in for signd in the sandbox of its unit. The whole state is read-only except for the directory
/// that is named gnupg/ at startup. For each line it reads it looks up a key there, as signd does.
struct Sandbox(Child);

impl Sandbox {
    fn start(sign_host: &SignHost) -> Self {
        let script = r#"mount --bind "$1" "$1" && mount --bind "$1/gnupg" "$1/gnupg" &&
            mount -o remount,bind,ro "$1" && echo $$ >"$2" && echo ready || exit 1
            while read -r line; do "$3" --locate-key -- "$line" 2>&1; echo "status $?"; done"#;
        let mut unshare = sign_host.command(Path::new("unshare"));
        unshare.arg("--mount");
        if !nix::unistd::geteuid().is_root() {
            unshare.args(["--user", "--map-root-user"]);
        }
        let scratch = sign_host.host.scratch();
        // sh writes nothing but the pidfile, and that lies outside of the state.
        unshare.args(["sh", "-c", script, "signd"]).arg(sign_host.host.state());
        unshare.arg(scratch.join("signd.pid")).arg(scratch.join("gpg-copr"));
        unshare.env("GNUPGHOME", sign_host.path("gnupg"));
        let child = unshare.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut sandbox = Self(child);
        assert_eq!(sandbox.lines("ready"), "ready\n", "this needs mount namespaces");
        sandbox
    }

    fn lines(&mut self, last: &str) -> String {
        let mut text = String::new();
        let mut out = BufReader::new(self.0.stdout.as_mut().unwrap());
        while !text.lines().any(|line| line.starts_with(last)) {
            if out.read_line(&mut text).unwrap() == 0 {
                break;
            }
        }
        text
    }

    fn look_up(&mut self, id: &str) -> String {
        writeln!(self.0.stdin.as_mut().unwrap(), "{id}").unwrap();
        self.lines("status ")
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

#[test]
fn a_gnupg_that_was_moved_away_from_a_running_signd_is_seen() {
    let sign_host = SignHost::with_key_of(2048);
    let mut signd = Sandbox::start(&sign_host);
    sign_host.assert_well(&[]);
    assert!(signd.look_up(ID).ends_with("status 0\n"));

    fs::rename(sign_host.path("gnupg"), sign_host.path("gnupg.aside")).unwrap();
    let told = signd.look_up(ID);
    assert!(told.contains("gnupg: no gpg-agent runs there and none can be started"), "{told}");
    sign_host.check(&["--repair"]);
    let told = signd.look_up(ID);
    assert!(told.contains("Read-only file system") && told.ends_with("status 1\n"), "{told}");
    assert!(told.contains("systemctl restart signd"), "{told}");
    let pid = format!("signd (process {}) cannot write", signd.0.id());
    sign_host.check(&["--repair"]).assert_failed("gnupg", &pid, "start it again");

    drop(signd);
    let mut signd = Sandbox::start(&sign_host);
    assert!(signd.look_up(ID).ends_with("status 0\n"));
    sign_host.assert_well(&[]);
}

#[test]
fn a_signd_that_runs_as_another_user_is_named() {
    if !nix::unistd::geteuid().is_root() {
        return; // only root can become another user
    }
    let sign_host = SignHost::with_key_of(2048);
    let mut signd = as_stranger();
    signd.args(["sh", "-c", "echo ready; read -r line", "signd"]);
    let child = signd.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut signd = Sandbox(child);
    assert_eq!(signd.lines("ready"), "ready\n");
    let pid = signd.0.id();
    fs::write(sign_host.host.scratch().join("signd.pid"), pid.to_string()).unwrap();
    let words = format!("signd (process {pid}) runs as uid 12345, not as root");
    sign_host.check(&[]).assert_failed("gnupg", &words, "start it again");
    drop(signd);
    sign_host.assert_well(&[]);
    // Another process has got the number of a signd that has ended.
    let mut other = as_stranger();
    other.args(["sh", "-c", "echo ready; read -r line", "/x/copr-keygen-signd"]);
    let child = other.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut other = Sandbox(child);
    assert_eq!(other.lines("ready"), "ready\n");
    let pidfile = sign_host.host.scratch().join("signd.pid");
    fs::write(&pidfile, other.0.id().to_string()).unwrap();
    sign_host.assert_well(&[]);
    // Nobody writes to this pipe.
    fs::remove_file(&pidfile).unwrap();
    nix::unistd::mkfifo(&pidfile, nix::sys::stat::Mode::S_IRWXU).unwrap();
    sign_host.assert_well(&[]);
}
