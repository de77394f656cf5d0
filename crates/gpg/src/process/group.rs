//! A process group that does not outlive its owner, and is waited for without ever waiting long.

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

/// How long a killed group is waited for. A process that waits for a dead disk inside the kernel does not end on
/// SIGKILL, and the caller must still be able to answer in time.
const KILL_TIME: Duration = Duration::from_millis(250);
/// How often the reaper looks at groups that have not ended yet.
const REAP_PAUSE: Duration = Duration::from_millis(500);

/// How a program ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// It exited, with this status.
    Exited(i32),
    /// A signal killed it.
    Killed(Signal),
}

/// The process group of a child that leads it. When this is dropped, the group is killed and waited for.
pub struct Group {
    /// The leader.
    pub child: Child,
    is_finished: bool,
}

impl Group {
    /// The group that `child` leads.
    pub fn new(child: Child) -> Self {
        Self { child, is_finished: false }
    }

    /// Asks all of the group to end.
    pub fn terminate(&self) {
        let _ = killpg(pid_of(&self.child), Signal::SIGTERM); // fails only when nobody is left
    }

    /// Kills what is left of the group and waits for all of it; returns how the leader ended. The
    /// leader's pid stays reserved until it is waited for here, so the signal cannot reach a
    /// stranger. A group that does not end in [`KILL_TIME`] is left to the reaper.
    pub fn finish(&mut self) -> Option<End> {
        if std::mem::replace(&mut self.is_finished, true) {
            return None;
        }
        let leader = pid_of(&self.child);
        let _ = killpg(leader, Signal::SIGKILL); // fails only when nobody is left
        let deadline = Instant::now() + KILL_TIME;
        let mut end = None;
        // Most groups are gone by now, or as soon as the leader is.
        let mut is_gone = reap(leader, &mut end);
        if !is_gone && end.is_none() {
            if let Ok(ended) = pidfd_open(&self.child) {
                let mut fds = [PollFd::new(ended.as_fd(), PollFlags::POLLIN)];
                let _ = wait_readable(&mut fds, KILL_TIME); // looked at below, whatever it says
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

/// Collects the processes of a group that have ended, without blocking; `true` when none is left. Sets `end` when
/// the leader was among them.
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

/// Groups that were killed and have not ended, and whether a thread waits for them.
static LEFT: Mutex<(Vec<Pid>, bool)> = Mutex::new((Vec::new(), false));

fn leave_to_reaper(leader: Pid) {
    let mut left = lock_left();
    left.0.push(leader);
    if left.1 {
        return;
    }
    match thread::Builder::new().name("reaper".into()).spawn(reap_left) {
        Ok(_) => left.1 = true,
        // The next one that is left tries again.
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

/// std keeps the kernel's signed process number as an unsigned one.
fn pid_of(child: &Child) -> Pid {
    Pid::from_raw(libc::pid_t::from_ne_bytes(child.id().to_ne_bytes()))
}

/// A descriptor that becomes readable when `child` ends (pidfd_open(2), Linux 5.3).
pub fn pidfd_open(child: &Child) -> io::Result<OwnedFd> {
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

/// Waits for an event on one of `fds`, at most about a minute of `limit`.
pub fn wait_readable(fds: &mut [PollFd], limit: Duration) -> io::Result<()> {
    let milliseconds = u16::try_from(limit.as_millis() + 1).unwrap_or(u16::MAX);
    match poll(fds, PollTimeout::from(milliseconds)) {
        Ok(_) | Err(Errno::EINTR) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}
