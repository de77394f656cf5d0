//! One call of gpg in a home of staging, with or without an agent of its own, and what became of it.

use std::ffi::OsString;
use std::os::fd::BorrowedFd;
use std::path::Path;
use std::time::{Duration, Instant};

use zeroize::Zeroizing;

use super::Gpg;
use super::agent::S2K_COUNT;
use super::status::Status;
use crate::error::{Error, Place, Result, Shortage};
use crate::process::{self, End, Finished, Job};
use crate::text::printable;

/// Options of every gpg here: no question, no agent it would start itself, no trust database.
const ALWAYS: [&str; 5] =
    ["--batch", "--no-tty", "--no-autostart", "--no-auto-check-trustdb", "--trust-model=always"];

/// Options under which gpg takes the first line of its standard input for the passphrase. It reads that
/// line byte by byte, so whatever comes behind it is still there for the command.
pub(super) const PASSPHRASE_ON_STDIN: [&str; 2] = ["--pinentry-mode=loopback", "--passphrase-fd=0"];

/// Standard input for [`PASSPHRASE_ON_STDIN`]: the passphrase, and what the command reads.
pub(super) fn passphrase_and(passphrase: &[u8], rest: &[u8]) -> Zeroizing<Vec<u8>> {
    // Never grown, which would leave a copy behind.
    let mut stdin = Zeroizing::new(Vec::with_capacity(passphrase.len() + 1 + rest.len()));
    stdin.extend_from_slice(passphrase);
    stdin.push(b'\n');
    stdin.extend_from_slice(rest);
    stdin
}

/// How long gpgconf may take.
const GPGCONF_TIME: Duration = Duration::from_secs(2);

/// What gpg is to do.
pub struct Call<'a> {
    /// Its home; `--homedir`.
    pub home: &'a Path,
    /// Options and the command.
    pub arguments: Vec<OsString>,
    /// At most 4096 bytes.
    pub stdin: &'a [u8],
    /// The setting `gpg_timeout` counts as well.
    pub deadline: Instant,
}

/// What a gpg said that did what it was asked to do.
#[derive(Debug)]
pub struct Output {
    /// Status lines, and whatever the command prints.
    pub stdout: Vec<u8>,
    /// Its words on stderr, in one printable line.
    pub words: String,
}

impl Gpg {
    /// Runs gpg without an agent: for what needs no secret key.
    pub(super) fn run(&self, mut call: Call) -> Result<(Finished, Duration)> {
        call.arguments.insert(0, "--status-fd=1".into());
        self.run_silent(call)
    }

    /// As [`Gpg::run`], without status lines: for what prints something itself.
    pub(super) fn run_silent(&self, call: Call) -> Result<(Finished, Duration)> {
        let mut arguments = gpg_arguments(call.home);
        arguments.extend(call.arguments.iter().cloned());
        self.run_program(&self.gpg, arguments, &call, None)
    }

    /// Runs gpg with an agent of its own, which is gone afterwards.
    pub(super) fn run_with_agent(&self, call: Call) -> Result<(Finished, Duration)> {
        self.run_program(&self.agent, self.agent_arguments(&call)?, &call, None)
    }

    /// As [`Gpg::run_with_agent`], at idle priority, without regard to `gpg_timeout`, and ended as
    /// soon as `stop` becomes readable.
    pub(super) fn run_in_background(
        &self,
        call: Call,
        stop: BorrowedFd,
    ) -> Result<(Finished, Duration)> {
        self.run_program(&self.agent, self.agent_arguments(&call)?, &call, Some(stop))
    }

