//! obs-signd: its configuration leads to our keys, and it answers. The "signing fails" case.

use std::fs;
use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use nix::unistd::{AccessFlags, access};

use super::host::Host;
use super::page::Section;
use super::sign_conf::SignConf;
use crate::commands::gpg::CALLED_AS;

/// How long signd may take to accept a connection.
const CONNECT_TIME: Duration = Duration::from_secs(2);

/// The only `server:` under which signd says "unknown key", which the backend waits for.
const LOCAL: &str = "127.0.0.1";

pub fn section(host: &Host, conf: &io::Result<SignConf>) -> Section {
    let mut section = Section::new("obs-signd");
    let file = host.options.sign_conf.to_string_lossy();
    let conf = match conf {
        Ok(conf) => conf,
        Err(e) => {
            let remedy = match e.kind() {
                ErrorKind::NotFound => {
                    "install obs-signd, then copy docs/sign.conf of copr-keygen there".to_owned()
                }
                _ => format!("chmod 0644 {}", host.quoted(&host.options.sign_conf)),
            };
            section.failed(&*file, format!("cannot be read: {e}"), remedy);
            return section;
        }
    };
    let lines = Lines { host, conf, file: &file };
    if let Err(e) = fs::File::open(&host.options.sign_conf) {
        section.failed(
            &*file,
            format!("{} cannot read it: {e}", host.owner.name),
            format!("chmod 0644 {}", host.quoted(&host.options.sign_conf)),
        );
    }
    lines.phrases(&mut section);
    lines.gpg(&mut section);
    lines.gnupghome(&mut section);
    lines.directories(&mut section);
    lines.clients(&mut section);
    if section.is_well() {
        section.ok(&*file, "leads to the keys of this host");
    }
    answers(host, conf, &mut section);
    section
}

/// sign.conf, line by line.
struct Lines<'a> {
    host: &'a Host<'a>,
    conf: &'a SignConf,
    file: &'a str,
}

