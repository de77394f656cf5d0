//! A sign host for tests of `check`: with gpg-copr, sign.conf and a listener in place of signd.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

use serde_json::{Value, json};

use super::certificate::assert_signs;
use super::host::{Host, Transport};
use super::signing::signd_client;

pub const ID: &str = "user#project@copr.example.org";
pub const OTHER: &str = "@group#other@copr.example.org";

/// A sign host with everything that belongs to it: gpg-copr, sign.conf and a listener in place of signd.
pub struct SignHost {
    pub host: Host,
    pub environment: Vec<(String, String)>,
    pub signd: Option<SigndStandIn>,
    /// The binary that runs `check`.
    pub program: PathBuf,
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

    pub fn around(host: Host) -> Self {
        symlink(env!("CARGO_BIN_EXE_copr-keygen"), host.scratch().join("gpg-copr")).unwrap();
        let signd = SigndStandIn::start();
        let port = signd.port;
        let program = env!("CARGO_BIN_EXE_copr-keygen").into();
        let sign_host = Self { host, environment: Vec::new(), signd: Some(signd), program };
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

    pub fn sign_conf(&self) -> PathBuf {
        self.host.scratch().join("sign.conf")
    }

    pub fn set(&mut self, name: &str, value: &str) {
        self.environment.push((name.into(), value.into()));
    }

    pub fn path(&self, path: &str) -> PathBuf {
        self.host.state().join(path)
    }

    pub fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command.env_clear().env("PATH", "/usr/bin:/bin").env("COPR_KEYGEN_CONFIG", "/dev/null");
        command.env("COPR_KEYGEN_STATE_DIR", self.host.state());
        // From 2029 on, `check` warns about the default length.
        command.env("COPR_KEYGEN_KEY_LENGTH", "4096");
        let listen = format!("unix:{}", self.host.scratch().join("socket").display());
        command.env("COPR_KEYGEN_LISTEN", listen);
        let signd_listen = format!("unix:{}", self.host.scratch().join("signd").display());
        command.env("COPR_KEYGEN_SIGND_LISTEN", signd_listen);
        command.envs(self.environment.iter().map(|(k, v)| (k, v)));
        command
    }

    fn run(&self, arguments: &[&str]) -> Output {
        let mut command = self.command(&self.program);
        command.args(["check", "--no-units", "--sign-conf"]).arg(self.sign_conf());
        command.args(arguments).output().unwrap()
    }

    /// Runs `copr-keygen` in another mode, which must succeed.
    pub fn keygen(&self, arguments: &[&str]) {
        let mut command = self.command(&self.program);
        let output = command.args(arguments).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    /// Runs `check --json` and returns its exit status and all findings.
    pub fn check(&self, arguments: &[&str]) -> Found {
        let output = self.run(&[arguments, &["--json"]].concat());
        let words = String::from_utf8_lossy(&output.stderr).into_owned();
        let lines: Vec<Value> =
            serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {words}"));
        Found { code: output.status.code(), lines }
    }

    /// Runs the remedy of the finding with this subject and these words, exactly as printed. The remedy must
    /// be a command, and the finding must be gone afterwards.
    pub fn assert_remedy_mends(&self, subject: &str, words: &str) {
        let is_it = |line: &&Value| {
            let level = line["level"].as_str().unwrap();
            let message = line["message"].as_str().unwrap();
            ["warning", "failed"].contains(&level)
                && line["subject"].as_str().unwrap().ends_with(subject)
                && message.contains(words)
        };
        let found = self.check(&[]);
        let line = found.lines.iter().find(is_it);
        let line = line.unwrap_or_else(|| panic!("{subject}: {words}: {:#?}", found.lines));
        assert_eq!(line["is_command"], true, "{line}");
        let mut shell = self.command(Path::new("sh"));
        // The remedy calls `copr-keygen` by its name, so it has to be in PATH.
        let programs = Path::new(env!("CARGO_BIN_EXE_copr-keygen")).parent().unwrap().display();
        shell.env("PATH", format!("{programs}:/usr/bin:/bin")).arg("-ec");
        let remedy = line["remedy"].as_str().unwrap();
        let done = shell.arg(remedy).output().unwrap();
        let said = [done.stdout, done.stderr].concat();
        let said = String::from_utf8_lossy(&said);
        // `check --repair` fails if something else is still wrong.
        let may_fail = remedy.contains("copr-keygen check --repair") && said.contains("not well");
        assert!(done.status.success() || may_fail, "{line}: {said}");
        let again = self.check(&[]);
        assert_eq!(again.lines.iter().find(is_it), None, "{line}: {said}");
    }

    /// Runs `check` and returns its exit status and the page for people.
    pub fn page(&self, arguments: &[&str]) -> (Option<i32>, String) {
        let output = self.run(arguments);
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    }

    /// Asserts that `--repair` reports a repair of `subject`. Afterwards the host is well, and the key signs
    /// in its home and the way signd does it.
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

    pub fn secret_key(&self, id: &str) -> PathBuf {
        let directory = self.host.home(id).join("private-keys-v1.d");
        fs::read_dir(directory).unwrap().next().unwrap().unwrap().path()
    }

    pub fn secret_link(&self, id: &str) -> PathBuf {
        self.path("gnupg/private-keys-v1.d").join(self.secret_key(id).file_name().unwrap())
    }
}

/// A listener that answers every request as obs-signd answers a ping.
pub struct SigndStandIn {
    pub port: u16,
    ended: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl SigndStandIn {
    fn start() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let ended = Arc::<AtomicBool>::default();
        let is_over = Arc::clone(&ended);
        let serve = move || {
            for stream in listener.incoming().take_while(|_| !is_over.load(Ordering::SeqCst)) {
                // Some clients only test whether anything listens here, and send nothing.
                let mut stream = stream.unwrap();
                if stream.read_exact(&mut [0; 4]).and_then(|()| stream.write_all(&[0; 6])).is_ok() {
                    let _ = stream.shutdown(Shutdown::Write);
                    let _ = io::copy(&mut stream, &mut io::sink());
                }
            }
        };
        Self { port, ended, thread: Some(thread::spawn(serve)) }
    }
}

impl Drop for SigndStandIn {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::SeqCst);
        drop(TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)));
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

/// The findings of `check --json`.
#[derive(Debug)]
pub struct Found {
    pub code: Option<i32>,
    pub lines: Vec<Value>,
}

impl Found {
    /// Whether there is a line of this level whose subject ends with `subject` and whose message contains
    /// `words`.
    pub fn has(&self, level: &str, subject: &str, words: &str) -> bool {
        self.line(level, subject, words).is_some()
    }

    pub fn line(&self, level: &str, subject: &str, words: &str) -> Option<&Value> {
        self.lines.iter().find(|line| {
            line["level"] == level
                && line["subject"].as_str().unwrap().ends_with(subject)
                && line["message"].as_str().unwrap().contains(words)
        })
    }

    /// Asserts that the check failed, and that this line has the level `failed` and a remedy that contains
    /// `remedy`.
    pub fn assert_failed(&self, subject: &str, words: &str, remedy: &str) {
        let line = self.line("failed", subject, words);
        let line = line.unwrap_or_else(|| panic!("{subject}: {words}: {:#?}", self.lines));
        assert!(line["remedy"].as_str().unwrap().contains(remedy), "{line}");
        assert_eq!(self.code, Some(1));
    }
}

/// Describes every file below a directory: its mode, owner, inode and content.
pub fn snapshot(directory: &Path) -> BTreeMap<PathBuf, String> {
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
