//! Checks who may request keys: the tokens must be readable, and without tokens no
//! address may be open to other hosts.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use keystore::CREDENTIAL as SEALING_KEY;

use super::finding::{Remedy, Section};
use super::host::Host;
use crate::error::{Error, Result};
use crate::http::auth;
use crate::http::peers::Peers;
use crate::http::tokens::{CREDENTIAL, Tokens};
use crate::listen_address::ListenAddress;
use crate::systemd::credentials::{self, Secret};
use crate::systemd::passed::{Passed, passed};
use crate::systemd::systemctl;

const NAME: &str = "tokens";
const USERS: &str = "users";

/// The time limit for systemd-creds; a TPM is slow.
const PATIENCE: Duration = Duration::from_secs(20);

/// Checks the tokens of the setting `tokens_file` and, as root, those in the credential of the unit.
pub fn section(host: &Host) -> Section {
    let mut section = Section::new("who may ask");
    let files = host.known_units().and_then(|_| systemctl::cat(systemctl::SERVICE).ok());
    let passed = passed(&files.unwrap_or_default(), CREDENTIAL, Path::new("/"));
    let file = host.settings.tokens_file.get().ok().and_then(Option::as_ref);
    if file.is_some() && passed != Passed::Nothing {
        let message = "are in tokens_file and in the credential of the unit: serve does not start";
        section.failed(NAME, message, "leave one of them");
    }
    let handed = handed_tokens();
    let has_tokens = file.is_some() || handed.is_some() || passed != Passed::Nothing;
    match (file, handed) {
        (Some(path), _) => {
            judge(auth::tokens_of_file("tokens_file", path, host.state()), path, &mut section);
        }
        (None, Some(tokens)) => judge(tokens, Path::new("CREDENTIALS_DIRECTORY"), &mut section),
        (None, None) => judge_passed(host, &passed, &mut section),
    }
    match addresses(host) {
        Ok(addresses) => judge_addresses(host, &addresses, has_tokens, &mut section),
        Err(e) => section.failed(
            "listen",
            format!("{e}: serve does not start"),
            "correct the setting listen, or what this host knows of names (/etc/hosts)",
        ),
    }
    let peers = Peers::from_settings(host.settings);
    if section.look(USERS, peers, "correct that setting: serve does not start").is_none() {
        return section;
    }
    let settings = [host.settings.allow_users.get(), host.settings.allow_groups.get()];
    let named: Vec<_> = settings.into_iter().flatten().flatten().map(String::as_str).collect();
    if !named.is_empty() {
        section.ok(USERS, format!("need no token on Unix sockets: {}", named.join(", ")));
    }
    section
}

/// Returns the tokens in a credential that this process itself was given, as the service is without systemd.
fn handed_tokens() -> Option<Result<Tokens>> {
    let text = credentials::read(CREDENTIAL).transpose()?;
    Some(text.and_then(|text| auth::tokens_in(&format!("the credential {CREDENTIAL}"), &text)))
}

/// Checks the tokens in the credential of the unit.
fn judge_passed(host: &Host, passed: &Passed, section: &mut Section) {
    match passed {
        Passed::Nothing => {}
        Passed::StillEncrypted(path) => {
            let message = "is encrypted, and the unit does not decrypt it: serve does not start";
            section.failed(NAME, format!("{}: {message}", path.display()), decrypting(path));
        }
        Passed::NotEncrypted(path) => section.failed(
            NAME,
            format!(
                "{}: is not encrypted, and the unit decrypts it: it does not start",
                path.display()
            ),
            "encrypt the file (docs/backend.md, \"Encrypted on the disk\"), or take \
             LoadCredentialEncrypted= out of the unit",
        ),
        Passed::File(path) | Passed::Decrypted(path) if !host.as_root => {
            section.note(NAME, format!("{}: only root can look", path.display()));
        }
        Passed::File(path) => {
            judge(auth::tokens_of_file("the file", path, host.state()), path, section);
        }
        Passed::Decrypted(path) => judge(decrypted(path), path, section),
    }
}

/// Returns the command line that makes the unit decrypt this file.
fn decrypting(path: &Path) -> Remedy {
    let source = path.file_name().unwrap_or_default().to_string_lossy();
    let directory = "/etc/systemd/system/copr-keygen.service.d";
    Remedy::commands([
        format!("mkdir -p {directory}"),
        format!(
            "printf '[Service]\\nLoadCredential=\\nLoadCredentialEncrypted={SEALING_KEY}\\n\
             LoadCredentialEncrypted={CREDENTIAL}:{source}\\n' >{directory}/tokens.conf"
        ),
        "systemctl daemon-reload".into(),
        format!("systemctl restart {}", systemctl::SERVICE),
    ])
}

/// Decrypts, with systemd-creds, the tokens in a file that systemd decrypts for the service.
fn decrypted(path: &Path) -> Result<Tokens> {
    let name = format!("--name={CREDENTIAL}");
    let arguments = vec![name.into(), "decrypt".into(), path.into(), "-".into()];
    let decrypted = systemctl::run(Path::new("/usr/bin/systemd-creds"), arguments, PATIENCE);
    let shown = path.display();
    let text =
        decrypted.map_err(|why| Error::Settings(format!("{shown}: cannot be decrypted: {why}")))?;
    auth::tokens_in(&shown.to_string(), &Secret::new(text))
}

fn judge(tokens: Result<Tokens>, path: &Path, section: &mut Section) {
    match tokens {
        Ok(tokens) => section.ok(NAME, format!("{} in {}", tokens.count(), path.display())),
        Err(e) => section.failed(
            NAME,
            format!("{e}; serve does not start"),
            "correct the file, and start the service again",
        ),
    }
}

fn judge_addresses(host: &Host, addresses: &[SocketAddr], has_tokens: bool, section: &mut Section) {
    let open: Vec<_> = addresses.iter().filter(|address| is_open(**address)).collect();
    for address in open.iter().map(ToString::to_string) {
        if has_tokens {
            section.ok(address, "can be reached by other hosts; a token is needed there");
        } else if host.settings.allow_anonymous.get().is_ok_and(|allowed| *allowed) {
            let message = "can be reached by other hosts, where everybody may have keys made";
            section.warning(address, message, "make tokens, and remove allow_anonymous");
        } else {
            let message =
                "can be reached by other hosts, and there are no tokens: serve does not start";
            section.failed(address, message, "make tokens; docs/backend.md says where they go");
        }
    }
    if open.is_empty() && !has_tokens {
        section.ok(NAME, "there are none; only this host can ask");
    }
}

/// Returns the TCP addresses of the socket unit, or without systemd those of the setting `listen`.
fn addresses(host: &Host) -> Result<Vec<SocketAddr>> {
    if let Some(units) = host.known_units() {
        let socket = units.unit(systemctl::SOCKET);
        let lines = socket.get("Listen").lines();
        return Ok(lines.filter_map(|line| line.strip_suffix(" (Stream)")?.parse().ok()).collect());
    }
    let mut found = Vec::new();
    for address in host.settings.listen.get()? {
        if let ListenAddress::Tcp(host_port) = address {
            found.extend(host_port.addresses("listen")?);
        }
    }
    Ok(found)
}

fn is_open(address: SocketAddr) -> bool {
    !address.ip().to_canonical().is_loopback()
}
