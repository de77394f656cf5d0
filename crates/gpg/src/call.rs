//! One run of gpg: its command line, its standard streams and its time limit, with or without an agent of its
//! own. Every gpg command line of this crate except `--version` is built here.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use zeroize::Zeroizing;

use crate::agent::S2K_COUNT;
use crate::error::{Error, FullDisk, Result, Shortage};
use crate::feed::Feed;
use crate::process::{self, End, Finished, Job};
use crate::programs::{Gpg, check_program};
use crate::status::Status;
use crate::text::printable;

/// Options of every gpg. It asks no questions, starts no agent by itself and needs no trust database. Its
/// signatures do not expire, whatever `/etc/gnupg/gpg.conf` says.
const ALWAYS: [&str; 6] = [
    "--batch",
    "--no-tty",
    "--no-autostart",
    "--no-auto-check-trustdb",
    "--trust-model=always",
    "--default-sig-expire=0",
];

/// Makes gpg print status lines on its standard output. A gpg with an agent of its own always gets this option.
pub(crate) const STATUS: &str = "--status-fd=1";

/// Options of a listing for [`crate::listing::parse`].
pub(crate) const LISTING: [&str; 3] = ["--with-colons", "--with-keygrip", "--fixed-list-mode"];

/// Options of every agent that is started here.
///
/// Passphrases are 256 random bits, so stretching them (`--s2k-count`) would cost time and add no security. The
/// agent does not watch its socket or its home. The kernel takes some 15 ms to end a process that watches files
/// (inotify), and every run waits for its agent to end. gpg passes the passphrase on, whatever
/// `/etc/gnupg/gpg-agent.conf` says.
const AGENT: [&str; 9] = [
    "--no-detach",
    "--quiet",
    "--s2k-count",
    S2K_COUNT,
    "--disable-scdaemon",
    "--extra-socket=none",
    "--browser-socket=none",
    "--disable-check-own-socket",
    "--allow-loopback-pinentry",
];

/// How long gpgconf may take.
const GPGCONF_TIME: Duration = Duration::from_secs(2);

/// A keyring, and the GnuPG home that gpg uses to read it.
#[derive(Clone, Copy, Debug)]
pub struct Keyring<'a> {
    /// A GnuPG home. Reading the keyring writes nothing to it.
    pub home: &'a Path,
    /// The file with the public keys.
    pub file: &'a Path,
}

/// A run of gpg in a staging home that is being prepared.
pub(crate) struct GpgCall<'a> {
    gpg: &'a Gpg,
    pub(crate) home: &'a Path,
    arguments: Vec<OsString>,
    input: Zeroizing<Vec<u8>>,
    stdin: Stdio,
    stdout: Stdio,
    deadline: Instant,
    stop: Option<BorrowedFd<'a>>,
}

/// The output of a gpg that exited with status 0.
#[derive(Debug)]
pub(crate) struct Output {
    /// Its standard output: status lines, and the output of the command.
    pub(crate) stdout: Vec<u8>,
    /// Its messages on standard error, as one printable line.
    pub(crate) words: String,
}

impl Gpg {
    /// Prepares a run of gpg in `home`. It ends by `deadline`, and after `gpg_timeout` (a setting) at the
    /// latest.
    pub(crate) fn call<'a>(&'a self, home: &'a Path, deadline: Instant) -> GpgCall<'a> {
        self.long_call(home, deadline.min(Instant::now() + self.timeout))
    }

    /// As [`Gpg::call`], but not limited by `gpg_timeout`, which is meant for work on one key.
    pub(crate) fn long_call<'a>(&'a self, home: &'a Path, deadline: Instant) -> GpgCall<'a> {
        GpgCall {
            gpg: self,
            home,
            arguments: vec!["--homedir".into(), home.into()],
            input: Zeroizing::default(),
            stdin: Stdio::piped(),
            stdout: Stdio::piped(),
            deadline,
            stop: None,
        }
        .words(ALWAYS)
    }

    /// Ends the agent of a home outside of staging, if one is running.
    pub fn end_agent(&self, home: &Path) {
        self.run_gpgconf(home, &["--kill", "gpg-agent"], Instant::now() + GPGCONF_TIME);
    }

