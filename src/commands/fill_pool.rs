//! `copr-keygen fill-pool`: makes secret keys in advance, and stops as soon as a signal arrives. Without
//! systemd, `serve` does the same in a thread.

use std::os::fd::AsFd;
use std::sync::Arc;
use std::thread::JoinHandle;

use gpg::text::number;
use keystore::{Stock, Store, interrupt};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};

use super::state;
use crate::error::{Error, Result};
use crate::http::Service;
use crate::settings::Settings;

/// The interval at which the thread checks whether keys were taken from the pool, in milliseconds.
const LOOK_AGAIN: u16 = 1000;

/// The pause of the thread after a failure, in milliseconds.
const AFTER_FAILURE: u16 = 30_000;

/// Fills the pool once and returns.
pub fn run(settings: &Settings) -> Result<()> {
    settings.pool_max_age.get()?;
    let store = state::open(settings)?;
    let _work = interrupt::work();
    let (made, is_full) = store.fill_pool(settings.pool.get()?, interrupt::event()?)?;
    if made > 0 {
        let keys = number(made, "secret key", "secret keys");
        log::info!("made {keys} in advance");
    }
    if is_full { Ok(()) } else { interrupt::check(|| "the pool is not full yet".into()) }
}

/// A thread that keeps the pool full until this value is dropped.
#[derive(Debug)]
pub struct Filler {
    stop: Arc<EventFd>,
    thread: Option<JoinHandle<()>>,
}

impl Filler {
    /// Starts a thread that keeps the pool filled with `stock`.
    pub fn start(service: Arc<Service>, stock: Vec<Stock>) -> Result<Self> {
        let failed = |e| Error::io("starting the thread that fills the pool", e);
        let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
        let stop = Arc::new(EventFd::from_flags(flags).map_err(|e| failed(e.into()))?);
        let told = Arc::clone(&stop);
        let thread = std::thread::Builder::new()
            .name("pool".into())
            .spawn(move || keep_full(service.store(), &stock, &told))
            .map_err(failed)?;
        Ok(Self { stop, thread: Some(thread) })
    }
}

impl Drop for Filler {
    fn drop(&mut self) {
        if let (Ok(_), Some(thread)) = (self.stop.write(1), self.thread.take()) {
            let _ = thread.join(); // a panic of the thread has been printed already
        }
    }
}

fn keep_full(store: &Store, stock: &[Stock], stop: &EventFd) {
    loop {
        let pause = match store.fill_pool(stock, stop.as_fd()) {
            Ok(_) => LOOK_AGAIN,
            Err(e) => {
                log::warn!("making keys in advance: {e}; it is tried again");
                AFTER_FAILURE
            }
        };
        let mut fds = [PollFd::new(stop.as_fd(), PollFlags::POLLIN)];
        match poll(&mut fds, PollTimeout::from(pause)) {
            Ok(0) | Err(Errno::EINTR) => {}
            _ => return,
        }
    }
}
