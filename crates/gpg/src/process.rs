//! Runs one program to its end: cleared environment, a process group of its own, a deadline, and
//! nothing of the group left alive afterwards. The only place with `unsafe` in it.

mod group;

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::prctl;
use nix::sys::signal::{SigSet, Signal};
use nix::unistd::{getpid, getppid};

pub use group::{End, Group, pidfd_open};

/// What a child may print on one descriptor before it is taken for broken.
const OUTPUT_MAX: usize = 256 * 1024;

/// A program to run.
pub struct Job<'a> {
    /// The program, by its path.
    pub program: &'a Path,
    /// Its arguments, without its name.
    pub arguments: Vec<OsString>,
    /// At most `PIPE_BUF` bytes (4096), so that writing them never waits for the reader.
    pub stdin: &'a [u8],
    /// When it is killed.
    pub deadline: Instant,
    /// Runs it at idle priority, and kills it as soon as this descriptor becomes readable.
    pub background: Option<BorrowedFd<'a>>,
}

/// A program that ended, by itself or because it was killed.
pub struct Finished {
    /// `None` when it was killed at the deadline, or told to stop.
    pub end: Option<End>,
    /// Whether it was told to stop.
    pub stopped: bool,
    /// What it wrote to its standard output.
    pub stdout: Vec<u8>,
    /// What it wrote to its standard error.
    pub stderr: Vec<u8>,
}

/// Makes this process the parent of its orphaned grandchildren. A gpg-agent started by
/// `gpg-agent --daemon -- gpg` is one as soon as gpg has ended.
pub fn adopt_orphans() -> io::Result<()> {
    Ok(prctl::set_child_subreaper(true)?)
}

/// Runs `job`. An error means that it could not be started or watched; it is not running then.
pub fn run(job: &Job) -> io::Result<Finished> {
    run_with(job, Stdio::piped(), Stdio::piped())
}

/// As [`run`], with `file` for its standard input, however much that is.
pub fn run_on(job: &Job, file: File) -> io::Result<Finished> {
    run_with(job, file.into(), Stdio::piped())
}

/// As [`run`], with what it prints going to `file`, however much that is.
pub fn run_into(job: &Job, file: File) -> io::Result<Finished> {
    run_with(job, Stdio::piped(), file.into())
}

fn run_with(job: &Job, stdin: Stdio, stdout: Stdio) -> io::Result<Finished> {
    debug_assert!(job.stdin.len() <= 4096);
    let idle = job.background.is_some();
    let child = spawn(job.program, &job.arguments, stdin, stdout, Stdio::piped(), idle)?;
    let mut group = Group::new(child);
    let result = watch(&mut group.child, job);
    let end = group.finish();
    let (why, mut stdout, mut stderr) = result?;
    // Every writer of the group is gone, or will not write again: what is left in the pipes is all
    // there will be.
    if let Some(out) = &mut group.child.stdout {
        read_available(out, &mut stdout)?;
    }
    if let Some(err) = &mut group.child.stderr {
        read_available(err, &mut stderr)?;
    }
    let end = if why == Because::Ended { end } else { None };
    Ok(Finished { end, stopped: why == Because::Stopped, stdout, stderr })
}

/// Starts a program as the leader of a process group that does not outlive the calling thread.
pub fn spawn(
    program: &Path,
    arguments: &[OsString],
    stdin: Stdio,
    stdout: Stdio,
    stderr: Stdio,
    idle: bool,
) -> io::Result<Child> {
    let mut command = Command::new(program);
    command
        .args(arguments)
        .env_clear()
        .env("LC_ALL", "C.UTF-8")
        .env("PATH", "/usr/bin:/bin")
        .current_dir("/")
        .process_group(0)
        .stdin(stdin)
        .stdout(stdout)
        .stderr(stderr);
    let parent = getpid();
    let before_exec = move || {
        if idle {
            become_idle();
        }
        prctl::set_pdeathsig(Signal::SIGKILL)?;
        // The parent may have died before the line above took effect.
        if getppid() != parent {
            return Err(Errno::ESRCH.into());
        }
        Ok(())
    };
    // SAFETY: the closure runs between fork and exec and makes async-signal-safe system calls
    // without allocating.
    #[allow(unsafe_code)]
    unsafe {
        command.pre_exec(before_exec);
    }
    unblock_signals(&mut command).spawn()
}

