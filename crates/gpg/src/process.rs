//! Runs one program to its end. The program has a cleared environment, a process group of its own and a
//! deadline. No process of the group is left alive afterwards. Only this module and [`group`] contain `unsafe`.

mod group;

use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{ChildStderr, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags};
use nix::sys::prctl;
use nix::sys::signal::{SigSet, Signal};
use nix::unistd::{getpid, getppid};

pub use group::{End, Group, pidfd_open, wait_readable};

/// The number of bytes that a child may print to one file descriptor. A child that prints more is considered
/// broken.
const OUTPUT_MAX: usize = 256 * 1024;

/// A program to run.
pub struct Job<'a> {
    /// The path of the program.
    pub program: &'a Path,
    /// The arguments, without the program's name.
    pub arguments: Vec<OsString>,
    /// The bytes for its standard input: at most `PIPE_BUF` (4096), so that writing them never blocks.
    pub stdin: &'a [u8],
    /// The time at which the program is killed.
    pub deadline: Instant,
    /// Makes the program run at idle priority, and kills it as soon as this file descriptor becomes readable.
    pub background: Option<BorrowedFd<'a>>,
}

/// The result of a program that has ended or was killed.
pub struct Finished {
    /// How it ended; `None` if it was killed at the deadline or because it was told to stop.
    pub end: Option<End>,
    /// Whether it was killed because [`Job::background`] became readable.
    pub stopped: bool,
    /// What it wrote to its standard output, unless that went to a file.
    pub stdout: Vec<u8>,
    /// What it wrote to its standard error, as far as it was kept.
    pub stderr: Vec<u8>,
    /// How long it ran.
    pub took: Duration,
}

/// Makes this process the parent of its orphaned grandchildren (prctl(2), `PR_SET_CHILD_SUBREAPER`). A
/// gpg-agent that was started by `gpg-agent --daemon -- gpg` becomes an orphan when gpg ends.
pub fn adopt_orphans() -> io::Result<()> {
    Ok(prctl::set_child_subreaper(true)?)
}

/// Runs `job`. An error means that the program could not be started or watched, and that it is no longer
/// running.
pub fn run(job: &Job) -> io::Result<Finished> {
    run_with(job, Stdio::piped(), Stdio::piped())
}

/// As [`run`], with other standard streams. If `stdin` is a file, the program reads it instead of
/// [`Job::stdin`]. If `stdout` is a file, the program writes to it. The size of neither file is limited.
pub fn run_with(job: &Job, stdin: Stdio, stdout: Stdio) -> io::Result<Finished> {
    debug_assert!(job.stdin.len() <= 4096);
    let mut command = command(job.program, job.background.is_some());
    command.args(&job.arguments).stdin(stdin).stdout(stdout);
    let mut running = Running::start(command, usize::MAX)?;
    if let Some(mut stdin) = running.group.child.stdin.take() {
        match stdin.write_all(job.stdin) {
            Err(e) if e.kind() != io::ErrorKind::BrokenPipe => return Err(e),
            _ => {}
        }
    }
    let stop = job.background.map(|stop| PollFd::new(stop, PollFlags::POLLIN));
    let last = running.wait(job.deadline, stop);
    running.finish(last)
}

/// Why [`Running::wait`] returned.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Event {
    /// The program has ended.
    Ended,
    /// The additional file descriptor is ready.
    Ready,
    /// The deadline has passed.
    TimedOut,
}

/// A running program, whose output is collected while the caller waits for it. Dropping it kills the process
/// group.
pub(crate) struct Running {
    pub(crate) group: Group,
    ended: OwnedFd,
    out: Option<ChildStdout>,
    err: Option<ChildStderr>,
    stdout: Vec<u8>,
    stderr: Vec<u8>,
    stderr_max: usize,
    started: Instant,
}

impl Running {
    /// Starts a program. Its standard output is collected if it is a pipe. Of its standard error, the first
    /// `stderr_max` bytes are kept, and the rest is read and dropped.
    pub(crate) fn start(mut command: Command, stderr_max: usize) -> io::Result<Self> {
        let started = Instant::now();
        let mut group = Group::new(command.stderr(Stdio::piped()).spawn()?);
        let ended = pidfd_open(&group.child)?;
        let (out, err) = (group.child.stdout.take(), group.child.stderr.take());
        out.as_ref().map(set_nonblocking).transpose()?;
        err.as_ref().map(set_nonblocking).transpose()?;
        let (stdout, stderr) = (Vec::new(), Vec::new());
        Ok(Self { group, ended, out, err, stdout, stderr, stderr_max, started })
    }

