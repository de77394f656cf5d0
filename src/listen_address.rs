//! The addresses that settings give to listen on: a TCP host and port, or the path of a Unix socket. Parsing
//! looks up no names; this happens when the address is bound.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::str::FromStr;
use std::{fmt, io};

use crate::error::{Error, Result};

/// The longest host name, in bytes (RFC 1035, 2.3.4).
const NAME_MAX: usize = 253;

/// An address to listen on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListenAddress {
    /// A TCP address.
    Tcp(HostPort),
    /// The path of a Unix socket.
    Unix(PathBuf),
}

/// A host name or an IP address, and a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostPort {
    /// The name or address, without the brackets around an IPv6 address.
    host: String,
    port: u16,
}

impl HostPort {
    /// Returns every address of the host, at least one and without duplicates. Looks up the host if it is a
    /// name. An error names `setting`, the setting that gives the host.
    pub fn addresses(&self, setting: &str) -> Result<Vec<SocketAddr>> {
        let refused = |e: io::Error| {
            Error::Settings(format!(
                "the addresses of {self} (setting {setting}) cannot be found: {e}"
            ))
        };
        let mut found: Vec<SocketAddr> = Vec::new();
        for address in (self.host.as_str(), self.port).to_socket_addrs().map_err(refused)? {
            if !found.contains(&address) {
                found.push(address);
            }
        }
        if found.is_empty() { Err(refused(io::ErrorKind::NotFound.into())) } else { Ok(found) }
    }
}

/// Whether binding an address failed because this host does not have it, such as `::1` where IPv6 is off.
pub fn is_not_here(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EADDRNOTAVAIL | libc::EAFNOSUPPORT))
}

impl fmt::Display for HostPort {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(out, "[{}]:{}", self.host, self.port),
            false => write!(out, "{}:{}", self.host, self.port),
        }
    }
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(host_port) => write!(out, "{host_port}"),
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
        let wrong = |why: &str| Err(format!("{text:?} is no HOST:PORT: {why}"));
        let Some((host, port)) = text.rsplit_once(':') else { return wrong("there is no port") };
        let digits = port.bytes().all(|byte| byte.is_ascii_digit());
        let Some(port) = port.parse().ok().filter(|_| digits) else {
            return wrong("the port must be a number from 0 to 65535");
        };
        let host = match host.strip_prefix('[').map(|host| host.strip_suffix(']')) {
            Some(Some(host)) if is_ipv6(host) => host,
            Some(_) => return wrong("between [ and ] there must be an IPv6 address"),
            None if host.contains(':') => return wrong("an IPv6 address must be between [ and ]"),
            None if is_name(host) => host,
            None => return wrong("it is neither an address nor a name"),
        };
        Ok(Self::Tcp(HostPort { host: host.into(), port }))
    }
}

/// Whether `text` is an IPv6 address. It may have a zone, as in `fe80::1%eth0`.
fn is_ipv6(text: &str) -> bool {
    let address = text.split_once('%').map_or(text, |(address, _)| address);
    address.parse::<Ipv6Addr>().is_ok()
}

/// Whether `text` is an IPv4 address or a host name. If its last label is a number, it must be a valid IPv4
/// address; otherwise a mistyped address would pass for a name.
fn is_name(text: &str) -> bool {
    let fits = |c: char| c.is_alphanumeric() || "-_.".contains(c);
    let ends_in_digits = |text: &str| {
        // The dot of the root may be the last character of a name.
        let last = text.strip_suffix('.').unwrap_or(text).rsplit('.').next().unwrap_or_default();
        last.bytes().all(|byte| byte.is_ascii_digit())
    };
    match ends_in_digits(text) {
        true => text.parse::<Ipv4Addr>().is_ok(),
        false => text.len() <= NAME_MAX && text.chars().all(fits),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_it_writes() {
        for text in [
            "127.0.0.1:5003",
            "[::1]:1",
            "[fe80::1%eth0]:5003",
            "localhost:5003",
            "sign-host.example.org:0",
            "localhost.:80",
            "unix:/run/copr-keygen.sock",
        ] {
            let parsed = text.parse::<ListenAddress>().map(|address| address.to_string());
            assert_eq!(parsed.as_deref(), Ok(text));
        }
        for bad in [
            "",
            "unix:",
            "5003",
            "127.0.0.1",
            "127.0.0.1:65536",
            "127.0.0.1:+1",
            "127.0.0.1:",
            "127.0.0:1",
            "300.0.0.1:1",
            ":::",
            ":5003",
            "::1:5003",
            "[::1]",
            "[]:1",
            "[127.0.0.1]:1",
            "[::1:1",
            "http://localhost:5003",
            "local/host:1",
            "*:5003",
        ] {
            assert!(bad.parse::<ListenAddress>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_name_is_read_without_asking_for_its_address() {
        let Ok(ListenAddress::Tcp(nowhere)) = "no-such-name.invalid:5003".parse() else {
            panic!("it was not read");
        };
        assert!(nowhere.addresses("listen").is_err_and(|e| crate::error::exit_status(&e) == 78));
        for (text, expected) in [("127.0.0.1:7", "127.0.0.1:7"), ("[::1]:7", "[::1]:7")] {
            let Ok(ListenAddress::Tcp(address)) = text.parse() else { panic!("{text}") };
            let resolved = address.addresses("listen").unwrap_or_default();
            assert_eq!(resolved.iter().map(ToString::to_string).collect::<Vec<_>>(), [expected]);
        }
    }
}
