//! Which of the two signs here, `copr-keygen signd` or obs-signd: as systemd has it, else as something answers.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use signer::request::{WHO_ANSWERS, is_ours};

use crate::commands::sign_conf::SignConf;
use crate::listen_address::{ListenAddress, is_not_here};
use crate::settings::Settings;
use crate::systemd::systemctl::{SIGND, SIGND_SOCKET, Units};

/// How long it may take to connect, and to answer.
const PATIENCE: Duration = Duration::from_secs(2);
/// Longer than the answer.
const ANSWER_MAX: u64 = 4096;

/// Who signs here. Both is a mistake, and so is neither, except for a state that somebody tries something with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WhoSigns {
    /// `copr-keygen signd`.
    pub ours: bool,
    /// obs-signd.
    pub obs_signd: bool,
}

impl WhoSigns {
    /// As the units say: one that runs, or will after the next boot.
    pub fn by_units(units: &Units) -> Self {
        let signs = |name: &str| {
            let unit = units.unit(name);
            unit.is_installed() && (unit.is_active() || unit.is_enabled())
        };
        Self { ours: signs(SIGND_SOCKET), obs_signd: SIGND.into_iter().any(signs) }
    }

    /// As something answers: ours where the setting `signd.listen` says, or at the port in `conf`. That obs-signd is
    /// configured is enough, unless it is ours that has its port.
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

    /// Whether ours signs, and what only obs-signd needs does not matter.
    pub fn is_only_ours(self) -> bool {
        self.ours && !self.obs_signd
    }
}

/// As [`who_answers`], at a port of this host.
pub fn who_answers_at_port(port: u16) -> io::Result<bool> {
    ask_tcp(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))
}

/// Whether it is `copr-keygen signd` that answers at this address. Whatever accepts a connection and answers
/// something else, or too late, is taken for obs-signd.
pub fn who_answers(address: &ListenAddress) -> io::Result<bool> {
    match address {
        ListenAddress::Tcp(host_port) => {
            let mut found = Err(io::ErrorKind::NotFound.into());
            // Of a name, ours listens at each address that this host has.
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
