//! Checks obs-signd: its configuration must lead to the keys of this state, and it must
//! answer. The "signing fails" case.

use std::fs;
use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use keystore::FileId;
use keystore::remedy::{self, quote_path};
use nix::unistd::{AccessFlags, access};

use super::finding::{Remedy, Section};
use super::host::Host;
use crate::commands::gpg::CALLED_AS;
use crate::commands::sign_conf::SignConf;
use crate::program;
use crate::systemd::systemctl::Units;

/// The time limit for signd to accept a connection.
const CONNECT_TIME: Duration = Duration::from_secs(2);

/// The only `server:` with which signd itself answers "unknown key". The backend needs
/// that answer to have a missing key made.
const LOCAL: &str = "127.0.0.1";

pub fn section(host: &Host) -> Section {
    let mut section = Section::new("obs-signd");
    if host.who_signs.is_only_ours() {
        return section;
    }
    let path = host.sign_conf();
    let file = path.to_string_lossy();
    let readable = || Remedy::Command(format!("chmod 0644 {}", quote_path(path)));
    let unreadable = |e: &io::Error| format!("cannot be read: {e}");
    let conf = match &host.conf {
        Ok(conf) => conf,
        Err(e) if e.kind() == ErrorKind::PermissionDenied => {
            section.failed(file, unreadable(e), readable());
            return section;
        }
        Err(e) if e.kind() != ErrorKind::NotFound => {
            section.failed(file, unreadable(e), "put the configuration of signd there, as a file");
            return section;
        }
        Err(_) if !host.needs_signd() => {
            section.note(file, "is not there, and this state is of no unit: nothing is signed");
            return section;
        }
        // `units` reports that nothing signs here.
        Err(_) if host.known_units().is_some() && !host.who_signs.obs_signd => return section,
        Err(e) => {
            let remedy = "start copr-keygen signd, or install obs-signd, then copy \
                          /usr/share/doc/copr-keygen/docs/sign.conf there";
            section.failed(file, unreadable(e), remedy);
            return section;
        }
    };
    let lines = Lines { host, conf, file: &file };
    if let Err(e) = fs::File::open(path) {
        let message = format!("{} cannot read it: {e}", host.owner.name);
        section.failed(&file, message, readable());
    }
    lines.phrases(&mut section);
    lines.gpg(&mut section);
    lines.gnupghome(&mut section);
    lines.directories(&mut section);
    lines.clients(&mut section);
    if section.is_well() {
        section.ok(&file, "leads to the keys of this host");
    }
    match conf.port() {
        Ok(port) => answers(host, port, &mut section),
        Err(text) => {
            let message = format!("port: {text:?} is no port");
            section.failed(&file, message, "give it a number there, such as 5167");
        }
    }
    section
}

/// The checks of sign.conf, line by line. Of two lines with the same name, signd uses the last.
struct Lines<'a> {
    host: &'a Host<'a>,
    conf: &'a SignConf,
    file: &'a str,
}

