//! Who may ask: the tokens can be read, and no address is open to other hosts without them.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use super::host::Host;
use super::page::Section;
use super::units::{self, Unit};
use crate::http::peers::Peers;
use crate::http::tokens::{CREDENTIAL, Tokens};
use crate::listen_address::ListenAddress;
use crate::systemd::credentials;

const NAME: &str = "tokens";
const USERS: &str = "users";

/// Where the unit finds the credential that it names (units/copr-keygen.service).
const STORE: [&str; 3] = ["/etc/credstore", "/run/credstore", "/usr/lib/credstore"];

/// Looks at the tokens of the setting and, as root, at those that the unit is given.
pub fn section(host: &Host) -> Section {
    let mut section = Section::new("who may ask");
    let (socket, service) = match units::under_systemd(host) {
        true => (units::show(units::SOCKET).ok(), units::cat(units::SERVICE).ok()),
        false => (None, None),
    };
    let passed = passed(&service.unwrap_or_default());
    let has_tokens = match (&host.settings.tokens_file, passed) {
        (Some(path), passed) => {
            if !matches!(passed, Passed::Nothing) {
                section.failed(
                    NAME,
                    "are in tokens_file and in the credential of the unit: serve does not start",
                    "leave one of them",
                );
            }
            judge_file(host, path, &mut section);
            true
        }
        (None, Passed::File(path)) if host.as_root => {
            judge_file(host, &path, &mut section);
            true
        }
        (None, Passed::File(path)) => {
            section.note(NAME, format!("{}: only root can look", path.display()));
            true
        }
        (None, Passed::Sealed) => {
            section.note(NAME, "are in an encrypted credential, which only the service can read");
            true
        }
        (None, Passed::Nothing) => false,
    };
    let open: Vec<_> =
        addresses(host, socket.as_ref()).filter(|address| is_open(*address)).collect();
    for address in &open {
        let address = address.to_string();
        if has_tokens {
            section.ok(address, "can be reached by other hosts; a token is needed there");
        } else if host.settings.allow_anonymous {
            section.warning(
                address,
                "can be reached by other hosts, where everybody may have keys made",
                "make tokens (copr-keygen token), and remove allow_anonymous",
            );
        } else {
            section.failed(
                address,
                "can be reached by other hosts, and there are no tokens: serve does not start",
                "make tokens (copr-keygen token NAME; docs/operations.md says where they go)",
            );
        }
    }
    let (users, groups) = (&host.settings.allow_users, &host.settings.allow_groups);
    if let Err(e) = Peers::from_settings(host.settings) {
        section.failed(USERS, e.to_string(), "correct that setting: serve does not start");
    } else if !users.is_empty() || !groups.is_empty() {
        let named: Vec<_> = users.iter().chain(groups).map(String::as_str).collect();
        section.ok(USERS, format!("need no token on Unix sockets: {}", named.join(", ")));
    }
    if open.is_empty() && !has_tokens {
        section.ok(NAME, "there are none; only this host can ask");
    }
    section
}

fn judge_file(host: &Host, path: &Path, section: &mut Section) {
    let read = credentials::read_file("the file", path, host.state()).map_err(|e| e.to_string());
    let tokens = read.and_then(|text| {
        Tokens::parse(text.as_bytes())
            .map_err(|why| format!("{}: {why}; serve does not start", path.display()))
    });
    match tokens {
        Ok(tokens) => {
            section.ok(NAME, format!("{} in {}", tokens.count(), path.display()));
        }
        Err(why) => section.failed(
            NAME,
            why,
            "correct the file, then systemctl restart copr-keygen.service",
        ),
    }
}

/// What the unit of the service is given under the name of the tokens.
enum Passed {
    Nothing,
    File(PathBuf),
    Sealed,
}

/// Reads it out of the files of the unit: `systemctl show` does not print credentials.
fn passed(files: &str) -> Passed {
    let mut last = None;
    for (name, value) in files.lines().filter_map(|line| line.split_once('=')) {
        match (name.trim(), value.trim()) {
            ("LoadCredential" | "LoadCredentialEncrypted", "") => last = None,
            (name @ ("LoadCredential" | "LoadCredentialEncrypted"), value) => {
                if let Some((CREDENTIAL, source)) = value.split_once(':') {
                    last = Some((name, Path::new(source)));
                }
            }
            _ => {}
        }
    }
    match last {
        Some(("LoadCredential", path)) if path.is_absolute() => Passed::File(path.into()),
        Some(("LoadCredential", name)) => {
            let found = STORE.iter().map(|store| Path::new(store).join(name)).find(|p| p.exists());
            found.map_or(Passed::Nothing, Passed::File)
        }
        Some(_) => Passed::Sealed,
        None => Passed::Nothing,
    }
}

/// The addresses of TCP: those of systemd's socket, else those of the settings.
fn addresses<'a>(
    host: &'a Host,
    socket: Option<&'a Unit>,
) -> impl Iterator<Item = SocketAddr> + 'a {
    let of_unit = socket.map_or("", |socket| units::get(socket, "Listen")).lines();
    let of_unit = of_unit.filter_map(|line| line.strip_suffix(" (Stream)")?.parse().ok());
    let of_settings = host.settings.listen.iter().filter_map(|address| match address {
        ListenAddress::Tcp(address) => Some(*address),
        ListenAddress::Unix(_) => None,
    });
    of_unit.chain(of_settings.filter(move |_| socket.is_none()))
}

fn is_open(address: SocketAddr) -> bool {
    !address.ip().to_canonical().is_loopback()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_word_of_the_unit_counts() {
        let path = "LoadCredential=tokens:/etc/tokens\n";
        let sealed = "LoadCredentialEncrypted=tokens:copr-keygen.tokens\n";
        let name = "LoadCredential = tokens:no.such.name-anywhere\nLoadCredential=other:/x\n";
        for (files, expected) in [
            (String::new(), "none"),
            (name.into(), "none"),
            (format!("{name}{path}"), "/etc/tokens"),
            (format!("{path}{sealed}"), "sealed"),
            (format!("{sealed}{path}"), "/etc/tokens"),
            (format!("{path}LoadCredential=\n"), "none"),
            (format!("{path}#LoadCredential=\n"), "/etc/tokens"),
        ] {
            let found = match passed(&files) {
                Passed::Nothing => "none".into(),
                Passed::File(path) => path.display().to_string(),
                Passed::Sealed => "sealed".into(),
            };
            assert_eq!(found, expected, "{files}");
        }
    }
}
