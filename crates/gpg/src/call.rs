//! One call of gpg: its command line, its streams and its limits, with or without an agent of its own.
//! Every gpg of this program but `--version` gets its command line here.

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

/// Options of every gpg here: no question, no agent it would start itself, no trust database. Signatures last,
/// whatever `/etc/gnupg/gpg.conf` says.
const ALWAYS: [&str; 6] = [
    "--batch",
    "--no-tty",
    "--no-autostart",
    "--no-auto-check-trustdb",
    "--trust-model=always",
    "--default-sig-expire=0",
];

/// Has gpg print status lines among its output. A gpg with an agent always does.
pub(crate) const STATUS: &str = "--status-fd=1";

/// Options for a listing that [`crate::listing::parse`] reads in full.
pub(crate) const LISTING: [&str; 3] = ["--with-colons", "--with-keygrip", "--fixed-list-mode"];

/// Options of every agent here. Its passphrases are 256 random bits: stretching them (`--s2k-count`) would
/// add time and nothing else. It need not watch its socket and its home either: the kernel takes some 15 ms
/// to end a process that has watched files (inotify), and each agent here is waited for. Passphrases come
/// through gpg, whatever `/etc/gnupg/gpg-agent.conf` says.
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

/// Where a certificate is read from.
#[derive(Clone, Copy, Debug)]
pub struct Keyring<'a> {
    /// A GnuPG home; nothing is written there.
    pub home: &'a Path,
    /// The file with the public keys.
    pub file: &'a Path,
}

/// A gpg that is about to be run in a home of staging.
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

/// The output of a gpg that has succeeded.
#[derive(Debug)]
pub(crate) struct Output {
    /// Status lines, and the output of the command.
    pub(crate) stdout: Vec<u8>,
    /// Its messages on stderr, in one printable line.
    pub(crate) words: String,
}

impl Gpg {
    /// A call in `home` that ends by `deadline` and within the setting `gpg_timeout`.
    pub(crate) fn call<'a>(&'a self, home: &'a Path, deadline: Instant) -> GpgCall<'a> {
        self.long_call(home, deadline.min(Instant::now() + self.timeout))
    }

    /// As [`Gpg::call`], without regard to `gpg_timeout`, which is about one key.
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

    /// Ends the agent of a home that is not in staging, if one runs there.
    pub fn end_agent(&self, home: &Path) {
        self.run_gpgconf(home, &["--kill", "gpg-agent"], Instant::now() + GPGCONF_TIME);
    }

    /// For a user who is logged in, gpg binds the sockets of a home in a directory of their own
    /// below `/run/user/<uid>/gnupg`, which would stay for ever. A system user has none of this.
    fn remove_socket_directory(&self, home: &Path, deadline: Instant) {
        if !Path::new("/run/user").join(nix::unistd::geteuid().to_string()).is_dir() {
            return;
        }
        let now = Instant::now();
        // The caller must still be able to answer in time.
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

    /// Adds the object of the command: a word that is not an option, even if it begins with a hyphen.
    pub(crate) fn on(self, what: impl Into<OsString>) -> Self {
        self.words(["--".into(), what.into()])
    }

    /// Reads `keyring` without leaving a file there. Its claims that signatures were verified before are ignored.
    pub(crate) fn reading(self, keyring: Keyring) -> Self {
        self.words(["--no-options", "--lock-never", "--no-sig-cache", "--no-default-keyring"])
            .words(["--keyring".into(), keyring.file.as_os_str().to_owned()])
    }

    /// Gives gpg this Unix time in the place of now. With "!" the time stands still, however long gpg takes.
    pub(crate) fn at(self, time: Option<u64>) -> Self {
        self.words(time.map(|at| format!("--faked-system-time={at}!")))
    }

    /// Answers gpg's question for a passphrase with the first line of standard input. gpg reads that line
    /// byte by byte, so that `rest` is still there for the command.
    pub(crate) fn passphrase(self, passphrase: &[u8], rest: &[u8]) -> Self {
        self.words(["--pinentry-mode=loopback", "--passphrase-fd=0"])
            .input(&[passphrase, b"\n", rest])
    }

    /// Writes these pieces to standard input, at most 4096 bytes.
    pub(crate) fn input(mut self, pieces: &[&[u8]]) -> Self {
        // Never grown, which would leave a copy of a secret behind.
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

    /// Runs at idle priority, and no longer than until `stop` becomes readable.
    pub(crate) fn in_background_until(mut self, stop: BorrowedFd<'a>) -> Self {
        self.stop = Some(stop);
        self
    }

    /// Starts gpg without an agent, to be fed through its standard input.
    pub(crate) fn start(self, stdout: Stdio, patience: Duration) -> Result<Feed> {
        let program = &self.gpg.gpg;
        let mut command = process::command(program, false);
        command.args(&self.arguments).stdout(stdout);
        Feed::start(command, patience).map_err(|e| not_run(program, e))
    }

    /// Runs gpg without an agent, for commands that need no secret key.
    pub(crate) fn run(self) -> Result<Finished> {
        let program = &self.gpg.gpg;
        self.run_program(program)
    }

    /// Runs gpg with an agent of its own, which is gone afterwards.
    pub(crate) fn run_with_agent(mut self) -> Result<Finished> {
        // Behind the home, which is always first, and before any command.
        self.arguments.insert(2, STATUS.into());
        let gpg = self.gpg.gpg.clone();
        self.run_below_agent(gpg)
    }

    /// Talks to an agent of its own, which is gone afterwards. Standard input is for gpg-connect-agent.
    pub(crate) fn talk_to_agent(mut self) -> Result<Finished> {
        self.arguments = vec!["--homedir".into(), self.home.into(), "--no-autostart".into()];
        let client = self.gpg.gpg.with_file_name("gpg-connect-agent");
        check_program(&client, "gpg")?;
        self.run_below_agent(client)
    }

    /// Runs `program` with an agent. gpg-agent makes its sockets, turns the program into its own parent and
    /// watches it; both are in one process group. So the agent needs no polling to start and cannot outlive the
    /// group.
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
    /// The output of gpg, if it ended with exit status 0. `doing` names its task in the error for a full file
    /// system, which is that of the state directory: gpg works in staging.
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

/// The shortage that gpg's messages name in the words of strerror(3).
fn named_shortage(words: &str) -> Option<Shortage> {
    let named = |text, shortage| words.contains(text).then_some(shortage);
    named("No space left on device", Shortage::Space)
        .or(named("Disk quota exceeded", Shortage::Quota))
}

/// The first 2,000 bytes of gpg's messages as one printable line.
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
