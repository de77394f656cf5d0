//! The agent that signs, in `gnupg/`: its configuration, whether the one that runs has read it, and whether
//! signd still sees this directory. A sandbox keeps the directory it was given, even when that is moved away
//! and another one has its name.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::{fs, io};

use gpg::agent::AgentOption;
use keystore::{Agent, Configuration};
use nix::sys::statvfs::{FsFlags, statvfs};

use super::host::Host;
use super::page::{Section, quote};
use super::sign_conf::SignConf;
use super::units;

/// Where signd writes its process ID when sign.conf does not say it.
const PIDFILE: &str = "/run/signd.pid";

pub fn section(host: &Host, conf: Option<&SignConf>) -> Section {
    let mut section = Section::new("the agent that signs");
    if !host.is_ours() {
        section.note("gnupg", "is the old service's, see below");
        return section;
    }
    for (path, why) in host.inspector.misleading_files() {
        let remedy = format!("mv {} /root/, then {}", host.quoted(&path), host.repair());
        section.failed(host.name(&path), why, remedy);
    }
    configuration(host, &mut section);
    marker(host, &mut section);
    running(host, &mut section);
    if let Some(pid) = signd(host, conf) {
        view(host, pid, &mut section);
    }
    if section.is_well() {
        section
            .ok("gnupg", "its configuration says what an agent needs that signs for many clients");
    }
    section
}

/// `gpg-agent.conf`, which is made, and brought up to date, when the service starts.
fn configuration(host: &Host, section: &mut Section) {
    let home = host.inspector.agent_home();
    let path = home.configuration_path();
    let message = match home.configuration() {
        Configuration::Whole => return,
        Configuration::Absent => {
            "is missing: signatures are slow, and with many clients at once they fail".to_owned()
        }
        Configuration::Lacks(lines) => lacks(&lines),
        Configuration::Foreign(what, lines) => {
            let message = format!("{what}, and does not say all that many clients need");
            return section.failed(host.name(&path), message, write_there(host, &path, &lines));
        }
    };
    if host.options.repair {
        section.mended(host.name(&path), message, host.inspector.prepare());
    } else {
        section.failed(host.name(&path), message, host.repair());
    }
}

/// What adds lines to a configuration that is kept elsewhere, or puts away what is none.
fn write_there(host: &Host, path: &Path, lines: &[AgentOption]) -> String {
    let quoted = host.quoted(path);
    if path.is_symlink() && path.is_file() {
        let lines: Vec<_> = lines.iter().map(|option| quote(&option.line())).collect();
        // The empty one ends a last line that has no end.
        return format!("printf '%s\\n' '' {} >>{quoted}", lines.join(" "));
    }
    let aside = host.quoted(&path.with_extension("conf.aside"));
    format!("mv {quoted} {aside} && {}", host.repair())
}

/// What tells signd of changes.
fn marker(host: &Host, section: &mut Section) {
    if host.inspector.has_marker() {
        return;
    }
    let (subject, message) = ("gnupg/pubring.kbx", "is missing: signd's keycache is stale");
    if host.options.repair {
        section.mended(subject, message, host.inspector.prepare());
    } else {
        section.warning(subject, message, host.repair());
    }
}

fn lacks(lines: &[AgentOption]) -> String {
    let lines: Vec<_> = lines.iter().map(|option| format!("\"{}\"", option.line())).collect();
    format!(
        "lacks {}: with many clients at once signatures are slow, or fail (Cannot allocate memory)",
        lines.join(", ")
    )
}

/// The agent that runs.
fn running(host: &Host, section: &mut Section) {
    let subject = "gnupg/S.gpg-agent";
    match host.inspector.agent_home().agent() {
        Agent::None => {}
        Agent::Silent(why) => {
            let remedy = units::signd_process(host).and_then(restart);
            let remedy = remedy.unwrap_or_else(|| "systemctl restart signd".into());
            section.warning(subject, format!("the agent does not answer: {why}"), remedy);
        }
        Agent::Answers { is_outdated: false, .. } => {}
        Agent::Answers { pid, is_outdated: true } => section.warning(
            subject,
            format!(
                "the agent (process {pid}) was started before gpg-agent.conf was changed, and reads all of \
                 it only at its start"
            ),
            // The next signature starts another one.
            restart(pid).unwrap_or_else(|| format!("kill {pid}")),
        ),
    }
}

/// What starts the unit of signd anew that a process is in.
fn restart(pid: u32) -> Option<String> {
    Some(format!("systemctl restart {}", units::signd_unit_of(pid)?))
}

/// The process of signd, if it can be found.
fn signd(host: &Host, conf: Option<&SignConf>) -> Option<u32> {
    let pidfile = conf?.pidfile.as_deref().unwrap_or(Path::new(PIDFILE));
    let written = fs::read_to_string(pidfile).ok().and_then(|text| text.trim().parse().ok());
    // A process that has ended may have left its number to another one.
    let is_signd = |pid: &u32| {
        fs::read(format!("/proc/{pid}/cmdline"))
            .is_ok_and(|words| words.windows(5).any(|word| word == b"signd"))
    };
    written.filter(is_signd).or_else(|| units::signd_process(host))
}

/// Whether a process of signd has the directory that is here now, and can write there.
fn view(host: &Host, pid: u32, section: &mut Section) {
    let remedy =
        || restart(pid).unwrap_or_else(|| format!("end signd (process {pid}) and start it again"));
    let why = match look(host.inspector.agent_home().path(), pid) {
        Ok(Some(why)) => why,
        Err(e) if is_alive(pid) => {
            let message = format!("signd (process {pid}) could not be looked at: {e}");
            return section.note("gnupg", message);
        }
        Ok(None) | Err(_) => return, // it has ended meanwhile
    };
    let message = format!(
        "signd (process {pid}) {why}: it was moved away or made anew since signd was started, and no \
         signature can be made"
    );
    section.failed("gnupg", message, remedy());
}

/// What is wrong with `directory` as the process sees it, in its own tree of mounts.
fn look(directory: &Path, pid: u32) -> io::Result<Option<&'static str>> {
    // An absolute link in it would lead back into our own tree.
    let here = directory.canonicalize()?;
    let there: PathBuf = [Path::new("/proc"), Path::new(&pid.to_string()), Path::new("root")]
        .into_iter()
        .chain(here.strip_prefix("/").ok())
        .collect();
    let is_read_only = |path: &Path| -> io::Result<bool> {
        Ok(statvfs(path)?.flags().contains(FsFlags::ST_RDONLY))
    };
    let seen = match fs::metadata(&there) {
        Err(e) if e.kind() == io::ErrorKind::NotFound && is_alive(pid) => {
            return Ok(Some("does not see this directory"));
        }
        seen => seen?,
    };
    let found = fs::metadata(&here)?;
    if (seen.dev(), seen.ino()) != (found.dev(), found.ino()) {
        return Ok(Some("has another directory in its place"));
    }
    let is_cut_off = is_read_only(&there)? && !is_read_only(&here)?;
    Ok(is_cut_off.then_some("cannot write to this directory"))
}

fn is_alive(pid: u32) -> bool {
    Path::new("/proc").join(pid.to_string()).exists()
}