    /// gpg-agent makes its sockets, turns gpg into its own parent and watches it; both are in one
    /// process group. So the agent needs no polling to start and cannot outlive the group. Its
    /// passphrases are 256 random bits: stretching them (`--s2k-count`) would add time and nothing
    /// else. It need not watch its socket and its home either: the kernel takes some 15 ms to end
    /// a process that has watched files (inotify), and each agent here is waited for.
    fn agent_arguments(&self, call: &Call) -> Result<Vec<OsString>> {
        self.check_installed()?;
        let mut arguments = vec!["--homedir".into(), call.home.into()];
        arguments.extend(
            ["--no-detach", "--quiet", "--s2k-count", S2K_COUNT, "--disable-scdaemon"]
                .map(Into::into),
        );
        arguments.extend(["--extra-socket=none", "--browser-socket=none"].map(Into::into));
        arguments.push("--disable-check-own-socket".into());
        arguments.extend(["--daemon".into(), "--".into(), self.gpg.clone().into()]);
        arguments.extend(gpg_arguments(call.home));
        arguments.push("--status-fd=1".into());
        arguments.extend(call.arguments.iter().cloned());
        Ok(arguments)
    }

    fn run_program(
        &self,
        program: &Path,
        arguments: Vec<OsString>,
        call: &Call,
        background: Option<BorrowedFd>,
    ) -> Result<(Finished, Duration)> {
        let started = Instant::now();
        let deadline = match background {
            Some(_) => call.deadline,
            None => call.deadline.min(started + self.timeout),
        };
        let job = Job { program, arguments, stdin: call.stdin, deadline, background };
        let result =
            process::run(&job).map_err(|e| Error::io(format!("running {}", program.display()), e));
        if program == self.agent {
            self.remove_socket_directory(call.home, deadline);
        }
        Ok((result?, started.elapsed()))
    }

    /// For a user who is logged in, gpg binds the sockets of a home in a directory of their own
    /// below `/run/user/<uid>/gnupg`, which would stay for ever. A system user has none of this.
    fn remove_socket_directory(&self, home: &Path, deadline: Instant) {
        if !Path::new("/run/user").join(nix::unistd::geteuid().to_string()).is_dir() {
            return;
        }
        let now = Instant::now();
        // Whoever waits for this call is still to have an answer in time.
        let most = (now + GPGCONF_TIME).min(deadline.max(now) + Duration::from_millis(250));
        self.run_gpgconf(home, &["--remove-socketdir"], most);
    }

    /// Ends the agent of a home that is not in staging, if one runs there.
    pub fn end_agent(&self, home: &Path) {
        self.run_gpgconf(home, &["--kill", "gpg-agent"], Instant::now() + GPGCONF_TIME);
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

pub(super) fn gpg_arguments(home: &Path) -> Vec<OsString> {
    let mut arguments: Vec<OsString> = vec!["--homedir".into(), home.into()];
    arguments.extend(ALWAYS.map(Into::into));
    arguments
}

/// What it said, if it ended with exit status 0. `doing` is for a file system that was full: that of
/// the state directory, as gpg works in staging.
pub fn succeeded(finished: Finished, took: Duration, doing: &str) -> Result<Output> {
    succeeded_at(Place::State, finished, took, doing)
}

/// As [`succeeded`], for a gpg that writes to `place`.
pub fn succeeded_at(
    place: Place,
    finished: Finished,
    took: Duration,
    doing: &str,
) -> Result<Output> {
    let words = one_line(&finished.stderr);
    let failed = |how: String| Err(Error::Failed { how, words: words.clone() });
    match finished.end {
        None => return Err(Error::TimedOut { after: took, words }),
        Some(End::Exited(0)) => {}
        Some(end) => {
            if let Some(shortage) = Status::parse(&finished.stdout).shortage.or(named(&words)) {
                return Err(Error::NoSpace { doing: doing.into(), place, shortage });
            }
            return match end {
                End::Exited(code) => failed(format!("exit status {code}")),
                End::Killed(signal) => failed(format!("killed by {signal}")),
            };
        }
    }
    Ok(Output { stdout: finished.stdout, words })
}

/// What there was too little of, by the words of strerror(3) among gpg's own.
fn named(words: &str) -> Option<Shortage> {
    let named = |text, shortage| words.contains(text).then_some(shortage);
    named("No space left on device", Shortage::Space)
        .or(named("Disk quota exceeded", Shortage::Quota))
}

/// gpg's words in one line that a terminal and a log can take, from at most 2,000 bytes.
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
