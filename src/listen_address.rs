//! Where to listen: an address of TCP or the path of a Unix socket, as settings write it.

use std::fmt;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::str::FromStr;

/// A place to listen at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListenAddress {
    /// An IP address and port.
    Tcp(SocketAddr),
    /// The path of a Unix socket.
    Unix(PathBuf),
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(out, "{address}"),
            Self::Unix(path) => write!(out, "unix:{}", path.display()),
        }
    }
}

impl FromStr for ListenAddress {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        if let Some(path) = text.strip_prefix("unix:") {
            return match path {
                "" => Err("unix: must be followed by a path".into()),
                path => Ok(Self::Unix(path.into())),
            };
        }
        let mut addresses =
            text.to_socket_addrs().map_err(|e| format!("{text:?} is no HOST:PORT: {e}"))?;
        addresses.next().map(Self::Tcp).ok_or_else(|| format!("{text:?} has no address"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_it_writes() {
        for text in ["127.0.0.1:5003", "[::1]:1", "unix:/run/copr-keygen.sock"] {
            let parsed = text.parse::<ListenAddress>().map(|address| address.to_string());
            assert_eq!(parsed.as_deref(), Ok(text));
        }
        for bad in ["", "unix:", "5003", "127.0.0.1", "127.0.0.1:65536", ":::"] {
            assert!(bad.parse::<ListenAddress>().is_err(), "{bad}");
        }
    }
}
