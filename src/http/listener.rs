//! Sockets, TCP or Unix, under one type each: a listener, and a connection with deadlines.

use std::fs;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::sys::socket::sockopt::PeerCredentials;
use nix::sys::socket::{Backlog, MsgFlags, UnixCredentials, getsockopt, listen, recv};

use crate::error::{Error, Result};
use crate::listen_address::{ListenAddress, is_not_here};

/// A socket that accepts connections, never waiting for one.
#[derive(Debug)]
pub struct Listener {
    socket: Socket,
    /// Path, device and inode of a Unix socket that we made and remove in the end.
    own_path: Option<(PathBuf, u64, u64)>,
}

#[derive(Debug)]
enum Socket {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Listener {
    /// Takes over a TCP listener.
    pub fn tcp(listener: TcpListener) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        Ok(Self { socket: Socket::Tcp(listener), own_path: None })
    }

    /// Takes over a Unix listener, whose path belongs to somebody else.
    pub fn unix(listener: UnixListener) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        Ok(Self { socket: Socket::Unix(listener), own_path: None })
    }

    /// Binds `address`: of a name, every address. A Unix socket at which nobody listens any more is
    /// replaced.
    pub fn bind(address: &ListenAddress) -> Result<Vec<Self>> {
        match address {
            ListenAddress::Tcp(host_port) => bind_tcp(&host_port.addresses()?),
            ListenAddress::Unix(path) => bind_unix(path)
                .and_then(Self::unix)
                .and_then(|mut listener| {
                    let made = fs::symlink_metadata(path)?;
                    listener.own_path = Some((path.clone(), made.dev(), made.ino()));
                    Ok(vec![listener])
                })
                .map_err(|e| Error::io(format!("listening at {address}"), e)),
        }
    }

    /// The next connection that waits, if one does.
    pub fn accept(&self) -> io::Result<Option<Stream>> {
        let accepted = match &self.socket {
            Socket::Tcp(listener) => listener.accept().and_then(|(stream, from)| {
                stream.set_nonblocking(false)?;
                stream.set_nodelay(true)?;
                Ok(Stream { socket: Connected::Tcp(stream), peer: from.to_string(), user: None })
            }),
            Socket::Unix(listener) => listener.accept().and_then(|(stream, _)| {
                stream.set_nonblocking(false)?;
                let user = getsockopt(&stream, PeerCredentials)?;
                let peer = format!("unix:uid={},pid={}", user.uid(), user.pid());
                Ok(Stream { user: Some(user), ..Stream::unix(stream, peer) })
            }),
        };
        match accepted {
            Ok(stream) => Ok(Some(stream)),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// The address, when it can be reached from other hosts, or that cannot be ruled out.
    pub fn open_address(&self) -> Option<String> {
        match &self.socket {
            Socket::Unix(_) => None,
            Socket::Tcp(listener) => match listener.local_addr() {
                Ok(address) if address.ip().to_canonical().is_loopback() => None,
                Ok(address) => Some(address.to_string()),
                Err(e) => Some(format!("a socket without an address ({e})")),
            },
        }
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.socket {
            Socket::Tcp(listener) => listener.as_fd(),
            Socket::Unix(listener) => listener.as_fd(),
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let Some((path, device, inode)) = &self.own_path else { return };
        let is_ours = |found: fs::Metadata| (found.dev(), found.ino()) == (*device, *inode);
        if fs::symlink_metadata(path).is_ok_and(is_ours) {
            let _ = fs::remove_file(path); // the next start replaces it if this fails
        }
    }
}

/// Clients take whichever address of a name they like, so all are bound. One that this host does not
/// have is passed over as long as there is another.
fn bind_tcp(addresses: &[SocketAddr]) -> Result<Vec<Listener>> {
    let (mut listeners, mut missing) = (Vec::with_capacity(addresses.len()), None);
    for address in addresses {
        let bound = TcpListener::bind(address).and_then(|listener| {
            // std asks for no more than 128.
            listen(&listener, Backlog::MAXALLOWABLE)?;
            Listener::tcp(listener)
        });
        let failed = |e| Error::io(format!("listening at {address}"), e);
        match bound {
            Ok(listener) => listeners.push(listener),
            Err(e) if is_not_here(&e) => missing = Some(failed(e)),
            Err(e) => return Err(failed(e)),
        }
    }
    match missing {
        Some(e) if listeners.is_empty() => Err(e),
        Some(e) => {
            log::warn!("{e}; the other addresses of the name are served");
            Ok(listeners)
        }
        None => Ok(listeners),
    }
}

fn bind_unix(path: &Path) -> io::Result<UnixListener> {
    match UnixListener::bind(path) {
        Err(e) if e.kind() == io::ErrorKind::AddrInUse => {}
        bound => return bound,
    }
    let abandoned = fs::symlink_metadata(path)?.file_type().is_socket()
        && UnixStream::connect(path).is_err_and(|e| e.kind() == io::ErrorKind::ConnectionRefused);
    if abandoned {
        fs::remove_file(path)?;
    }
    UnixListener::bind(path)
}

/// A connection.
#[derive(Debug)]
pub struct Stream {
    socket: Connected,
    peer: String,
    /// Who connected to a Unix socket.
    user: Option<UnixCredentials>,
}

#[derive(Debug)]
enum Connected {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Stream {
    /// A connection over a Unix socket, from nobody in particular.
    pub fn unix(stream: UnixStream, peer: String) -> Self {
        Self { socket: Connected::Unix(stream), peer, user: None }
    }

    /// Who is at the other end: address and port, or uid and pid.
    pub fn peer(&self) -> &str {
        &self.peer
    }

    /// The user at the other end, as the kernel vouches for; `None` over TCP.
    pub fn user(&self) -> Option<UnixCredentials> {
        self.user
    }

    /// Ends reading, writing or both; a thread that waits in either returns at once.
    pub fn shut_down(&self, how: Shutdown) {
        let _ = match &self.socket {
            Connected::Tcp(stream) => stream.shutdown(how),
            Connected::Unix(stream) => stream.shutdown(how),
        }; // fails only when the peer has left already
    }

    /// Reads what has arrived, up to a megabyte, and forgets it; `false` when there was nothing. Closing
    /// with something unread would reset the connection, and the answer could be lost.
    pub fn discard_received(&self) -> bool {
        let mut sink = [0; 8192];
        for round in 0..128 {
            let count = match &self.socket {
                Connected::Tcp(stream) => {
                    recv(stream.as_raw_fd(), &mut sink, MsgFlags::MSG_DONTWAIT)
                }
                Connected::Unix(stream) => {
                    recv(stream.as_raw_fd(), &mut sink, MsgFlags::MSG_DONTWAIT)
                }
            };
            if !matches!(count, Ok(1..)) {
                return round > 0;
            }
        }
        true
    }

    /// Reads and writes until `deadline`, not later.
    pub fn until(&self, deadline: Instant) -> Timed<'_> {
        Timed { stream: self, deadline }
    }
}

/// A connection under a deadline. Reads and writes fail with `TimedOut` when it has passed.
pub struct Timed<'a> {
    stream: &'a Stream,
    deadline: Instant,
}

impl Timed<'_> {
    fn left(&self) -> io::Result<Duration> {
        match self.deadline.saturating_duration_since(Instant::now()) {
            left if left.is_zero() => Err(io::ErrorKind::TimedOut.into()),
            left => Ok(left),
        }
    }
}

