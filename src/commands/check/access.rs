//! Who may ask: the tokens can be read, and no address is open to other hosts without them.

use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use gpg::process::{self, End, Job};
use keystore::CREDENTIAL as SEALING_KEY;

use super::credential::{Passed, passed};
use super::host::Host;
use super::page::Section;
use super::units::{self, Unit};
use crate::error::{Error, Result};
use crate::http::auth;
use crate::http::peers::Peers;
use crate::http::tokens::{CREDENTIAL, Tokens};
use crate::listen_address::ListenAddress;
use crate::systemd::credentials::Secret;

const NAME: &str = "tokens";
const USERS: &str = "users";

/// How long systemd-creds may take; a TPM needs its time.
const PATIENCE: Duration = Duration::from_secs(20);

/// Looks at the tokens of the setting and, as root, at those that the unit is given.
pub fn section(host: &Host) -> Section {
    let mut section = Section::new("who may ask");
    let (socket, service) = match units::under_systemd(host) {
        true => (units::show(units::SOCKET).ok(), units::cat(units::SERVICE).ok()),
        false => (None, None),
    };
    let passed = passed(&service.unwrap_or_default(), Path::new("/"));
    let file = host.settings.tokens_file.get().ok().and_then(Option::as_ref);
    if file.is_some() && passed != Passed::Nothing {
        section.failed(
            NAME,
            "are in tokens_file and in the credential of the unit: serve does not start",
            "leave one of them",
        );
    }
    let has_tokens = file.is_some() || passed != Passed::Nothing;
    match file {
        Some(path) => {
            judge(auth::tokens_of_file("tokens_file", path, host.state()), path, &mut section)
        }
        None => judge_passed(host, &passed, &mut section),
    }
    match addresses(host, socket.as_ref()) {
        Ok(addresses) => judge_addresses(host, &addresses, has_tokens, &mut section),
        Err(e) => section.failed(
            "listen",
            format!("{e}: serve does not start"),
            "correct the setting listen, or what this host knows of names (/etc/hosts)",
        ),
    }
    match Peers::from_settings(host.settings) {
        Err(e) => {
            section.failed(USERS, e.to_string(), "correct that setting: serve does not start");
        }
        Ok(_) => {
            let settings = [host.settings.allow_users.get(), host.settings.allow_groups.get()];
            let named: Vec<_> =
                settings.into_iter().flatten().flatten().map(String::as_str).collect();
            if !named.is_empty() {
                let named = named.join(", ");
                section.ok(USERS, format!("need no token on Unix sockets: {named}"));
            }
        }
    }
    section
}

/// Tokens that the unit is given.
fn judge_passed(host: &Host, passed: &Passed, section: &mut Section) {
    let (Passed::File(path)
    | Passed::Decrypted(path)
    | Passed::StillEncrypted(path)
    | Passed::NotEncrypted(path)) = passed
    else {
        return;
    };
    let shown = path.display();
    match passed {
        Passed::StillEncrypted(_) => section.failed(
            NAME,
            format!(
                "{shown}: is encrypted, and the unit does not decrypt it: serve does not start"
            ),
            decrypting(path),
        ),
        Passed::NotEncrypted(_) => section.failed(
            NAME,
            format!("{shown}: is not encrypted, and the unit decrypts it: it does not start"),
            "encrypt the file (docs/backend.md, \"Encrypted on the disk\"), or take \
             LoadCredentialEncrypted= out of the unit",
        ),
        _ if !host.as_root => section.note(NAME, format!("{shown}: only root can look")),
        Passed::Decrypted(_) => judge(decrypted(path), path, section),
        _ => judge(auth::tokens_of_file("the file", path, host.state()), path, section),
    }
}

/// The command that makes the unit decrypt this file.
fn decrypting(path: &Path) -> String {
    let source = path.file_name().unwrap_or_default().to_string_lossy();
    let directory = "/etc/systemd/system/copr-keygen.service.d";
    format!(
        "mkdir -p {directory} && printf '[Service]\\nLoadCredential=\\nLoadCredentialEncrypted={SEALING_KEY}\\nLoadCredentialEncrypted={CREDENTIAL}:{source}\\n' \
         >{directory}/tokens.conf && systemctl daemon-reload && systemctl restart {}",
        units::SERVICE
    )
}

/// The tokens in a file that systemd decrypts for the service.
fn decrypted(path: &Path) -> Result<Tokens> {
    let refused =
        |why: &str| Error::Settings(format!("{}: cannot be decrypted: {why}", path.display()));
    let name = format!("--name={CREDENTIAL}");
    let job = Job {
        program: Path::new("/usr/bin/systemd-creds"),
        arguments: vec![name.into(), "decrypt".into(), path.into(), "-".into()],
        stdin: b"",
        deadline: Instant::now() + PATIENCE,
        background: None,
    };
    let done = process::run(&job).map_err(|e| refused(&e.to_string()))?;
    match done.end {
        Some(End::Exited(0)) => {
            auth::tokens_in(&path.display().to_string(), &Secret::new(done.stdout))
        }
        None => Err(refused("systemd-creds did not end in time")),
        _ => Err(refused(String::from_utf8_lossy(&done.stderr).trim())),
    }
}

fn judge(tokens: Result<Tokens>, path: &Path, section: &mut Section) {
    match tokens {
        Ok(tokens) => section.ok(NAME, format!("{} in {}", tokens.count(), path.display())),
        Err(e) => section.failed(
            NAME,
            format!("{e}; serve does not start"),
            "correct the file, then systemctl restart copr-keygen.service",
        ),
    }
}

fn judge_addresses(host: &Host, addresses: &[SocketAddr], has_tokens: bool, section: &mut Section) {
    let open: Vec<_> = addresses.iter().filter(|address| is_open(**address)).collect();
    for address in &open {
        let address = address.to_string();
        if has_tokens {
            section.ok(address, "can be reached by other hosts; a token is needed there");
        } else if host.settings.allow_anonymous.get().is_ok_and(|allowed| *allowed) {
            section.warning(
                address,
                "can be reached by other hosts, where everybody may have keys made",
                "make tokens (copr-keygen token), and remove allow_anonymous",
            );
        } else {
            section.failed(
                address,
                "can be reached by other hosts, and there are no tokens: serve does not start",
                "make tokens (copr-keygen token NAME; docs/backend.md says where they go)",
            );
        }
    }
    if open.is_empty() && !has_tokens {
        section.ok(NAME, "there are none; only this host can ask");
    }
}

/// The addresses of TCP: those of systemd's socket, else those of the settings.
fn addresses(host: &Host, socket: Option<&Unit>) -> Result<Vec<SocketAddr>> {
    if let Some(socket) = socket {
        let lines = units::get(socket, "Listen").lines();
        return Ok(lines.filter_map(|line| line.strip_suffix(" (Stream)")?.parse().ok()).collect());
    }
    let mut found = Vec::new();
    for address in host.settings.listen.get()? {
        if let ListenAddress::Tcp(host_port) = address {
            found.extend(host_port.addresses()?);
        }
    }
    Ok(found)
}

fn is_open(address: SocketAddr) -> bool {
    !address.ip().to_canonical().is_loopback()
}
