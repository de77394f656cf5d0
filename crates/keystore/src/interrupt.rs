//! How SIGINT and SIGTERM end every mode that does one task and exits. While no work is under way, the
//! process ends at once. Otherwise the item at hand is finished or taken back and the rest is left, so that
//! nothing is half done. In both cases the exit status is 128 plus the number of the signal.
//!
//! `serve` treats signals differently (`systemd::signals`), because a signal is the way it ends every day.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::{LazyLock, Mutex, MutexGuard};
use std::thread;

use gpg::locks::unpoisoned;
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::signal::{SigSet, Signal};

use crate::error::{Error, Result};

/// The number of the signal that has arrived; 0 before that.
static RECEIVED: AtomicI32 = AtomicI32::new(0);
/// The number of pieces of work that must not be cut off. The mutex is held while a signal is judged, so that
/// no work begins in between.
static AT_WORK: Mutex<usize> = Mutex::new(0);
/// An eventfd that becomes readable when a signal arrives. `None` if there was no file descriptor left.
static EVENT: LazyLock<Option<EventFd>> =
    LazyLock::new(|| EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK).ok());

/// Keeps the first signal from cutting work off, until this is dropped.
#[must_use]
pub struct WorkGuard(());

impl Drop for WorkGuard {
    fn drop(&mut self) {
        *lock() -= 1;
    }
}

/// Begins work that the first signal does not cut off. The work must look at [`signal`], [`check`] or
/// [`event`] now and then.
pub fn work() -> WorkGuard {
    *lock() += 1;
    WorkGuard(())
}

/// Returns the signal that has told this process to stop, if any.
pub fn signal() -> Option<Signal> {
    match RECEIVED.load(Ordering::SeqCst) {
        0 => None,
        number => Signal::try_from(number).ok(),
    }
}

/// Fails with [`Error::Interrupted`] if a signal has told this process to stop. `left` says what
/// is left undone.
pub fn check(left: impl FnOnce() -> String) -> Result<()> {
    match signal() {
        None => Ok(()),
        Some(signal) => Err(Error::Interrupted { signal, left: left() }),
    }
}

/// Returns a file descriptor that becomes readable when a signal tells this process to stop.
pub fn event() -> Result<BorrowedFd<'static>> {
    let none = || Error::io("watching for signals", nix::errno::Errno::EMFILE.into());
    EVENT.as_ref().map(AsFd::as_fd).ok_or_else(none)
}

/// Blocks SIGINT and SIGTERM and starts a thread that waits for them. Must be called before any other thread
/// starts, because threads inherit the signal mask. Child processes would inherit it, too, so each one starts
/// with an empty mask ([`gpg::process::unblock_signals`]).
pub fn watch() -> Result<()> {
    let failed = |e| Error::io("taking over signals", e);
    event()?;
    let mut set = SigSet::empty();
    set.add(Signal::SIGTERM);
    set.add(Signal::SIGINT);
    set.thread_block().map_err(|e| failed(e.into()))?;
    let watcher = thread::Builder::new().name("signals".into()).stack_size(128 * 1024);
    watcher.spawn(move || wait(&set)).map(drop).map_err(failed)
}

fn wait(set: &SigSet) {
    loop {
        let Ok(signal) = set.wait() else { continue };
        let at_work = lock();
        let is_second = RECEIVED.swap(signal as i32, Ordering::SeqCst) != 0;
        if *at_work > 0 && !is_second {
            log::warn!(
                "{signal}: what is at work is brought to an end, the rest is left; a second signal ends \
                 it at once"
            );
            if let Some(event) = EVENT.as_ref() {
                let _ = event.write(1); // a full counter is readable, too
            }
            continue;
        }
        let left = if *at_work > 0 {
            "ended at once by a second signal; what was at work is cleared up by the next run"
        } else {
            "run it again"
        };
        let error = Error::Interrupted { signal, left: left.into() };
        log::error!("{error}");
        std::process::exit(128 + signal as i32);
    }
}

fn lock() -> MutexGuard<'static, usize> {
    unpoisoned(AT_WORK.lock())
}