impl Read for Timed<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = Some(self.left()?);
        match &self.stream.socket {
            Connected::Tcp(stream) => {
                stream.set_read_timeout(left)?;
                (&mut &*stream).read(buffer)
            }
            Connected::Unix(stream) => {
                stream.set_read_timeout(left)?;
                (&mut &*stream).read(buffer)
            }
        }
        .map_err(timed_out)
    }
}

impl Write for Timed<'_> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let left = Some(self.left()?);
        match &self.stream.socket {
            Connected::Tcp(stream) => {
                stream.set_write_timeout(left)?;
                (&mut &*stream).write(buffer)
            }
            Connected::Unix(stream) => {
                stream.set_write_timeout(left)?;
                (&mut &*stream).write(buffer)
            }
        }
        .map_err(timed_out)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The kernel reports an expired socket time-out as `EAGAIN`.
fn timed_out(error: io::Error) -> io::Error {
    if error.kind() == io::ErrorKind::WouldBlock { io::ErrorKind::TimedOut.into() } else { error }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_address_of_a_name_is_bound_but_those_of_other_hosts() {
        let [v4, v6, elsewhere] = ["127.0.0.1:0", "[::1]:0", "192.0.2.77:0"]
            .map(|text| text.parse().unwrap_or(SocketAddr::from(([0, 0, 0, 0], 0))));
        let has_v6 = TcpListener::bind(v6).is_ok();
        let families = |bound: Result<Vec<Listener>>| {
            let mut families: Vec<bool> = Vec::new();
            for listener in bound.into_iter().flatten() {
                assert_eq!(listener.open_address(), None);
                let Socket::Tcp(tcp) = &listener.socket else { continue };
                families.extend(tcp.local_addr().map(|address| address.is_ipv6()).ok());
            }
            families
        };
        let expected = if has_v6 { vec![false, true] } else { vec![false] };
        assert_eq!(families(bind_tcp(&[v4, v6, elsewhere])), expected);
        assert!(bind_tcp(&[elsewhere]).is_err());
        // What is taken is no address of another host.
        let taken = TcpListener::bind(v4).and_then(|taken| Ok((taken.local_addr()?, taken)));
        let Ok((address, _taken)) = taken else { panic!("{taken:?}") };
        assert!(bind_tcp(&[v4, address]).is_err());
    }
}
