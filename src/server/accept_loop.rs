//! The accept loop: accepts connections, reports the state of the service to systemd, and decides when to stop.

use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{Duration, Instant};
use std::{io, thread};

use gpg::text::number;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::connection::Connection;
use super::connection_table::{Admitted, ConnectionTable};
use super::listener::Listener;
use super::workers::Workers;
use crate::error::{Error, Result};
use crate::systemd::notify::Notifier;
use crate::systemd::signals::Signals;

/// The accept loop runs a round at least this often.
const ROUND: Duration = Duration::from_secs(1);
/// The pause after an accept that failed, for example because the process is out of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// The minimum time between two log lines about failures to accept or serve connections.
const COMPLAINT_PAUSE: Duration = Duration::from_secs(10);
/// The maximum number of connections accepted from one socket before the next socket gets its turn.
const ACCEPT_BATCH: usize = 64;

/// A protocol that is spoken over the connections, as far as the accept loop is concerned.
pub trait Protocol: Send + Sync + 'static {
    /// Serves a connection, in a thread that serves no other one meanwhile.
    fn serve(&self, admitted: &Admitted);

    /// Refuses a connection that got no place in the table. Must not block, as the accepting thread calls this.
    fn turn_away(&self, connection: Connection);

    /// Returns the status line for `systemctl status`.
    fn status_text(&self) -> String;

    /// Whether there is work in progress without an open connection. A busy process does not exit as idle.
    fn is_busy(&self) -> bool {
        false
    }

    /// Called once no more connections are accepted. The server then waits for the open ones to end.
    fn stop(&self);
}

/// The accept loop, with its listeners, connections and worker threads.
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
    /// No connection was open for as long as the setting `idle_timeout` says.
    Idle,
    /// A signal arrived, and every request that had arrived was answered.
    Signal,
    /// A second signal arrived and cut off this many requests.
    Forced(usize),
}

impl Stop {
    /// Logs why the server stopped. Fails if requests were cut off.
    pub fn told(self) -> Result<()> {
        match self {
            Self::Idle => {
                log::info!("nothing to do, exiting; the next connection starts the service again");
            }
            Self::Signal => log::info!("stopped by a signal, every request was answered"),
            Self::Forced(count) => {
                return Err(Error::io(
                    format!("cutting off {}", number(count, "request", "requests")),
                    io::Error::other("a second signal arrived"),
                ));
            }
        }
        Ok(())
    }
}

impl Server {
    /// Creates a server that speaks `protocol` on `listeners`.
    pub fn new(protocol: Arc<impl Protocol>, listeners: Vec<Listener>) -> Self {
        let workers = Workers::new({
            let protocol = Arc::clone(&protocol);
            move |admitted| protocol.serve(&admitted)
        });
        let connections = ConnectionTable::new();
        Self { protocol, listeners, connections, workers, last_complaint: None }
    }

    /// Serves until a signal arrives, or until no connection has been open for `idle_timeout` (`None` means no
    /// limit). Connections that have not been accepted by then stay queued in the sockets for the next process.
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
            // Exit as idle only after poll(2) has found no pending connection on any socket.
            if ready.is_empty() && left.is_zero() {
                break Stop::Idle;
            }
            for index in ready {
                self.accept_from(index);
            }
        };
        self.finish(end, signals, notifier)
    }

    /// Returns how long until this process exits as idle, or `None` while it is busy or if it has no idle
    /// timeout.
    fn time_to_idle_exit(&self, idle_timeout: Option<Duration>) -> Option<Duration> {
        if self.protocol.is_busy() {
            return None;
        }
        let since = self.connections.idle_since()?;
        Some(idle_timeout?.saturating_sub(since.elapsed()))
    }

    /// Waits for a signal or a connection, for at most `limit`. Returns whether a signal is pending, and the
    /// indexes of the listeners that are ready.
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
                    // Most likely the process is out of file descriptors or memory: win some back.
                    self.connections.cut_off_oldest();
                    thread::sleep(ACCEPT_PAUSE);
                    return;
                }
            }
        }
    }

    /// Hands the connection to a worker thread, or turns it away if the connection table is full.
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

    /// Stops accepting and waits until all open connections have ended, or until a second signal arrives.
    fn finish(mut self, end: Stop, signals: &Signals, notifier: &mut Notifier) -> Result<Stop> {
        notifier.stopping();
        self.protocol.stop();
        self.listeners.clear();
        while self.connections.count() > 0 {
            let (signalled, _) = self.wait(signals, ACCEPT_PAUSE)?;
            if signalled && signals.received() {
                return Ok(Stop::Forced(self.connections.count()));
            }
            let requests = number(self.connections.count(), "request", "requests");
            notifier.alive(&format!("Stopping: {requests} left"));
        }
        Ok(end)
    }
}

/// Whether an error of accept(2) concerns only the connection that was about to be accepted, or an interrupted
/// call. The next call may succeed.
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
