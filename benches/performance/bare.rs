//! Bare gpg, the baseline: called as by hand, in a fresh home, with nothing around it.

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

/// The option for a low S2K count: a passphrase of 256 random bits needs no stretching.
pub const S2K: &str = "--s2k-count=65536";

/// The number of lines of stderr that an error shows.
const WORDS: usize = 8;

/// An empty directory for a GnuPG home. When dropped, an agent that gpg started in it is
/// ended, and the directory is removed.
#[derive(Debug)]
pub struct Scratch(TempDir);

impl Scratch {
    pub fn new(below: &Path) -> Result<Self> {
        let mut builder = tempfile::Builder::new();
        // gpg warns about a home that others can read.
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

/// Ends the agent of a home, if one runs, and removes its socket directory, which is below `/run/user` for
/// users who are logged in.
pub fn end_agent(home: &Path) {
    for ending in [&["--kill", "gpg-agent"][..], &["--remove-socketdir"]] {
        let mut command = Command::new("gpgconf");
        command.arg("--homedir").arg(home).args(ending);
        // Fails if there is no agent or no socket directory.
        let _ = command.stdout(Stdio::null()).stderr(Stdio::null()).status();
    }
}

/// How gpg gets its agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Agent {
    /// gpg runs under the agent: `gpg-agent --daemon -- gpg`.
    Daemon,
    /// gpg starts its agent itself.
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

    /// Returns a gpg command on `home` that gets its agent in this way.
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

/// Returns a gpg command on `home`.
pub fn gpg(home: &Path) -> Command {
    let mut command = Command::new("gpg");
    command.arg("--homedir").arg(home).args(OPTIONS);
    command
}

/// Runs a command to its end and kills what it leaves in its process group. Returns its stdout.
pub fn run(command: &mut Command, stdin: &[u8]) -> Result<Vec<u8>> {
    Ok(run_loudly(command, stdin)?.0)
}

/// Runs a command like [`run`]. Returns its stdout and its last lines on stderr; if it
/// fails, those lines are the error.
pub fn run_loudly(command: &mut Command, stdin: &[u8]) -> Result<(Vec<u8>, String)> {
    let (mut child, words) = start(command, Stdio::piped())?;
    let mut input = child.0.stdin.take().ok_or("no pipe")?;
    let stdin = stdin.to_vec();
    // Write in a thread: gpg may print before it has read all of its input.
    let writer = std::thread::spawn(move || input.write_all(&stdin));
    let mut output = Vec::new();
    let mut printed = child.0.stdout.take().ok_or("no pipe")?;
    // Wait for gpg, not for the end of the pipe: an agent may hold it open.
    let reader = std::thread::spawn(move || printed.read_to_end(&mut output).map(|_| output));
    let status = child.0.wait()?;
    drop(child);
    let _ = writer.join(); // a broken pipe shows in the exit status
    let output = reader.join().map_err(|_| "a thread panicked")??;
    Ok((output, judge(command, status, words)?))
}

/// Starts a command in a process group of its own. Also returns the file that its stderr goes to. A pipe
/// would not end before an agent that holds it, and nobody needs to read stderr meanwhile.
fn start(command: &mut Command, stdout: Stdio) -> Result<(Group, File)> {
    let words = tempfile::tempfile()?;
    command.env("LC_ALL", "C.UTF-8").process_group(0);
    command.stdin(Stdio::piped()).stdout(stdout).stderr(words.try_clone()?);
    let child = command.spawn().map_err(|e| format!("{command:?}: {e}"))?;
    Ok((Group(child), words))
}

/// Returns the last lines on stderr of a command that succeeded. Fails with those lines if it failed.
fn judge(command: &Command, status: ExitStatus, mut words: File) -> Result<String> {
    let mut all = Vec::new();
    words.rewind()?;
    words.read_to_end(&mut all)?;
    let all = String::from_utf8_lossy(&all);
    let lines: Vec<_> = all.lines().collect();
    let last = lines[lines.len().saturating_sub(WORDS)..].join("\n");
    if status.success() { Ok(last) } else { Err(format!("{command:?}: {status}: {last}").into()) }
}

/// A process group that is killed when this value is dropped.
struct Group(Child);

impl Drop for Group {
    fn drop(&mut self) {
        if let Ok(pid) = i32::try_from(self.0.id()) {
            let _ = killpg(Pid::from_raw(pid), Signal::SIGKILL); // fails if the group is empty
        }
        let _ = self.0.wait();
    }
}

/// A fresh home for one key, and the batch parameters for gpg.
#[derive(Debug)]
pub struct Fresh {
    home: Scratch,
    parameters: String,
}

impl Fresh {
    /// Prepares a home for a new RSA key.
    pub fn new(scratch: &Path, bits: u16) -> Result<Self> {
        let home = Scratch::new(scratch)?;
        fs::write(home.path().join("passphrase"), passphrase() + "\n")?;
        let parameters = parameters(&format!("Key-Length: {bits}"));
        Self { home, parameters }.configured()
    }

    /// Prepares a home for a certificate of the secret key in `entry`, a directory of the pool.
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

    /// Writes the S2K count to gpg-agent.conf, where an agent that gpg starts reads it.
    fn configured(self) -> Result<Self> {
        fs::write(self.home.path().join("gpg-agent.conf"), "s2k-count 65536\ndisable-scdaemon\n")?;
        Ok(self)
    }

    /// Makes the key. Returns how long gpg took, in milliseconds.
    pub fn generate(&self, agent: Agent) -> Result<f64> {
        let home = self.home.path();
        let mut command = agent.gpg(home, S2K);
        command.args(["--pinentry-mode=loopback", "--passphrase-file"]);
        command.arg(home.join("passphrase")).arg("--gen-key");
        timed(|| quiet(&mut command, self.parameters.as_bytes()))
    }
}

/// Runs gpg and discards its stdout. Waits for gpg, not for its agent, and kills what is
/// left of its process group.
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

/// Returns a passphrase of 64 random hexadecimal digits.
pub fn passphrase() -> String {
    (0..4).map(|_| format!("{:016x}", rand::random::<u64>())).collect()
}

/// Returns the batch parameters of the old service: an RSA-2048 key without a passphrase.
pub fn unprotected(owner: &str) -> String {
    format!(
        "%no-protection\nKey-Type: RSA\nKey-Length: 2048\nExpire-Date: 0\nName-Real: {owner}\n\
         Name-Email: {owner}#project@copr.example.org\n%commit\n"
    )
}