    /// Waits until the program has ended, `other` is ready, or the deadline has passed.
    pub(crate) fn wait(&mut self, deadline: Instant, other: Option<PollFd>) -> io::Result<Event> {
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(Event::TimedOut);
            }
            let readable = |fd| PollFd::new(fd, PollFlags::POLLIN);
            let mut fds = vec![readable(self.ended.as_fd())];
            fds.extend(other.clone());
            fds.extend(self.out.as_ref().map(|out| readable(out.as_fd())));
            fds.extend(self.err.as_ref().map(|err| readable(err.as_fd())));
            wait_readable(&mut fds, left)?;
            let is_ready = |fd: &PollFd| fd.any().unwrap_or(true);
            let (has_ended, is_other_ready) = (is_ready(&fds[0]), fds.get(1).is_some_and(is_ready));
            if has_ended {
                return Ok(Event::Ended);
            }
            self.read_stdout()?;
            self.read_stderr()?;
            if other.is_some() && is_other_ready {
                return Ok(Event::Ready);
            }
        }
    }

    /// Kills the rest of the process group and collects the result. `last` is what the last [`Running::wait`]
    /// returned.
    pub(crate) fn finish(mut self, last: io::Result<Event>) -> io::Result<Finished> {
        let end = self.group.finish();
        let last = last?;
        // Every process of the group that could write has ended, or will not write again. So the pipes hold all
        // the output that is left.
        while self.read_stdout()? {}
        while self.read_stderr()? {}
        Ok(Finished {
            end: end.filter(|_| last == Event::Ended),
            stopped: last == Event::Ready,
            stdout: self.stdout,
            stderr: self.stderr,
            took: self.started.elapsed(),
        })
    }

    /// Reads a chunk of standard output. Returns whether there may be more.
    fn read_stdout(&mut self) -> io::Result<bool> {
        let more = read_chunk(&mut self.out, &mut self.stdout)?;
        check_size(&self.stdout)?;
        Ok(more)
    }

    /// Reads a chunk of standard error. Returns whether there may be more that is to be kept.
    fn read_stderr(&mut self) -> io::Result<bool> {
        let more = read_chunk(&mut self.err, &mut self.stderr)?;
        self.stderr.truncate(self.stderr_max);
        check_size(&self.stderr)?;
        Ok(more && self.stderr.len() < self.stderr_max)
    }
}

fn check_size(output: &[u8]) -> io::Result<()> {
    match output.len() {
        0..=OUTPUT_MAX => Ok(()),
        _ => Err(io::Error::other("it printed more than 256 KiB")),
    }
}

/// Prepares to run a program, at idle priority if `is_idle`. It leads a process group of its own and is killed
/// when the calling thread ends.
pub fn command(program: &Path, is_idle: bool) -> Command {
    let mut command = Command::new(program);
    command
        .env_clear()
        .env("LC_ALL", "C.UTF-8")
        .env("PATH", "/usr/bin:/bin")
        .current_dir("/")
        .process_group(0);
    let parent = getpid();
    let before_exec = move || {
        if is_idle {
            become_idle();
        }
        prctl::set_pdeathsig(Signal::SIGKILL)?;
        // The parent may have died before the line above took effect.
        if getppid() != parent {
            return Err(Errno::ESRCH.into());
        }
        Ok(())
    };
    // SAFETY: the closure runs between fork and exec. It only makes async-signal-safe system calls and does not
    // allocate.
    #[allow(unsafe_code)]
    unsafe {
        command.pre_exec(before_exec);
    }
    unblock_signals(&mut command);
    command
}

/// Makes `command` start with no signal blocked. This process blocks the signals that it waits for, and those
/// that must not end it. A child would inherit the mask and never receive the SIGTERM that asks it to end.
pub fn unblock_signals(command: &mut Command) -> &mut Command {
    let before_exec = || Ok(SigSet::empty().thread_set_mask()?);
    // SAFETY: the closure makes two calls, sigemptyset and pthread_sigmask, which are async-signal-safe.
    #[allow(unsafe_code)]
    unsafe {
        command.pre_exec(before_exec)
    }
}

/// Gives this process idle priority (sched(7), SCHED_IDLE). If a sandbox forbids the call, the unit of the
/// service has set the priority already.
fn become_idle() {
    // SAFETY: sched_param is plain data for which zero is valid, and the call only reads it.
    #[allow(unsafe_code)]
    unsafe {
        let parameters: libc::sched_param = std::mem::zeroed();
        libc::sched_setscheduler(0, libc::SCHED_IDLE, &parameters);
    }
}