    /// Removes the directory below `/run/user/<uid>/gnupg` in which gpg binds the sockets of a home for a user
    /// who is logged in. It would stay for ever. For a system user, gpg makes no such directory.
    fn remove_socket_directory(&self, home: &Path, deadline: Instant) {
        if !Path::new("/run/user").join(nix::unistd::geteuid().to_string()).is_dir() {
            return;
        }
        let now = Instant::now();
        // The caller must still be able to answer its client in time.
        let most = (now + GPGCONF_TIME).min(deadline.max(now) + Duration::from_millis(250));
        self.run_gpgconf(home, &["--remove-socketdir"], most);
    }

    fn run_gpgconf(&self, home: &Path, words: &[&str], deadline: Instant) {
        let mut arguments = vec!["--homedir".into(), home.into()];
        arguments.extend(words.iter().map(Into::into));
        let program = &self.gpg.with_file_name("gpgconf");
        let job = Job { program, arguments, stdin: b"", deadline, background: None };
        if let Err(e) = process::run(&job) {
            log::debug!("gpgconf {}: {}: {e}", words.join(" "), home.display());
        }
    }
}

impl<'a> GpgCall<'a> {
    /// Adds options, a command or its arguments.
    pub(crate) fn words<W: Into<OsString>>(mut self, words: impl IntoIterator<Item = W>) -> Self {
        self.arguments.extend(words.into_iter().map(Into::into));
        self
    }

    /// Adds the operand of the command. It is never taken for an option, even if it begins with a hyphen.
    pub(crate) fn on(self, what: impl Into<OsString>) -> Self {
        self.words(["--".into(), what.into()])
    }

    /// Reads certificates from `keyring` and leaves no file beside it. gpg ignores the keyring's cached results
    /// of signature checks.
    pub(crate) fn reading(self, keyring: Keyring) -> Self {
        self.words(["--no-options", "--lock-never", "--no-sig-cache", "--no-default-keyring"])
            .words(["--keyring".into(), keyring.file.as_os_str().to_owned()])
    }

    /// Makes gpg take `time` (Unix time) for the current time. The "!" stops that clock, however long gpg runs.
    pub(crate) fn at(self, time: Option<u64>) -> Self {
        self.words(time.map(|at| format!("--faked-system-time={at}!")))
    }

    /// Gives gpg the passphrase in the first line of standard input. gpg reads that line byte by byte, so
    /// `rest` is left for the command.
    pub(crate) fn passphrase(self, passphrase: &[u8], rest: &[u8]) -> Self {
        self.words(["--pinentry-mode=loopback", "--passphrase-fd=0"])
            .input(&[passphrase, b"\n", rest])
    }

    /// Sets the bytes that are written to standard input: these pieces, at most 4096 bytes in all.
    pub(crate) fn input(mut self, pieces: &[&[u8]]) -> Self {
        // Allocated at full size: a vector that grows leaves copies of the secret behind.
        let mut input = Vec::with_capacity(pieces.iter().map(|piece| piece.len()).sum());
        pieces.iter().for_each(|piece| input.extend_from_slice(piece));
        self.input = Zeroizing::new(input);
        self
    }

    /// Gives gpg `file` as its standard input.
    pub(crate) fn stdin_from(mut self, file: File) -> Self {
        self.stdin = file.into();
        self
    }

    /// Gives gpg `file` as its standard output.
    pub(crate) fn stdout_to(mut self, file: File) -> Self {
        self.stdout = file.into();
        self
    }

    /// Runs gpg at idle priority and kills it when `stop` becomes readable.
    pub(crate) fn in_background_until(mut self, stop: BorrowedFd<'a>) -> Self {
        self.stop = Some(stop);
        self
    }

    /// Starts gpg without an agent. The caller feeds its standard input. gpg is killed if it makes no progress
    /// for `patience`.
    pub(crate) fn start(self, stdout: Stdio, patience: Duration) -> Result<Feed> {
        let program = &self.gpg.gpg;
        let mut command = process::command(program, false);
        command.args(&self.arguments).stdout(stdout);
        Feed::start(command, patience).map_err(|e| not_run(program, e))
    }

    /// Runs gpg without an agent of its own.
    pub(crate) fn run(self) -> Result<Finished> {
        let program = &self.gpg.gpg;
        self.run_program(program)
    }

