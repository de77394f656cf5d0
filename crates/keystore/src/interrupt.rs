//! What SIGINT and SIGTERM mean to every mode that does one thing and ends. While nothing is at work,
//! the process ends at once. Work is brought to a point where nothing is half done: what is at hand is
//! finished or taken back, the rest is left. The exit status of both is 128 and the number of the signal.
//!
//! `serve` has a meaning of its own: a signal is how it ends every day (`systemd::signals`).

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::{LazyLock, Mutex, MutexGuard};
use std::thread;

use gpg::locks::unpoisoned;
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::signal::{SigSet, Signal};

use crate::error::{Error, Result};

/// The signal that has arrived while something was at work; 0 when there is none.
static RECEIVED: AtomicI32 = AtomicI32::new(0);
/// How many pieces of work there are that must not be cut off. Locked while a signal is judged, so
/// that no work begins in between.
static AT_WORK: Mutex<usize> = Mutex::new(0);
/// Becomes readable with the signal. `None` when there are no descriptors left.
static EVENT: LazyLock<Option<EventFd>> =
    LazyLock::new(|| EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK).ok());

/// Work that is not to be cut off, as long as this lives.
#[must_use]
pub struct WorkGuard(());

impl Drop for WorkGuard {
    fn drop(&mut self) {
        *lock() -= 1;
    }
}

/// Begins work that a first signal does not cut off. It must look at [`signal`], [`check`] or [`event`]
/// now and then.
pub fn work() -> WorkGuard {
    *lock() += 1;
    WorkGuard(())
}

/// The signal that told this process to stop, if one has.
pub fn signal() -> Option<Signal> {
    match RECEIVED.load(Ordering::SeqCst) {
        0 => None,
        number => Signal::try_from(number).ok(),
    }
}

/// Fails when a signal has told this process to stop. `left` says what is left undone.
pub fn check(left: impl FnOnce() -> String) -> Result<()> {
    match signal() {
        None => Ok(()),
        Some(signal) => Err(Error::Interrupted { signal, left: left() }),
    }
}

/// Becomes readable when a signal tells this process to stop.
pub fn event() -> Result<BorrowedFd<'static>> {
    let none = || Error::io("watching for signals", nix::errno::Errno::EMFILE.into());
    EVENT.as_ref().map(AsFd::as_fd).ok_or_else(none)
}

/// Takes over the signals. Must be called before any thread is started: threads inherit the mask.
/// Children would too, so each is started with an empty one ([`gpg::process::unblock_signals`]).
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
                let _ = event.write(1); // one that is full is readable
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