/// Makes reads and writes of a pipe return at once instead of blocking.
pub(crate) fn set_nonblocking(pipe: &impl AsFd) -> io::Result<()> {
    fcntl(pipe.as_fd(), FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    Ok(())
}

/// Appends a chunk of the data that can be read without blocking. Returns whether there may be more. Sets
/// `from` to `None` at the end of the stream.
fn read_chunk(from: &mut Option<impl Read>, into: &mut Vec<u8>) -> io::Result<bool> {
    let Some(pipe) = from else { return Ok(false) };
    let mut chunk = [0; 8192];
    match pipe.read(&mut chunk) {
        Ok(0) => *from = None,
        Ok(count) => into.extend_from_slice(&chunk[..count]),
        Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(false),
        Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
        Err(e) => return Err(e),
    }
    Ok(from.is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str, stdin: &[u8], limit: Duration) -> io::Result<Finished> {
        let arguments = vec!["-c".into(), script.into()];
        run(&Job {
            program: Path::new("/bin/sh"),
            arguments,
            stdin,
            deadline: Instant::now() + limit,
            background: None,
        })
    }

    const LONG: Duration = Duration::from_secs(30);

    #[test]
    fn keeps_the_streams_apart_and_reports_the_end() -> io::Result<()> {
        let done = shell("cat; echo err >&2; exit 3", b"in", LONG)?;
        assert_eq!((&done.stdout[..], &done.stderr[..]), (&b"in"[..], &b"err\n"[..]));
        assert_eq!(done.end, Some(End::Exited(3)));
        let done = shell("kill -TERM $$", b"", LONG)?;
        assert_eq!(done.end, Some(End::Killed(Signal::SIGTERM)));
        Ok(())
    }

    #[test]
    fn clears_the_environment_and_leads_a_group() -> io::Result<()> {
        let done = shell("env | grep -v -e ^PWD= -e ^_= -e ^SHLVL= | sort", b"", LONG)?;
        assert_eq!(String::from_utf8_lossy(&done.stdout), "LC_ALL=C.UTF-8\nPATH=/usr/bin:/bin\n");
        let done = shell("cut -d' ' -f5 /proc/$$/stat; echo $$", b"", LONG)?;
        let text = String::from_utf8_lossy(&done.stdout).into_owned();
        let ids: Vec<_> = text.lines().collect();
        assert_eq!(ids[0], ids[1], "process group and pid");
        Ok(())
    }

    #[test]
    fn a_child_starts_with_no_signal_blocked() -> io::Result<()> {
        let blocked: SigSet =
            [Signal::SIGTERM, Signal::SIGINT, Signal::SIGXFSZ].into_iter().collect();
        blocked.thread_block()?;
        // dash unblocks signals before it starts a program in a child, but not before `exec`.
        let done = shell("exec grep SigBlk /proc/self/status", b"", LONG);
        blocked.thread_unblock()?;
        assert_eq!(String::from_utf8_lossy(&done?.stdout), "SigBlk:\t0000000000000000\n");
        Ok(())
    }

    #[test]
    fn kills_and_reaps_the_whole_group_at_the_deadline() -> io::Result<()> {
        adopt_orphans()?;
        let started = Instant::now();
        let script = "sleep 60 & echo $!; echo half; sleep 60";
        let done = shell(script, b"", Duration::from_millis(300))?;
        assert!(started.elapsed() < Duration::from_secs(20));
        assert_eq!(done.end, None);
        let text = String::from_utf8_lossy(&done.stdout).into_owned();
        let (pid, rest) = text.split_once('\n').unwrap_or_default();
        assert_eq!(rest, "half\n");
        assert!(!Path::new(&format!("/proc/{pid}")).exists(), "{pid} lives");
        Ok(())
    }

    #[test]
    fn ends_a_daemon_that_keeps_the_pipes_open() -> io::Result<()> {
        adopt_orphans()?;
        let done = shell("sleep 60 & echo $!; exit 0", b"", LONG)?;
        assert_eq!(done.end, Some(End::Exited(0)));
        let pid = String::from_utf8_lossy(&done.stdout).trim().to_owned();
        assert!(!Path::new(&format!("/proc/{pid}")).exists(), "{pid} lives");
        Ok(())
    }

    #[test]
    fn a_file_takes_more_than_memory_would() -> io::Result<()> {
        let file = tempfile::tempfile()?;
        let arguments = vec!["-c".into(), "head -c 1000000 /dev/zero; echo err >&2".into()];
        let program = Path::new("/bin/sh");
        let job = Job {
            program,
            arguments,
            stdin: b"",
            deadline: Instant::now() + LONG,
            background: None,
        };
        let done = run_with(&job, Stdio::piped(), file.try_clone()?.into())?;
        let length = file.metadata()?.len();
        assert_eq!((length, done.stdout.len(), &done.stderr[..]), (1_000_000, 0, &b"err\n"[..]));
        assert_eq!(done.end, Some(End::Exited(0)));
        Ok(())
    }

    #[test]
    fn refuses_endless_output_and_missing_programs() {
        let error =
            shell("while :; do echo xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx; done", b"", LONG).err();
        assert!(error.is_some_and(|e| e.to_string().contains("256 KiB")));
        let job = Job {
            program: Path::new("/nonexistent/gpg"),
            arguments: vec![],
            stdin: b"",
            deadline: Instant::now() + LONG,
            background: None,
        };
        assert_eq!(run(&job).err().map(|e| e.kind()), Some(io::ErrorKind::NotFound));
    }
}
