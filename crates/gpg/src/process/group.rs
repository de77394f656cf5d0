//! A process group that does not outlive its owner. Waiting for it never blocks for long.

use std::os::fd::{AsFd, FromRawFd, OwnedFd};
use std::process::Child;
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};
use std::{io, thread};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, killpg};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use crate::locks::unpoisoned;

/// How long to wait for a group after SIGKILL. A process that waits in the kernel for a dead disk does not end
/// on SIGKILL. The caller must still be able to answer in time.
const KILL_TIME: Duration = Duration::from_millis(250);
/// How often the reaper checks the groups that have not ended yet.
const REAP_PAUSE: Duration = Duration::from_millis(500);

/// How a program ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// It exited with this status.
    Exited(i32),
    /// A signal killed it.
    Killed(Signal),
}

/// A process group, with the child that leads it. Dropping it kills the group and waits for it.
pub struct Group {
    /// The leader of the group.
    pub child: Child,
    is_finished: bool,
}

impl Group {
    /// Takes over the process group of `child`, which must be its leader.
    pub fn new(child: Child) -> Self {
        Self { child, is_finished: false }
    }

    /// Sends SIGTERM to all processes of the group.
    pub fn terminate(&self) {
        let _ = killpg(pid_of(&self.child), Signal::SIGTERM); // fails only if no process is left
    }

    /// Kills the rest of the group and waits for all of it. Returns how the leader ended.
    ///
    /// The leader is waited for only here. Its PID stays reserved until then, so the signal cannot reach an
    /// unrelated process. A group that does not end within [`KILL_TIME`] is left to the reaper.
    pub fn finish(&mut self) -> Option<End> {
        if std::mem::replace(&mut self.is_finished, true) {
            return None;
        }
        let leader = pid_of(&self.child);
        let _ = killpg(leader, Signal::SIGKILL); // fails only if no process is left
        let deadline = Instant::now() + KILL_TIME;
        let mut end = None;
        // By now most groups have ended, or end as soon as the leader does.
        let mut is_gone = reap(leader, &mut end);
        if !is_gone && end.is_none() {
            if let Ok(ended) = pidfd_open(&self.child) {
                let mut fds = [PollFd::new(ended.as_fd(), PollFlags::POLLIN)];
                let _ = wait_readable(&mut fds, KILL_TIME); // the loop below checks, whatever the result
            }
        }
        let mut pause = Duration::from_micros(100);
        while !is_gone {
            is_gone = reap(leader, &mut end);
            if is_gone || Instant::now() >= deadline {
                break;
            }
            thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(5));
        }
        if !is_gone {
            log::warn!("process {leader} was killed and has not ended; it is waited for aside");
            leave_to_reaper(leader);
        }
        end
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.finish();
    }
}

/// Waits for the processes of a group that have ended, without blocking. Returns whether none is left. Sets
/// `end` if the leader was among them.
fn reap(leader: Pid, end: &mut Option<End>) -> bool {
    loop {
        match waitpid(Pid::from_raw(-leader.as_raw()), Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::StillAlive) => return false,
            Ok(WaitStatus::Exited(pid, code)) if pid == leader => *end = Some(End::Exited(code)),
            Ok(WaitStatus::Signaled(pid, signal, _)) if pid == leader => {
                *end = Some(End::Killed(signal));
            }
            Ok(_) | Err(Errno::EINTR) => {}
            Err(_) => return true, // ECHILD: all of them have been waited for
        }
    }
}

/// The groups that were killed and have not ended, and whether the reaper thread is running.
static LEFT: Mutex<(Vec<Pid>, bool)> = Mutex::new((Vec::new(), false));

fn leave_to_reaper(leader: Pid) {
    let mut left = lock_left();
    left.0.push(leader);
    if left.1 {
        return;
    }
    match thread::Builder::new().name("reaper".into()).spawn(reap_left) {
        Ok(_) => left.1 = true,
        // The next group that is left here tries to start the thread again.
        Err(e) => log::warn!("starting a thread that waits for killed processes: {e}"),
    }
}

fn reap_left() {
    loop {
        thread::sleep(REAP_PAUSE);
        let mut left = lock_left();
        left.0.retain(|leader| !reap(*leader, &mut None));
        if left.0.is_empty() {
            left.1 = false;
            return;
        }
    }
}

fn lock_left() -> MutexGuard<'static, (Vec<Pid>, bool)> {
    unpoisoned(LEFT.lock())
}

/// Returns the PID of a child. std keeps the kernel's signed number as an unsigned one.
fn pid_of(child: &Child) -> Pid {
    Pid::from_raw(libc::pid_t::from_ne_bytes(child.id().to_ne_bytes()))
}

/// Returns a file descriptor that becomes readable when `child` ends (pidfd_open(2), Linux 5.3).
pub fn pidfd_open(child: &Child) -> io::Result<OwnedFd> {
    // SAFETY: pidfd_open takes two integers and returns -1 or a new file descriptor, which nothing else owns
    // yet.
    #[allow(unsafe_code)]
    unsafe {
        let fd = libc::syscall(libc::SYS_pidfd_open, pid_of(child).as_raw(), 0);
        match libc::c_int::try_from(fd) {
            Ok(fd) if fd >= 0 => Ok(OwnedFd::from_raw_fd(fd)),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

/// Waits for an event on one of `fds`, for `limit` or about a minute, whichever is shorter. Returns `Ok` after
/// a timeout or an interrupting signal, too.
pub fn wait_readable(fds: &mut [PollFd], limit: Duration) -> io::Result<()> {
    let milliseconds = u16::try_from(limit.as_millis() + 1).unwrap_or(u16::MAX);
    match poll(fds, PollTimeout::from(milliseconds)) {
        Ok(_) | Err(Errno::EINTR) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}
