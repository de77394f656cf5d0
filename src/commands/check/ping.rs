//! Sends `GET /ping` to the service, for a host where systemd does not hold the socket.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use crate::listen_address::{ListenAddress, is_not_here};

const PATIENCE: Duration = Duration::from_secs(2);

/// Fails unless copr-keygen answers at `address`.
pub fn ping(address: &ListenAddress) -> io::Result<()> {
    match address {
        ListenAddress::Tcp(host_port) => {
            let (mut answered, mut missing) = (false, None);
            // A client may use any address that the name resolves to and this host has, so each must answer.
            for address in host_port.addresses("listen").map_err(io::Error::other)? {
                match TcpStream::connect_timeout(&address, PATIENCE) {
                    Ok(stream) => {
                        stream.set_read_timeout(Some(PATIENCE))?;
                        stream.set_write_timeout(Some(PATIENCE))?;
                        ask(stream)?;
                        answered = true;
                    }
                    Err(e) if is_not_here(&e) => missing = Some(e),
                    Err(e) => return Err(e),
                }
            }
            missing.filter(|_| !answered).map_or(Ok(()), Err)
        }
        ListenAddress::Unix(path) => {
            let stream = UnixStream::connect(path)?;
            stream.set_read_timeout(Some(PATIENCE))?;
            stream.set_write_timeout(Some(PATIENCE))?;
            ask(stream)
        }
    }
}

fn ask(mut stream: impl Read + Write) -> io::Result<()> {
    stream.write_all(b"GET /ping HTTP/1.1\r\nHost: localhost\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.take(4096).read_to_end(&mut answer)?;
    if answer.starts_with(b"HTTP/1.1 200 ") && answer.ends_with(b"pong\n") {
        return Ok(());
    }
    Err(io::Error::other("it is not copr-keygen that answers there"))
}