impl Lines<'_> {
    /// Returns the remedy that adds lines to sign.conf and restarts signd. That file splits a line at white space.
    fn add(&self, lines: &[String]) -> Remedy {
        if lines.iter().any(|line| line.split_whitespace().count() > 2) {
            return "sign.conf can name no path with white space: move the state to another path, or let \
                    copr-keygen signd sign"
                .into();
        }
        self.then_restart(remedy::append(self.host.sign_conf(), lines))
    }

    fn then_restart(&self, command: String) -> Remedy {
        match self.host.known_units().and_then(Units::restart_signd) {
            Some(restart) => Remedy::commands([command, restart]),
            None => Remedy::Command(command),
        }
    }

    fn phrases(&self, section: &mut Section) {
        let ours = match self.host.settings.phrases_dir.get() {
            Ok(Some(directory)) => directory.clone(),
            _ => self.host.part("phrases"),
        };
        let message = match self.conf.path("phrases:") {
            Some(path) if is_same(path, &ours) => return,
            Some(path) => format!("phrases: is {}, our keys are elsewhere", path.display()),
            None => "has no phrases: line, so signd knows no user".into(),
        };
        let remedy = self.add(&[format!("phrases: {}", ours.display())]);
        section.failed(self.file, message, remedy);
    }

    fn gpg(&self, section: &mut Section) {
        let ours = gpg_copr();
        let message = match self.conf.path("gpg:") {
            None => "has no gpg: line, so signd runs plain gpg".into(),
            Some(gpg) => {
                let (shown, name) = (gpg.display(), gpg.file_name().unwrap_or_default());
                let this = program::beside(program::MAIN);
                if let Err(errno) = access(gpg, AccessFlags::X_OK) {
                    format!("gpg: {shown} cannot be run: {errno}")
                } else if !CALLED_AS.iter().any(|known| name == *known) {
                    format!("gpg: {shown} is not gpg-copr")
                } else if !this.is_ok_and(|this| is_same_file(gpg, &this)) {
                    format!("gpg: {shown} is not this copr-keygen")
                } else {
                    return;
                }
            }
        };
        let remedy = match self.conf.path("gpg:") {
            // The line is already right: what is missing or wrong is the program.
            Some(gpg) if *gpg == ours => "install copr-keygen again, which has this program".into(),
            _ => self.add(&[format!("gpg: {}", ours.display())]),
        };
        section.failed(self.file, message, remedy);
    }

    fn gnupghome(&self, section: &mut Section) {
        let ours = self.host.part("gnupg");
        let remedy = || self.add(&[format!("gnupghome: {}", ours.display())]);
        match self.conf.path("gnupghome:") {
            Some(path) if is_same(path, &ours) => {}
            Some(path) => {
                let message = format!("gnupghome: is {}, not our agent's home", path.display());
                section.failed(self.file, message, remedy());
            }
            None => {
                let message =
                    "has no gnupghome: line; it works only where the unit of signd sets GNUPGHOME";
                section.warning(self.file, message, remedy());
            }
        }
    }

    /// Checks the directories that signd writes to. Below /run the unit creates them, so they may be missing
    /// while signd does not run.
    fn directories(&self, section: &mut Section) {
        let lines = ["tmpdir: /run/signd", "pidfile: /run/signd/signd.pid"].map(str::to_owned);
        let owner = &self.host.owner.name;
        let places = [
            ("tmpdir:", self.conf.path("tmpdir:")),
            ("pidfile:", self.conf.path("pidfile:").and_then(Path::parent)),
        ];
        for (name, directory) in places {
            let Some(directory) = directory else { continue };
            let shown = directory.display();
            let message = match fs::metadata(directory) {
                _ if !directory.is_absolute() => format!("{name} {shown} is no absolute path"),
                Ok(found) if !found.is_dir() => format!("{name} {shown} is no directory"),
                Ok(_) if access(directory, AccessFlags::W_OK).is_ok() => continue,
                Ok(_) => format!("{name} {owner} cannot write to {shown}"),
                Err(e) if directory.starts_with("/run") && e.kind() == ErrorKind::NotFound => {
                    continue;
                }
                Err(e) => format!("{name} {shown}: {e}"),
            };
            section.failed(self.file, message, self.add(&lines));
        }
    }

    fn clients(&self, section: &mut Section) {
        if self.conf.allow().is_empty() {
            let remedy = format!("add a line with those who may ask, such as \"allow: {LOCAL}\"");
            section.failed(self.file, "has no allow: line, so every client is refused", remedy);
        }
        if let Some(server) = self.conf.word("server:").filter(|server| *server != LOCAL) {
            let message = format!(
                "server: is {server}: signd asks there for a key that is missing here, and the backend \
                 never hears that we are to make it"
            );
            let file = quote_path(self.host.sign_conf());
            let remedy = self.then_restart(format!("sed -i '/^[[:space:]]*server:/d' {file}"));
            section.failed(self.file, message, remedy);
        }
    }
}

fn answers(host: &Host, port: u16, section: &mut Section) {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    match connect(host, &address) {
        Ok(_) => section.ok(address.to_string(), "signd answers"),
        Err(e) => {
            let message = format!("signd does not answer, so nothing can be signed: {e}");
            let remedy = match host.known_units().and_then(Units::restart_signd) {
                Some(restart) => Remedy::Command(restart),
                None => "start obs-signd, under systemd with systemctl start signd".into(),
            };
            section.failed(address.to_string(), message, remedy);
        }
    }
}

/// Connects to signd. While its unit is active, a refused connection is retried for a moment: signd starts to
/// listen shortly after systemctl returns.
fn connect(host: &Host, address: &SocketAddr) -> io::Result<TcpStream> {
    let signd = host.known_units().and_then(Units::signd);
    let until = Instant::now() + CONNECT_TIME;
    loop {
        match TcpStream::connect_timeout(address, CONNECT_TIME) {
            Err(e)
                if e.kind() == ErrorKind::ConnectionRefused
                    && signd.as_ref().is_some_and(|(_, unit)| unit.is_active())
                    && Instant::now() < until =>
            {
                thread::sleep(Duration::from_millis(100));
            }
            connected => return connected,
        }
    }
}

/// Returns the path of gpg-copr: beside this program if it exists there, otherwise that of the package.
fn gpg_copr() -> PathBuf {
    match program::beside(CALLED_AS[0]) {
        Ok(beside) if beside.exists() => beside,
        _ => Path::new("/usr/bin").join(CALLED_AS[0]),
    }
}

/// Whether two paths resolve to the same place.
fn is_same(a: &Path, b: &Path) -> bool {
    match (a.canonicalize(), b.canonicalize()) {
        (Ok(a), Ok(b)) => a == b,
        _ => a == b,
    }
}

fn is_same_file(a: &Path, b: &Path) -> bool {
    match (fs::metadata(a), fs::metadata(b)) {
        (Ok(a), Ok(b)) => FileId::from(&a) == FileId::from(&b),
        _ => false,
    }
}
