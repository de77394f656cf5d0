//! The sockets passed by systemd (sd_listen_fds(3)).

use std::net::TcpListener;
use std::os::unix::net::UnixListener;

use listenfd::ListenFd;

use crate::error::{Error, Result};

/// A listening socket.
#[derive(Debug)]
pub enum Socket {
    /// A TCP socket.
    Tcp(TcpListener),
    /// A Unix socket.
    Unix(UnixListener),
}

/// Returns the passed sockets, TCP or Unix, in the order of the socket unit; empty if there are none. Must be
/// called before any thread is started, because it removes variables from the environment.
pub fn passed() -> Result<Vec<Socket>> {
    let mut fds = ListenFd::from_env();
    let mut sockets = Vec::with_capacity(fds.len());
    for index in 0..fds.len() {
        let failed = |e| Error::io(format!("taking socket {index} from systemd"), e);
        match fds.take_unix_listener(index) {
            Ok(Some(listener)) => sockets.push(Socket::Unix(listener)),
            _ => sockets.extend(fds.take_tcp_listener(index).map_err(failed)?.map(Socket::Tcp)),
        }
    }
    Ok(sockets)
}
