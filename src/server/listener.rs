//! The listening sockets, TCP or Unix: those passed by systemd and those bound by this process.

use std::fs;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use keystore::FileId;
use nix::sys::socket::sockopt::PeerCredentials;
use nix::sys::socket::{Backlog, getsockopt, listen};

use super::connection::{Connection, Peer};
use crate::error::{Error, Result};
use crate::listen_address::{ListenAddress, is_not_here};
use crate::systemd::sockets::Socket;

/// A non-blocking listening socket.
#[derive(Debug)]
pub struct Listener {
    socket: Socket,
    /// The path and identity of a Unix socket that this process has bound. The path is removed when the
    /// listener is dropped.
    own_path: Option<(PathBuf, FileId)>,
}

impl Listener {
    /// Takes over the sockets passed by systemd. The paths of Unix sockets among them are never removed.
    pub fn take_over(passed: Vec<Socket>) -> Result<Vec<Self>> {
        let listeners: io::Result<_> = passed.into_iter().map(Self::new).collect();
        listeners.map_err(|e| Error::io("taking over the sockets of systemd", e))
    }

    /// Binds `addresses`, which `setting` gives. A host name stands for all of its addresses. A Unix socket on
    /// which no process listens any more is replaced.
    pub fn bind(setting: &str, addresses: &[ListenAddress]) -> Result<Vec<Self>> {
        let bound: Result<Vec<_>> =
            addresses.iter().map(|address| Self::bind_one(setting, address)).collect();
        Ok(bound?.into_iter().flatten().collect())
    }

    fn new(socket: Socket) -> io::Result<Self> {
        match &socket {
            Socket::Tcp(listener) => listener.set_nonblocking(true)?,
            Socket::Unix(listener) => listener.set_nonblocking(true)?,
        }
        Ok(Self { socket, own_path: None })
    }

    fn bind_one(setting: &str, address: &ListenAddress) -> Result<Vec<Self>> {
        match address {
            ListenAddress::Tcp(host_port) => bind_tcp(&host_port.addresses(setting)?),
            ListenAddress::Unix(path) => bind_unix(path)
                .map(|listener| vec![listener])
                .map_err(|e| Error::io(format!("listening at {address}"), e)),
        }
    }

    /// Accepts the next pending connection. Returns `None` if there is none.
    pub fn accept(&self) -> io::Result<Option<Connection>> {
        let accepted = match &self.socket {
            Socket::Tcp(listener) => listener.accept().and_then(|(stream, from)| {
                stream.set_nonblocking(false)?;
                stream.set_nodelay(true)?;
                Ok(Connection::new(stream, Peer::Tcp(from)))
            }),
            Socket::Unix(listener) => listener.accept().and_then(|(stream, _)| {
                stream.set_nonblocking(false)?;
                let user = getsockopt(&stream, PeerCredentials)?;
                Ok(Connection::new(stream, Peer::Unix(user)))
            }),
        };
        match accepted {
            Ok(connection) => Ok(Some(connection)),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Returns the address of the socket if other hosts may reach it. A TCP socket whose address cannot be
    /// determined counts as reachable.
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
        let Some((path, made)) = &self.own_path else { return };
        let is_ours = |found: fs::Metadata| FileId::from(&found) == *made;
        if fs::symlink_metadata(path).is_ok_and(is_ours) {
            let _ = fs::remove_file(path); // if this fails, the next start replaces it
        }
    }
}

/// Binds all `addresses` of a host, as a client may use any of them. Skips an address that this host does not
/// have, as long as another can be bound.
fn bind_tcp(addresses: &[SocketAddr]) -> Result<Vec<Listener>> {
    let (mut listeners, mut missing) = (Vec::with_capacity(addresses.len()), None);
    for address in addresses {
        let bound = TcpListener::bind(address).and_then(|listener| {
            // The standard library asks for a backlog of no more than 128.
            listen(&listener, Backlog::MAXALLOWABLE)?;
            Listener::new(Socket::Tcp(listener))
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

fn bind_unix(path: &Path) -> io::Result<Listener> {
    let bound = match UnixListener::bind(path) {
        Err(e) if e.kind() == io::ErrorKind::AddrInUse => {
            if is_abandoned(path)? {
                fs::remove_file(path)?;
            }
            UnixListener::bind(path)
        }
        bound => bound,
    };
    let mut listener = Listener::new(Socket::Unix(bound?))?;
    let made = fs::symlink_metadata(path)?;
    listener.own_path = Some((path.into(), FileId::from(&made)));
    Ok(listener)
}

/// Whether `path` is a socket on which no process listens any more.
fn is_abandoned(path: &Path) -> io::Result<bool> {
    let is_refused = |e: io::Error| e.kind() == io::ErrorKind::ConnectionRefused;
    let is_socket = fs::symlink_metadata(path)?.file_type().is_socket();
    Ok(is_socket && UnixStream::connect(path).is_err_and(is_refused))
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
        // An address in use is not mistaken for one that this host does not have.
        let taken = TcpListener::bind(v4).and_then(|taken| Ok((taken.local_addr()?, taken)));
        let Ok((address, _taken)) = taken else { panic!("{taken:?}") };
        assert!(bind_tcp(&[v4, address]).is_err());
    }
}
