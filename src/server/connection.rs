//! An accepted connection, TCP or Unix: reads and writes that end at a deadline.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::socket::sockopt::{ReceiveTimeout, SendTimeout};
use nix::sys::socket::{MsgFlags, Shutdown, UnixCredentials, recv, send, setsockopt, shutdown};
use nix::sys::time::{TimeVal, TimeValLike};

/// The other end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    /// Its address and port.
    Tcp(SocketAddr),
    /// Its user, group and process, as the kernel vouches for.
    Unix(UnixCredentials),
}

impl fmt::Display for Peer {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(out, "{address}"),
            Self::Unix(user) => write!(out, "unix:uid={},pid={}", user.uid(), user.pid()),
        }
    }
}

/// How long a client that is still sending may go on, so that it gets to read its refusal.
const LINGER_TIME: Duration = Duration::from_secs(1);

/// A connection. The system calls are the same for TCP and Unix sockets.
#[derive(Debug)]
pub struct Connection {
    socket: OwnedFd,
    peer: Peer,
}

impl Connection {
    /// A connection of `peer`.
    pub fn new(socket: impl Into<OwnedFd>, peer: Peer) -> Self {
        Self { socket: socket.into(), peer }
    }

    /// The other end.
    pub fn peer(&self) -> Peer {
        self.peer
    }

    /// Ends reading, writing or both; a thread that waits in either returns at once.
    pub fn shut_down(&self, how: Shutdown) {
        let _ = shutdown(self.socket.as_raw_fd(), how); // fails only when the peer has left already
    }

    /// Reads what has arrived, up to a megabyte, and forgets it; `false` when there was nothing. Closing
    /// with something unread would reset the connection, and the answer could be lost.
    pub fn discard_received(&self) -> bool {
        let mut sink = [0; 8192];
        for round in 0..128 {
            let count = recv(self.socket.as_raw_fd(), &mut sink, MsgFlags::MSG_DONTWAIT);
            if !matches!(count, Ok(1..)) {
                return round > 0;
            }
        }
        true
    }

    /// Sends what the buffer of the socket takes of `bytes`, without waiting.
    pub fn send_at_once(&self, bytes: &[u8]) -> io::Result<usize> {
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
        Ok(send(self.socket.as_raw_fd(), bytes, flags)?)
    }

    /// Ends writing, and reads for a moment what is still coming: closing a socket with unread data in it resets
    /// the connection, and the answer is lost.
    pub fn linger(&self) {
        self.shut_down(Shutdown::Write);
        let mut rest = self.until(Instant::now() + LINGER_TIME).take(1024 * 1024);
        let mut sink = [0; 8192];
        while matches!(rest.read(&mut sink), Ok(1..)) {}
    }

    /// Reads and writes until `deadline`, not later.
    pub fn until(&self, deadline: Instant) -> Timed<'_> {
        Timed { socket: &self.socket, deadline }
    }
}

/// A connection under a deadline. Reads and writes fail with `TimedOut` when it has passed.
pub struct Timed<'a> {
    socket: &'a OwnedFd,
    deadline: Instant,
}

impl Timed<'_> {
    /// The time-out of the next system call. Zero would be none at all.
    fn left(&self) -> io::Result<TimeVal> {
        let left = self.deadline.saturating_duration_since(Instant::now()).as_micros();
        match i64::try_from(left).unwrap_or(i64::MAX) {
            0 => Err(io::ErrorKind::TimedOut.into()),
            left => Ok(TimeVal::microseconds(left)),
        }
    }
}

impl Read for Timed<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        setsockopt(self.socket, ReceiveTimeout, &self.left()?)?;
        recv(self.socket.as_raw_fd(), buffer, MsgFlags::empty()).map_err(timed_out)
    }
}

impl Write for Timed<'_> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        setsockopt(self.socket, SendTimeout, &self.left()?)?;
        send(self.socket.as_raw_fd(), buffer, MsgFlags::MSG_NOSIGNAL).map_err(timed_out)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The kernel reports an expired socket time-out as `EAGAIN`.
fn timed_out(error: Errno) -> io::Error {
    match error {
        Errno::EAGAIN => io::ErrorKind::TimedOut.into(),
        other => other.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::unistd::{getpid, getuid};

    #[test]
    fn a_peer_has_one_text_in_every_log() {
        for address in ["192.0.2.7:5003", "[2001:db8::7]:5003"] {
            let peer = Peer::Tcp(address.parse().unwrap());
            assert_eq!(peer.to_string(), address);
        }
        let this_process = Peer::Unix(UnixCredentials::new());
        let expected = format!("unix:uid={},pid={}", getuid(), getpid());
        assert_eq!(this_process.to_string(), expected);
    }
}