impl Lines<'_> {
    fn failed(&self, section: &mut Section, message: impl Into<String>, line: &str) {
        let remedy = format!("write \"{line}\" there, then systemctl restart signd");
        section.failed(self.file, message, remedy);
    }

    fn phrases(&self, section: &mut Section) {
        let ours = match self.host.settings.phrases_dir.get() {
            Ok(Some(directory)) => directory.clone(),
            _ => self.host.part("phrases"),
        };
        let line = format!("phrases: {}", ours.display());
        match &self.conf.phrases {
            Some(path) if is_same(path, &ours) => {}
            Some(path) => {
                let message = format!("phrases: is {}, our keys are elsewhere", path.display());
                self.failed(section, message, &line);
            }
            None => self.failed(section, "has no phrases: line, so signd knows no user", &line),
        }
    }

    fn gpg(&self, section: &mut Section) {
        let line = format!("gpg: /usr/bin/{}", CALLED_AS[0]);
        let Some(gpg) = &self.conf.gpg else {
            return self.failed(section, "has no gpg: line, so signd runs plain gpg", &line);
        };
        let shown = gpg.display();
        if let Err(errno) = access(gpg, AccessFlags::X_OK) {
            return self.failed(section, format!("gpg: {shown} cannot be run: {errno}"), &line);
        }
        let name = gpg.file_name().unwrap_or_default();
        let stands_in = CALLED_AS.iter().any(|known| name == *known);
        let this = std::env::current_exe();
        if !stands_in {
            self.failed(section, format!("gpg: {shown} is not gpg-copr"), &line);
        } else if !this.is_ok_and(|this| is_same_file(gpg, &this)) {
            let message = format!("gpg: {shown} is not this copr-keygen");
            self.failed(section, message, &line);
        }
    }

    fn gnupghome(&self, section: &mut Section) {
        let ours = self.host.part("gnupg");
        let line = format!("gnupghome: {}", ours.display());
        match &self.conf.gnupghome {
            Some(path) if is_same(path, &ours) => {}
            Some(path) => {
                let message = format!("gnupghome: is {}, not our agent's home", path.display());
                self.failed(section, message, &line);
            }
            None => section.warning(
                self.file,
                "has no gnupghome: line; it works only where the unit of signd sets GNUPGHOME",
                format!("write \"{line}\" there, then systemctl restart signd"),
            ),
        }
    }

    /// Where signd writes. Below /run the unit makes the directory, so it may be gone while signd is.
    fn directories(&self, section: &mut Section) {
        let places = [
            ("tmpdir:", self.conf.tmpdir.as_deref()),
            ("pidfile:", self.conf.pidfile.as_deref().and_then(Path::parent)),
        ];
        for (name, directory) in places {
            let Some(directory) = directory else { continue };
            let shown = directory.display();
            let remedy = "write \"tmpdir: /run/signd\" and \"pidfile: /run/signd/signd.pid\" there, \
                          then systemctl restart signd";
            match fs::metadata(directory) {
                _ if !directory.is_absolute() => {
                    section.failed(
                        self.file,
                        format!("{name} {shown} is no absolute path"),
                        remedy,
                    );
                }
                Ok(found) if !found.is_dir() => {
                    section.failed(self.file, format!("{name} {shown} is no directory"), remedy);
                }
                Ok(_) => {
                    if access(directory, AccessFlags::W_OK).is_err() {
                        let owner = &self.host.owner.name;
                        let message = format!("{name} {owner} cannot write to {shown}");
                        section.failed(self.file, message, remedy);
                    }
                }
                Err(e) if directory.starts_with("/run") && e.kind() == ErrorKind::NotFound => {}
                Err(e) => section.failed(self.file, format!("{name} {shown}: {e}"), remedy),
            }
        }
    }

    fn clients(&self, section: &mut Section) {
        if self.conf.allow.is_empty() {
            let line = format!("allow: {LOCAL} ADDRESS-OF-THE-BACKEND");
            self.failed(section, "has no allow: line, so every client is refused", &line);
        }
        if let Some(server) = self.conf.server.as_deref().filter(|server| *server != LOCAL) {
            let message = format!(
                "server: is {server}: signd asks there for a key that is missing here, and the backend \
                 never hears that we are to make it"
            );
            let remedy = "take the server: line out, then systemctl restart signd";
            section.failed(self.file, message, remedy);
        }
    }
}

fn answers(host: &Host, conf: &SignConf, section: &mut Section) {
    let port = match conf.port() {
        Ok(port) => port,
        Err(text) => {
            let file = host.options.sign_conf.to_string_lossy();
            section.failed(
                file,
                format!("port: {text:?} is no port"),
                "write \"port: 5167\" there",
            );
            return;
        }
    };
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    match TcpStream::connect_timeout(&address, CONNECT_TIME) {
        Ok(_) => section.ok(address.to_string(), "signd answers"),
        Err(e) => {
            let units = ["/usr/lib/systemd/system", "/lib/systemd/system", "/etc/systemd/system"];
            let is_suse = units.iter().any(|dir| Path::new(dir).join("obssignd.service").exists());
            let unit = if is_suse { "obssignd" } else { "signd" };
            section.failed(
                address.to_string(),
                format!("signd does not answer, so nothing can be signed: {e}"),
                format!("systemctl start {unit}, then systemctl status {unit}"),
            );
        }
    }
}

/// Whether two paths lead to the same place.
fn is_same(a: &Path, b: &Path) -> bool {
    match (a.canonicalize(), b.canonicalize()) {
        (Ok(a), Ok(b)) => a == b,
        _ => a == b,
    }
}

fn is_same_file(a: &Path, b: &Path) -> bool {
    match (fs::metadata(a), fs::metadata(b)) {
        (Ok(a), Ok(b)) => (a.dev(), a.ino()) == (b.dev(), b.ino()),
        _ => false,
    }
}
