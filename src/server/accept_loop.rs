//! Accepts connections, tells systemd how things are, and knows when to stop.

use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{Duration, Instant};
use std::{io, thread};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::connection::Connection;
use super::connection_table::{Admitted, ConnectionTable};
use super::listener::Listener;
use super::workers::Workers;
use crate::error::{Error, Result};
use crate::systemd::notify::Notifier;
use crate::systemd::signals::Signals;

/// The accept loop comes round at least this often.
const ROUND: Duration = Duration::from_secs(1);
/// Pause of the accept loop when the system refuses to give connections.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// How often the same trouble with accepting is logged.
const COMPLAINT_PAUSE: Duration = Duration::from_secs(10);
/// Connections accepted from one socket before the others get their turn.
const ACCEPT_BATCH: usize = 64;

/// What is said over the connections, and what the accept loop has to know of it.
pub trait Protocol: Send + Sync + 'static {
    /// Sees a connection through, in a thread that serves no other meanwhile.
    fn serve(&self, admitted: &Admitted);

    /// Refuses a connection that got no place in the table. The accepting thread calls this, so it must not
    /// wait.
    fn turn_away(&self, connection: Connection);

    /// One line for `systemctl status`.
    fn status_text(&self) -> String;

    /// Whether something is being done for which no connection is open. The process does not exit as idle
    /// then.
    fn is_busy(&self) -> bool {
        false
    }

    /// No connection is accepted any more. Those that are open are waited for.
    fn stop(&self);
}

/// The accept loop and what it serves.
pub struct Server {
    protocol: Arc<dyn Protocol>,
    listeners: Vec<Listener>,
    connections: Arc<ConnectionTable>,
    workers: Arc<Workers>,
    last_complaint: Option<Instant>,
}

/// Why the server stopped.
#[derive(Debug, PartialEq, Eq)]
pub enum Stop {
    /// No request came for as long as the setting `idle_timeout` says.
    Idle,
    /// A signal; requests that had arrived were answered.
    Signal,
    /// A second signal; this many requests were cut off.
    Forced(usize),
}

impl Stop {
    /// Says in the log how it ended. Requests that were cut off are a failure.
    pub fn told(self) -> Result<()> {
        match self {
            Self::Idle => {
                log::info!("nothing to do, exiting; the next connection starts the service again");
            }
            Self::Signal => log::info!("stopped by a signal, every request was answered"),
            Self::Forced(count) => {
                return Err(Error::io(
                    format!("cutting off {count} requests"),
                    io::Error::other("a second signal arrived"),
                ));
            }
        }
        Ok(())
    }
}

impl Server {
    /// Speaks `protocol` at `listeners`.
    pub fn new(protocol: Arc<impl Protocol>, listeners: Vec<Listener>) -> Self {
        let workers = Workers::new({
            let protocol = Arc::clone(&protocol);
            move |admitted| protocol.serve(&admitted)
        });
        let connections = ConnectionTable::new();
        Self { protocol, listeners, connections, workers, last_complaint: None }
    }

    /// Serves until a signal arrives or nothing happened for `idle_timeout` (`None`: for ever).
    /// Connections not accepted by then stay in the sockets for the next process.
    pub fn run(
        mut self,
        idle_timeout: Option<Duration>,
        signals: &Signals,
        notifier: &mut Notifier,
    ) -> Result<Stop> {
        let end = loop {
            notifier.alive(&self.protocol.status_text());
            let left = self.time_to_idle_exit(idle_timeout).unwrap_or(ROUND);
            let limit = left.min(ROUND).min(notifier.interval());
            let (signalled, ready) = self.wait(signals, limit)?;
            if signalled && signals.received() {
                break Stop::Signal;
            }
            // Only a look at the sockets shows that there is nothing to do.
            if ready.is_empty() && left.is_zero() {
                break Stop::Idle;
            }
            for index in ready {
                self.accept_from(index);
            }
        };
        self.finish(end, signals, notifier)
    }

    /// How long this process may still be idle; `None` while it is busy, or when it may be idle for ever.
    fn time_to_idle_exit(&self, idle_timeout: Option<Duration>) -> Option<Duration> {
        if self.protocol.is_busy() {
            return None;
        }
        let since = self.connections.idle_since()?;
        Some(idle_timeout?.saturating_sub(since.elapsed()))
    }

    /// Waits for signals and connections: whether there is a signal, and the sockets that are
    /// ready.
    fn wait(&self, signals: &Signals, limit: Duration) -> Result<(bool, Vec<usize>)> {
        let mut fds = vec![PollFd::new(signals.as_fd(), PollFlags::POLLIN)];
        fds.extend(self.listeners.iter().map(|l| PollFd::new(l.as_fd(), PollFlags::POLLIN)));
        let milliseconds = u16::try_from(limit.as_millis() + 1).unwrap_or(u16::MAX);
        match poll(&mut fds, PollTimeout::from(milliseconds)) {
            Ok(_) => {}
            Err(Errno::EINTR) => return Ok((false, Vec::new())),
            Err(errno) => return Err(Error::io("waiting for connections", errno.into())),
        }
        let is_ready = |fd: &PollFd| fd.any().unwrap_or(true);
        let ready = (0..self.listeners.len()).filter(|index| is_ready(&fds[index + 1])).collect();
        Ok((is_ready(&fds[0]), ready))
    }

    fn accept_from(&mut self, index: usize) {
        for _ in 0..ACCEPT_BATCH {
            match self.listeners[index].accept() {
                Ok(Some(connection)) => self.start(connection),
                Ok(None) => return,
                Err(e) if is_the_peers(&e) => {}
                Err(e) => {
                    self.complain(&format!("accepting connections: {e}; it is tried again"));
                    // Out of descriptors or memory, most likely: win some back.
                    self.connections.cut_off_oldest();
                    thread::sleep(ACCEPT_PAUSE);
                    return;
                }
            }
        }
    }

    /// Gives the connection to a thread, or tells it to come back.
    fn start(&mut self, connection: Connection) {
        let admitted = match self.connections.admit(connection) {
            Ok(admitted) => admitted,
            Err(connection) => return self.protocol.turn_away(connection),
        };
        if let Err(e) = self.workers.hand(admitted) {
            self.complain(&format!("starting a thread for a connection: {e}; it was closed"));
        }
    }

    fn complain(&mut self, message: &str) {
        if self.last_complaint.is_none_or(|at| at.elapsed() >= COMPLAINT_PAUSE) {
            self.last_complaint = Some(Instant::now());
            log::warn!("{message}");
        }
    }

    /// Stops accepting and sees the accepted requests through.
    fn finish(mut self, end: Stop, signals: &Signals, notifier: &mut Notifier) -> Result<Stop> {
        notifier.stopping();
        self.protocol.stop();
        self.listeners.clear();
        while self.connections.count() > 0 {
            let (signalled, _) = self.wait(signals, ACCEPT_PAUSE)?;
            if signalled && signals.received() {
                return Ok(Stop::Forced(self.connections.count()));
            }
            notifier.alive(&format!("Stopping: {} requests left", self.connections.count()));
        }
        Ok(end)
    }
}

/// Errors of accept(2) that are about the connection that was to be accepted.
fn is_the_peers(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(
            libc::ECONNABORTED
                | libc::EINTR
                | libc::EPROTO
                | libc::ENETDOWN
                | libc::ENETUNREACH
                | libc::EHOSTDOWN
                | libc::EHOSTUNREACH
                | libc::ENOPROTOOPT
                | libc::EOPNOTSUPP
                | libc::ENONET
        )
    )
}