/// Has `command` begin with no signal blocked. This process blocks those that it waits for, or that must not
/// end it. A child inherits that from std, and would never see the SIGTERM that asks it to end.
pub fn unblock_signals(command: &mut Command) -> &mut Command {
    let before_exec = || Ok(SigSet::empty().thread_set_mask()?);
    // SAFETY: the closure makes two calls, sigemptyset and pthread_sigmask, which are async-signal-safe.
    #[allow(unsafe_code)]
    unsafe {
        command.pre_exec(before_exec)
    }
}

/// Leaves the processor to everybody else (sched(7), SCHED_IDLE). Where a sandbox forbids that, its
/// unit has set it already.
fn become_idle() {
    // SAFETY: sched_param is plain data for which zero is valid, and the call only reads it.
    #[allow(unsafe_code)]
    unsafe {
        let parameters: libc::sched_param = std::mem::zeroed();
        libc::sched_setscheduler(0, libc::SCHED_IDLE, &parameters);
    }
}

/// Why a program is watched no longer.
#[derive(PartialEq, Eq)]
enum Because {
    Ended,
    TimedOut,
    Stopped,
}

/// Feeds stdin and gathers the output until the program ends or must end.
fn watch(child: &mut Child, job: &Job) -> io::Result<(Because, Vec<u8>, Vec<u8>)> {
    let ended = pidfd_open(child)?;
    // There is none when stdout goes to a file.
    let mut out = child.stdout.as_mut();
    let Some(err) = child.stderr.as_mut() else {
        return Err(io::Error::other("a child without pipes"));
    };
    // There is none when stdin comes from a file.
    if let Some(mut stdin) = child.stdin.take() {
        match stdin.write_all(job.stdin) {
            Err(e) if e.kind() != io::ErrorKind::BrokenPipe => return Err(e),
            _ => drop(stdin),
        }
    }
    if let Some(out) = &out {
        fcntl(out.as_fd(), FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    }
    fcntl(err.as_fd(), FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    let mut err_open = true;
    loop {
        let left = job.deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok((Because::TimedOut, stdout, stderr));
        }
        let mut fds = vec![PollFd::new(ended.as_fd(), PollFlags::POLLIN)];
        fds.extend(job.background.map(|stop| PollFd::new(stop, PollFlags::POLLIN)));
        if let Some(out) = &out {
            fds.push(PollFd::new(out.as_fd(), PollFlags::POLLIN));
        }
        if err_open {
            fds.push(PollFd::new(err.as_fd(), PollFlags::POLLIN));
        }
        wait_readable(&mut fds, left)?;
        if fds[0].any().unwrap_or(true) {
            return Ok((Because::Ended, stdout, stderr));
        }
        if job.background.is_some() && fds[1].any().unwrap_or(true) {
            return Ok((Because::Stopped, stdout, stderr));
        }
        if let Some(open) = &mut out {
            if !read_available(open, &mut stdout)? {
                out = None;
            }
        }
        err_open = err_open && read_available(err, &mut stderr)?;
    }
}

/// Waits for an event on one of `fds`, at most about a minute of `limit`.
pub fn wait_readable(fds: &mut [PollFd], limit: Duration) -> io::Result<()> {
    let milliseconds = u16::try_from(limit.as_millis() + 1).unwrap_or(u16::MAX);
    match poll(fds, PollTimeout::from(milliseconds)) {
        Ok(_) | Err(Errno::EINTR) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

/// Reads what is there without waiting; `false` at the end of the file.
fn read_available(from: &mut impl Read, into: &mut Vec<u8>) -> io::Result<bool> {
    let mut chunk = [0; 8192];
    loop {
        match from.read(&mut chunk) {
            Ok(0) => return Ok(false),
            Ok(count) if into.len() + count > OUTPUT_MAX => {
                return Err(io::Error::other("it printed more than 256 KiB"));
            }
            Ok(count) => into.extend_from_slice(&chunk[..count]),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(true),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
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
        // dash unblocks signals before it starts a program, but not when it becomes one.
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
        let path = std::env::temp_dir().join(format!("ckg-out-{:016x}", rand::random::<u64>()));
        let arguments = vec!["-c".into(), "head -c 1000000 /dev/zero; echo err >&2".into()];
        let program = Path::new("/bin/sh");
        let job = Job {
            program,
            arguments,
            stdin: b"",
            deadline: Instant::now() + LONG,
            background: None,
        };
        let done = run_into(&job, File::create(&path)?)?;
        let length = std::fs::metadata(&path)?.len();
        std::fs::remove_file(&path)?;
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
