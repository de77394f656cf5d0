//! Runs one program to its end: cleared environment, a process group of its own, a deadline, and
//! nothing of the group left alive afterwards. The only place with `unsafe` in it.

use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, FromRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::prctl;
use nix::sys::signal::{Signal, killpg};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{Pid, getpid, getppid};

/// What a child may print on one descriptor before it is taken for broken.
const OUTPUT_MAX: usize = 256 * 1024;

/// A program to run.
pub struct Job<'a> {
    pub program: &'a Path,
    pub arguments: Vec<OsString>,
    /// At most `PIPE_BUF` bytes (4096), so that writing them never waits for the reader.
    pub stdin: &'a [u8],
    pub deadline: Instant,
}

/// A program that ended, by itself or because it was killed at the deadline.
pub struct Finished {
    /// `None` when the deadline passed first.
    pub end: Option<End>,
    pub stdout: Vec<u8>,
    pub stderr: Vec<u8>,
}

/// How a program ended by itself.
#[derive(Debug, PartialEq, Eq)]
pub enum End {
    Exited(i32),
    Killed(Signal),
}

/// Makes this process the parent of its orphaned grandchildren. A gpg-agent started by
/// `gpg-agent --daemon -- gpg` is one as soon as gpg has ended.
pub fn adopt_orphans() -> io::Result<()> {
    Ok(prctl::set_child_subreaper(true)?)
}

/// Runs `job`. An error means that it could not be started or watched; it is not running then.
pub fn run(job: &Job) -> io::Result<Finished> {
    debug_assert!(job.stdin.len() <= 4096);
    let mut group = Group(spawn(job.program, &job.arguments, Stdio::piped())?);
    let result = watch(&mut group.0, job);
    let end = group.finish();
    let (timed_out, mut stdout, mut stderr) = result?;
    // Every writer of the group is gone: what is left in the pipes is all there will be.
    if let (Some(out), Some(err)) = (&mut group.0.stdout, &mut group.0.stderr) {
        read_available(out, &mut stdout)?;
        read_available(err, &mut stderr)?;
    }
    let end = if timed_out { None } else { end };
    Ok(Finished { end, stdout, stderr })
}

/// Starts a program as the leader of a process group that does not outlive the calling thread.
pub(super) fn spawn(program: &Path, arguments: &[OsString], stdout: Stdio) -> io::Result<Child> {
    let mut command = Command::new(program);
    command
        .args(arguments)
        .env_clear()
        .env("LC_ALL", "C.UTF-8")
        .env("PATH", "/usr/bin:/bin")
        .current_dir("/")
        .process_group(0)
        .stdin(Stdio::piped())
        .stdout(stdout)
        .stderr(Stdio::piped());
    let parent = getpid();
    let die_with_parent = move || {
        prctl::set_pdeathsig(Signal::SIGKILL)?;
        // The parent may have died before the line above took effect.
        if getppid() != parent {
            return Err(Errno::ESRCH.into());
        }
        Ok(())
    };
    // SAFETY: the closure runs between fork and exec and makes two async-signal-safe system calls
    // without allocating.
    #[allow(unsafe_code)]
    unsafe {
        command.pre_exec(die_with_parent);
    }
    command.spawn()
}

/// Feeds stdin and gathers the output until the program ends or the deadline passes (`true`).
fn watch(child: &mut Child, job: &Job) -> io::Result<(bool, Vec<u8>, Vec<u8>)> {
    let ended = pidfd_open(child)?;
    let (Some(mut stdin), Some(out), Some(err)) =
        (child.stdin.take(), child.stdout.as_mut(), child.stderr.as_mut())
    else {
        return Err(io::Error::other("a child without pipes"));
    };
    match stdin.write_all(job.stdin) {
        Err(e) if e.kind() != io::ErrorKind::BrokenPipe => return Err(e),
        _ => drop(stdin),
    }
    fcntl(out.as_fd(), FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    fcntl(err.as_fd(), FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    let (mut out_open, mut err_open) = (true, true);
    loop {
        let left = job.deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok((true, stdout, stderr));
        }
        let mut fds = vec![PollFd::new(ended.as_fd(), PollFlags::POLLIN)];
        if out_open {
            fds.push(PollFd::new(out.as_fd(), PollFlags::POLLIN));
        }
        if err_open {
            fds.push(PollFd::new(err.as_fd(), PollFlags::POLLIN));
        }
        wait_readable(&mut fds, left)?;
        if fds[0].any().unwrap_or(true) {
            return Ok((false, stdout, stderr));
        }
        out_open = out_open && read_available(out, &mut stdout)?;
        err_open = err_open && read_available(err, &mut stderr)?;
    }
}

/// Waits for an event on one of `fds`, at most about a minute of `limit`.
pub(super) fn wait_readable(fds: &mut [PollFd], limit: Duration) -> io::Result<()> {
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

/// A process group that does not outlive this value.
pub(super) struct Group(pub(super) Child);

impl Group {
    /// Kills what is left of the group and waits for all of it. The leader's pid stays reserved
    /// until it is waited for here, so the signal cannot reach a stranger.
    pub(super) fn finish(&mut self) -> Option<End> {
        let leader = pid_of(&self.0);
        let _ = killpg(leader, Signal::SIGKILL); // fails only when nobody is left
        let mut end = None;
        loop {
            match waitpid(Pid::from_raw(-leader.as_raw()), None) {
                Ok(WaitStatus::Exited(pid, code)) if pid == leader => end = Some(End::Exited(code)),
                Ok(WaitStatus::Signaled(pid, signal, _)) if pid == leader => {
                    end = Some(End::Killed(signal));
                }
                Ok(_) | Err(Errno::EINTR) => {}
                Err(_) => return end, // ECHILD: all of them have been waited for
            }
        }
    }
}

/// std keeps the kernel's signed process number as an unsigned one.
fn pid_of(child: &Child) -> Pid {
    Pid::from_raw(libc::pid_t::from_ne_bytes(child.id().to_ne_bytes()))
}

/// A descriptor that becomes readable when `child` ends (pidfd_open(2), Linux 5.3).
pub(super) fn pidfd_open(child: &Child) -> io::Result<OwnedFd> {
    // SAFETY: pidfd_open takes two integers and returns a new descriptor, owned by nobody yet, or
    // -1.
    #[allow(unsafe_code)]
    unsafe {
        let fd = libc::syscall(libc::SYS_pidfd_open, pid_of(child).as_raw(), 0);
        match libc::c_int::try_from(fd) {
            Ok(fd) if fd >= 0 => Ok(OwnedFd::from_raw_fd(fd)),
            _ => Err(io::Error::last_os_error()),
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
    fn refuses_endless_output_and_missing_programs() {
        let error =
            shell("while :; do echo xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx; done", b"", LONG).err();
        assert!(error.is_some_and(|e| e.to_string().contains("256 KiB")));
        let job = Job {
            program: Path::new("/nonexistent/gpg"),
            arguments: vec![],
            stdin: b"",
            deadline: Instant::now() + LONG,
        };
        assert_eq!(run(&job).err().map(|e| e.kind()), Some(io::ErrorKind::NotFound));
    }
}
