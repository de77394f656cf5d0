//! Finds out which signer this host has, `copr-keygen signd` or obs-signd: from the systemd units, or without
//! systemd by asking the program that answers.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use signer::request::{WHO_ANSWERS, is_ours};

use crate::commands::sign_conf::SignConf;
use crate::listen_address::{ListenAddress, is_not_here};
use crate::settings::Settings;
use crate::systemd::systemctl::{SIGND, SIGND_SOCKET, Units};

/// The time limit for connecting, and for the answer.
const PATIENCE: Duration = Duration::from_secs(2);
/// The number of bytes that are read at most; the answer is shorter.
const ANSWER_MAX: u64 = 4096;

/// Which signers this host has. Having both or neither is a mistake, but a state for a trial may have neither.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WhoSigns {
    /// Whether `copr-keygen signd` signs.
    pub ours: bool,
    /// Whether obs-signd signs.
    pub obs_signd: bool,
}

impl WhoSigns {
    /// Decides by the units: a signer counts if its unit is active or enabled.
    pub fn by_units(units: &Units) -> Self {
        let signs = |name: &str| {
            let unit = units.unit(name);
            unit.is_installed() && (unit.is_active() || unit.is_enabled())
        };
        Self { ours: signs(SIGND_SOCKET), obs_signd: SIGND.into_iter().any(signs) }
    }

    /// Decides by what answers: at the addresses of the setting `signd.listen`, and at the port in `conf`.
    /// obs-signd counts if anything but `copr-keygen signd` answers at its port. It also counts if it does
    /// not answer but is configured, unless `copr-keygen signd` answers.
    pub fn by_answers(settings: &Settings, conf: Option<&SignConf>) -> Self {
        let listen = settings.signd.listen.get().into_iter().flatten();
        let mut ours = false;
        for address in listen {
            ours |= matches!(who_answers(address), Ok(true));
        }
        let at_port = conf.and_then(|conf| conf.port().ok()).map(who_answers_at_port);
        ours |= matches!(at_port, Some(Ok(true)));
        let obs_signd = match at_port {
            Some(Ok(is_ours)) => !is_ours,
            Some(Err(_)) | None => conf.is_some() && !ours,
        };
        Self { ours, obs_signd }
    }

    /// Whether only `copr-keygen signd` signs, so that what only obs-signd needs does not matter.
    pub fn is_only_ours(self) -> bool {
        self.ours && !self.obs_signd
    }
}

/// Asks who answers at a port of this host, like [`who_answers`].
pub fn who_answers_at_port(port: u16) -> io::Result<bool> {
    ask_tcp(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))
}

/// Whether it is `copr-keygen signd` that answers at this address. A program that accepts the connection but
/// gives another answer, or answers too late, is taken for obs-signd. Fails if nothing accepts the connection.
pub fn who_answers(address: &ListenAddress) -> io::Result<bool> {
    match address {
        ListenAddress::Tcp(host_port) => {
            let mut found = Err(io::ErrorKind::NotFound.into());
            // `copr-keygen signd` listens at every address that the name resolves to and this host has.
            for address in host_port.addresses("signd.listen").map_err(io::Error::other)? {
                match ask_tcp(address) {
                    Err(e) if is_not_here(&e) && found.is_ok() => {}
                    answered @ Ok(true) => found = answered,
                    answered => return answered,
                }
            }
            found
        }
        ListenAddress::Unix(path) => {
            let stream = UnixStream::connect(path)?;
            stream.set_read_timeout(Some(PATIENCE))?;
            stream.set_write_timeout(Some(PATIENCE))?;
            Ok(ask(&stream, || stream.shutdown(Shutdown::Write)).unwrap_or(false))
        }
    }
}

fn ask_tcp(address: SocketAddr) -> io::Result<bool> {
    let stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    Ok(ask(&stream, || stream.shutdown(Shutdown::Write)).unwrap_or(false))
}

fn ask(mut stream: impl Read + Write, end: impl FnOnce() -> io::Result<()>) -> io::Result<bool> {
    stream.write_all(WHO_ANSWERS)?;
    end()?;
    let mut answer = Vec::new();
    stream.take(ANSWER_MAX).read_to_end(&mut answer)?;
    Ok(is_ours(&answer))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::systemd::systemctl::Unit;

    #[test]
    fn units_that_run_or_will_run_sign() {
        let unit = |text: &str| Unit::parse(&format!("LoadState=loaded\n{text}"));
        let active = unit("ActiveState=active\nUnitFileState=disabled");
        let enabled = unit("ActiveState=inactive\nUnitFileState=enabled");
        let off = unit("ActiveState=failed\nUnitFileState=disabled");
        let none = Unit::parse("LoadState=not-found\nActiveState=inactive\n");
        for (ours, theirs, expected) in [
            (&active, &none, (true, false)),
            (&enabled, &off, (true, false)),
            (&none, &active, (false, true)),
            (&off, &enabled, (false, true)),
            (&active, &enabled, (true, true)),
            (&off, &off, (false, false)),
            (&none, &none, (false, false)),
        ] {
            let units = Units::of([(SIGND_SOCKET, ours.clone()), (SIGND[1], theirs.clone())]);
            let found = WhoSigns::by_units(&units);
            assert_eq!((found.ours, found.obs_signd), expected, "{units:?}");
        }
    }
}
