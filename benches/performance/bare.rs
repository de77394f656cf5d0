//! Bare gpg, the baseline: as it would be called by hand, in a fresh home, with nothing around it.

use std::fs::{self, File, Permissions};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tempfile::TempDir;

use crate::Result;
use crate::samples::timed;
use crate::state::private_directory;

/// A passphrase of 256 random bits needs no stretching.
pub const S2K: &str = "--s2k-count=65536";

/// Lines of stderr that an error shows.
const WORDS: usize = 8;

/// An empty directory that is gone when dropped; its agent, if one was started by itself, is ended.
#[derive(Debug)]
pub struct Scratch(TempDir);

impl Scratch {
    pub fn new(below: &Path) -> Result<Self> {
        let mut builder = tempfile::Builder::new();
        // gpg warns of a home that others can look into.
        builder.prefix("g").rand_bytes(8).permissions(Permissions::from_mode(0o700));
        Ok(Self(builder.tempdir_in(below)?))
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        end_agent(self.path());
    }
}

/// Ends the agent of a home, if it has one, and removes the directory of its sockets, which users who
/// are logged in have below `/run/user`.
pub fn end_agent(home: &Path) {
    for ending in [&["--kill", "gpg-agent"][..], &["--remove-socketdir"]] {
        let mut command = Command::new("gpgconf");
        command.arg("--homedir").arg(home).args(ending);
        // Fails where there is neither.
        let _ = command.stdout(Stdio::null()).stderr(Stdio::null()).status();
    }
}

/// How gpg gets its agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Agent {
    /// `gpg-agent --daemon -- gpg`
    Daemon,
    /// gpg starts one.
    Autostart,
}

impl Agent {
    pub const ALL: [Self; 2] = [Self::Daemon, Self::Autostart];

    pub fn name(self) -> &'static str {
        match self {
            Self::Daemon => "daemon",
            Self::Autostart => "autostart",
        }
    }

    /// A gpg on `home` that has such an agent.
    pub fn gpg(self, home: &Path, s2k: &str) -> Command {
        match self {
            Self::Autostart => gpg(home),
            Self::Daemon => {
                let mut command = Command::new("gpg-agent");
                command.arg("--homedir").arg(home).args(["--no-detach", "--quiet", s2k]);
                command.args(["--disable-scdaemon", "--extra-socket=none"]);
                command.args(["--browser-socket=none", "--disable-check-own-socket"]);
                command.args(["--daemon", "--", "gpg", "--homedir"]);
                command.arg(home).args(OPTIONS).arg("--no-autostart");
                command
            }
        }
    }
}

const OPTIONS: [&str; 4] =
    ["--batch", "--no-tty", "--no-auto-check-trustdb", "--trust-model=always"];

/// gpg on `home`.
pub fn gpg(home: &Path) -> Command {
    let mut command = Command::new("gpg");
    command.arg("--homedir").arg(home).args(OPTIONS);
    command
}

/// Runs a command to its end and ends what it leaves in its process group; what it printed.
pub fn run(command: &mut Command, stdin: &[u8]) -> Result<Vec<u8>> {
    Ok(run_loudly(command, stdin)?.0)
}

/// As [`run`]; what it printed, and its last words on stderr, which are an error when it fails.
pub fn run_loudly(command: &mut Command, stdin: &[u8]) -> Result<(Vec<u8>, String)> {
    let (mut child, words) = start(command, Stdio::piped())?;
    let mut input = child.0.stdin.take().ok_or("no pipe")?;
    let stdin = stdin.to_vec();
    // Its own thread: gpg may print before it has read all.
    let writer = std::thread::spawn(move || input.write_all(&stdin));
    let mut output = Vec::new();
    let mut printed = child.0.stdout.take().ok_or("no pipe")?;
    // An agent may hold the pipe open, so its end does not tell; gpg's does.
    let reader = std::thread::spawn(move || printed.read_to_end(&mut output).map(|_| output));
    let status = child.0.wait()?;
    drop(child);
    let _ = writer.join(); // a broken pipe shows in the exit status
    let output = reader.join().map_err(|_| "a thread panicked")??;
    Ok((output, judge(command, status, words)?))
}