    /// Runs gpg with an agent of its own, which has ended when this returns.
    pub(crate) fn run_with_agent(mut self) -> Result<Finished> {
        // After `--homedir` and its value, which always come first, and before any command.
        self.arguments.insert(2, STATUS.into());
        let gpg = self.gpg.gpg.clone();
        self.run_below_agent(gpg)
    }

    /// Runs gpg-connect-agent with an agent of its own, which has ended when this returns. Standard input holds
    /// the commands for gpg-connect-agent.
    pub(crate) fn talk_to_agent(mut self) -> Result<Finished> {
        self.arguments = vec!["--homedir".into(), self.home.into(), "--no-autostart".into()];
        let client = self.gpg.gpg.with_file_name("gpg-connect-agent");
        check_program(&client, "gpg")?;
        self.run_below_agent(client)
    }

    /// Runs `program` with an agent. gpg-agent makes its sockets, forks, and then executes the program in the
    /// parent process; the agent watches that process. Both are in one process group. So nobody has to poll
    /// until the agent is up, and the agent cannot outlive the group.
    fn run_below_agent(mut self, program: PathBuf) -> Result<Finished> {
        let Self { gpg, home, deadline, .. } = self;
        gpg.check_installed()?;
        let mut arguments = vec!["--homedir".into(), home.into()];
        arguments.extend(AGENT.map(Into::into));
        arguments.extend(["--daemon".into(), "--".into(), program.into()]);
        arguments.append(&mut self.arguments);
        self.arguments = arguments;
        let finished = self.run_program(&gpg.agent);
        gpg.remove_socket_directory(home, deadline);
        finished
    }

    fn run_program(self, program: &Path) -> Result<Finished> {
        let (stdin, deadline) = (&self.input[..], self.deadline);
        let job =
            Job { program, arguments: self.arguments, stdin, deadline, background: self.stop };
        process::run_with(&job, self.stdin, self.stdout).map_err(|e| not_run(program, e))
    }
}

fn not_run(program: &Path, error: io::Error) -> Error {
    Error::io(format!("running {}", program.display()), error)
}

impl Finished {
    /// Returns the output of gpg if it exited with status 0. If gpg ran out of disk space, [`Error::NoSpace`]
    /// names the task `doing` and the file system of the state directory, where gpg works in staging.
    pub(crate) fn succeeded(self, doing: &str) -> Result<Output> {
        self.succeeded_on(FullDisk::State, doing)
    }

    /// As [`Finished::succeeded`], for a gpg that writes to `disk`.
    pub(crate) fn succeeded_on(self, disk: FullDisk, doing: &str) -> Result<Output> {
        let words = one_line(&self.stderr);
        let how = match self.end {
            None => return Err(Error::TimedOut { after: self.took, words }),
            Some(End::Exited(0)) => return Ok(Output { stdout: self.stdout, words }),
            Some(End::Exited(code)) => format!("exit status {code}"),
            Some(End::Killed(signal)) => format!("killed by {signal}"),
        };
        match Status::parse(&self.stdout).shortage.or(named_shortage(&words)) {
            Some(shortage) => Err(Error::NoSpace { doing: doing.into(), disk, shortage }),
            None => Err(Error::Failed { how, words }),
        }
    }
}

/// Returns the shortage of space that gpg's messages report, in the words of strerror(3).
fn named_shortage(words: &str) -> Option<Shortage> {
    let named = |text, shortage| words.contains(text).then_some(shortage);
    named("No space left on device", Shortage::Space)
        .or(named("Disk quota exceeded", Shortage::Quota))
}

/// Returns the first 2,000 bytes of gpg's messages as one printable line.
fn one_line(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(&bytes[..bytes.len().min(2000)]);
    let lines: Vec<_> = text.lines().map(|line| printable(line.trim())).collect();
    match lines.join("; ") {
        words if words.is_empty() => "it said nothing".into(),
        words => words,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_one_short_printable_line() {
        assert_eq!(
            one_line(b"gpg: a\x1b[31m\ngpg: b\xff\r\n"),
            "gpg: a\\u{1b}[31m; gpg: b\u{fffd}"
        );
        assert!(one_line(&[b'x'; 5000]).len() <= 2000);
        assert_eq!(one_line(b""), "it said nothing");
    }
}
