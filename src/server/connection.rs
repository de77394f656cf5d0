//! An accepted TCP or Unix connection, with reads and writes that end at a deadline.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::socket::sockopt::{ReceiveTimeout, SendTimeout};
use nix::sys::socket::{MsgFlags, Shutdown, UnixCredentials, recv, send, setsockopt, shutdown};
use nix::sys::time::{TimeVal, TimeValLike};

/// The client at the other end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    /// The address and port of a TCP client.
    Tcp(SocketAddr),
    /// The user, group and process of a client on a Unix socket, as reported by the kernel.
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

/// How long [`Connection::linger`] reads from a client that is still sending, so that the client gets to read
/// its answer.
const LINGER_TIME: Duration = Duration::from_secs(1);

/// A connection. TCP and Unix sockets use the same system calls.
#[derive(Debug)]
pub struct Connection {
    socket: OwnedFd,
    peer: Peer,
}

impl Connection {
    /// Wraps a connected socket whose other end is `peer`.
    pub fn new(socket: impl Into<OwnedFd>, peer: Peer) -> Self {
        Self { socket: socket.into(), peer }
    }

    /// Returns the client at the other end.
    pub fn peer(&self) -> Peer {
        self.peer
    }

    /// Shuts down reading, writing or both. A thread that is blocked in such a call returns at once.
    pub fn shut_down(&self, how: Shutdown) {
        let _ = shutdown(self.socket.as_raw_fd(), how); // fails only if the peer has already left
    }

    /// Reads and discards up to 1 MiB of what has arrived, without waiting. Returns whether there was anything.
    /// Closing a socket with unread data resets the connection, and the answer could be lost.
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

    /// Sends as much of `bytes` as the socket buffer takes, without waiting. Returns the number of bytes sent.
    pub fn send_at_once(&self, bytes: &[u8]) -> io::Result<usize> {
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
        Ok(send(self.socket.as_raw_fd(), bytes, flags)?)
    }

    /// Shuts down writing, then reads and discards up to 1 MiB for at most a second. Closing a socket with
    /// unread data resets the connection, and the answer would be lost.
    pub fn linger(&self) {
        self.shut_down(Shutdown::Write);
        let mut rest = self.until(Instant::now() + LINGER_TIME).take(1024 * 1024);
        let mut sink = [0; 8192];
        while matches!(rest.read(&mut sink), Ok(1..)) {}
    }

    /// Returns a reader and writer whose calls end at `deadline`.
    pub fn until(&self, deadline: Instant) -> Timed<'_> {
        Timed { socket: &self.socket, deadline }
    }
}

/// A connection with a deadline. Once it has passed, reads and writes fail with `TimedOut`.
pub struct Timed<'a> {
    socket: &'a OwnedFd,
    deadline: Instant,
}

impl Timed<'_> {
    /// Returns the timeout for the next system call. A timeout of zero would mean none at all, so it is an
    /// error.
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

/// Converts an error of a socket call: the kernel reports an expired socket timeout as `EAGAIN`.
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
