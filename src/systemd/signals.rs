//! Receives SIGTERM and SIGINT through a file descriptor, so that the accept loop can wait for signals and
//! connections together.

use std::os::fd::{AsFd, BorrowedFd};

use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use crate::error::{Error, Result};

/// The signals that ask this process to stop.
#[derive(Debug)]
pub struct Signals(SignalFd);

impl Signals {
    /// Blocks the signals and opens the descriptor that receives them. Must be called before any thread is
    /// started: threads inherit the mask. Child processes would inherit it too, so they are started with an
    /// empty one ([`gpg::process::unblock_signals`]).
    pub fn take() -> Result<Self> {
        let failed = |errno: nix::errno::Errno| Error::io("taking over signals", errno.into());
        let mut set = SigSet::empty();
        set.add(Signal::SIGTERM);
        set.add(Signal::SIGINT);
        set.thread_block().map_err(failed)?;
        let flags = SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC;
        SignalFd::with_flags(&set, flags).map(Self).map_err(failed)
    }

    /// Whether a signal has arrived since the last call.
    pub fn received(&self) -> bool {
        matches!(self.0.read_signal(), Ok(Some(_)))
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