/// Starts a command in a process group of its own, and the file that its stderr goes to: the end of a
/// pipe would not come before that of an agent, and nobody needs to read it meanwhile.
fn start(command: &mut Command, stdout: Stdio) -> Result<(Group, File)> {
    let words = tempfile::tempfile()?;
    command.env("LC_ALL", "C.UTF-8").process_group(0);
    command.stdin(Stdio::piped()).stdout(stdout).stderr(words.try_clone()?);
    let child = command.spawn().map_err(|e| format!("{command:?}: {e}"))?;
    Ok((Group(child), words))
}

/// The last words of a command that succeeded. Those of one that failed are an error.
fn judge(command: &Command, status: ExitStatus, mut words: File) -> Result<String> {
    let mut all = Vec::new();
    words.rewind()?;
    words.read_to_end(&mut all)?;
    let all = String::from_utf8_lossy(&all);
    let lines: Vec<_> = all.lines().collect();
    let last = lines[lines.len().saturating_sub(WORDS)..].join("\n");
    if status.success() { Ok(last) } else { Err(format!("{command:?}: {status}: {last}").into()) }
}

/// A process group that ends with this value.
struct Group(Child);

impl Drop for Group {
    fn drop(&mut self) {
        if let Ok(pid) = i32::try_from(self.0.id()) {
            let _ = killpg(Pid::from_raw(pid), Signal::SIGKILL); // fails when nobody is left
        }
        let _ = self.0.wait();
    }
}

/// A fresh home for one key, and what gpg is to be told.
#[derive(Debug)]
pub struct Fresh {
    home: Scratch,
    parameters: String,
}

impl Fresh {
    /// For a new RSA key.
    pub fn new(scratch: &Path, bits: u16) -> Result<Self> {
        let home = Scratch::new(scratch)?;
        fs::write(home.path().join("passphrase"), passphrase() + "\n")?;
        let parameters = parameters(&format!("Key-Length: {bits}"));
        Self { home, parameters }.configured()
    }

    /// For a key around the secret key of `entry`, a directory of the pool.
    pub fn with_secret_key(scratch: &Path, entry: &Path) -> Result<Self> {
        let home = Scratch::new(scratch)?;
        let keygrip = entry.file_name().and_then(|name| name.to_str()).ok_or("a strange name")?;
        let key = PathBuf::from("private-keys-v1.d").join(format!("{keygrip}.key"));
        private_directory(&home.path().join("private-keys-v1.d"))?;
        for file in [Path::new("passphrase"), &key] {
            fs::copy(entry.join(file), home.path().join(file))?;
        }
        let parameters = parameters(&format!("Key-Grip: {keygrip}"));
        Self { home, parameters }.configured()
    }

    /// An agent that gpg starts reads the count from its configuration.
    fn configured(self) -> Result<Self> {
        fs::write(self.home.path().join("gpg-agent.conf"), "s2k-count 65536\ndisable-scdaemon\n")?;
        Ok(self)
    }

    /// Makes the key; how long gpg took, in milliseconds.
    pub fn generate(&self, agent: Agent) -> Result<f64> {
        let home = self.home.path();
        let mut command = agent.gpg(home, S2K);
        command.args(["--pinentry-mode=loopback", "--passphrase-file"]);
        command.arg(home.join("passphrase")).arg("--gen-key");
        timed(|| quiet(&mut command, self.parameters.as_bytes()))
    }
}

/// Runs gpg until it ends, which is not when its agent ends; that is killed where it is of its group.
pub fn quiet(command: &mut Command, stdin: &[u8]) -> Result<()> {
    let (mut child, words) = start(command, Stdio::null())?;
    let sent = child.0.stdin.take().ok_or("no pipe")?.write_all(stdin);
    let status = child.0.wait()?;
    drop(child);
    if !status.success() {
        judge(command, status, words)?;
    }
    Ok(sent?)
}

fn parameters(key: &str) -> String {
    format!(
        "Key-Type: RSA\n{key}\nKey-Usage: sign\nExpire-Date: 0\nName-Real: user_project\n\
         Name-Email: bare#project@copr.example.org\n%commit\n"
    )
}

/// 64 random hexadecimal digits.
pub fn passphrase() -> String {
    (0..4).map(|_| format!("{:016x}", rand::random::<u64>())).collect()
}

/// What the old service told gpg.
pub fn unprotected(owner: &str) -> String {
    format!(
        "%no-protection\nKey-Type: RSA\nKey-Length: 2048\nExpire-Date: 0\nName-Real: {owner}\n\
         Name-Email: {owner}#project@copr.example.org\n%commit\n"
    )
}
