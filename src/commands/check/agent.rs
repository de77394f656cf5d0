//! Checks the agent that signs, in `gnupg/`: its configuration, whether the running agent has read it, and
//! whether signd still sees this directory. A sandbox keeps the directory that was there when signd started,
//! even after that is moved away and another one takes its name.

use std::fs;
use std::io;
use std::path::Path;

use gpg::agent::AgentOption;
use keystore::remedy;
use keystore::{Agent, Configuration, FileId};
use nix::sys::statvfs::{FsFlags, statvfs};

use super::finding::{Mend, Remedy, Section};
use super::host::Host;
use super::owners::user;
use super::survey::Survey;
use crate::commands::sign_conf::read_text;
use crate::systemd::systemctl;

const NAME: &str = "the agent that signs";

/// Where signd writes its process ID unless sign.conf names another file.
const PIDFILE: &str = "/run/signd.pid";

/// Checks the files of the agent's home, which the service creates and updates when it starts.
pub fn configuration(host: &Host, _: &Survey) -> Section {
    let mut section = Section::new(NAME);
    if !host.is_ours() {
        section.note("gnupg", "is the old service's, see below");
        return section;
    }
    for (path, why) in host.inspector.misleading_files() {
        section.failed(host.name(&path), why, host.keep_aside(&path));
    }
    let home = host.inspector.agent_home();
    let path = home.configuration_path();
    let subject = host.name(&path);
    match home.configuration() {
        Configuration::Whole => {}
        Configuration::Absent => {
            let message =
                "is missing: signatures are slow, and with many clients at once they fail";
            section.failed(subject, message, Mend::AgentHome);
        }
        Configuration::Lacks(lines) => section.failed(subject, lacks(&lines), Mend::AgentHome),
        Configuration::Foreign(what, lines) => {
            let message = format!("{what}, and does not say all that many clients need");
            section.failed(subject, message, write_there(host, &path, &lines));
        }
    }
    // This file tells signd that keys have changed.
    if !host.inspector.has_marker() {
        let message = "is missing: signd's keycache is stale";
        section.warning("gnupg/pubring.kbx", message, Mend::AgentHome);
    }
    if section.is_well() {
        let message = "its configuration says what an agent needs that signs for many clients";
        section.ok("gnupg", message);
    }
    section.of_obs_signd()
}

/// Returns the remedy for a gpg-agent.conf that copr-keygen does not write. If it is a symbolic link to a
/// file, appends the missing lines there; otherwise moves it aside.
fn write_there(host: &Host, path: &Path, lines: &[AgentOption]) -> Remedy {
    if path.is_symlink() && path.is_file() {
        let lines: Vec<_> = lines.iter().map(|option| option.line()).collect();
        return Remedy::Command(remedy::append(path, &lines));
    }
    host.keep_aside(path)
}

fn lacks(lines: &[AgentOption]) -> String {
    let lines: Vec<_> = lines.iter().map(|option| format!("\"{}\"", option.line())).collect();
    format!(
        "lacks {}: with many clients at once signatures are slow, or fail (Cannot allocate memory)",
        lines.join(", ")
    )
}

/// Checks the agent and the signd that are running.
pub fn running(host: &Host, _: &Survey) -> Section {
    let mut section = Section::new(NAME);
    if !host.is_ours() {
        return section;
    }
    let subject = "gnupg/S.gpg-agent";
    match host.inspector.agent_home().agent() {
        Agent::None | Agent::Answers { is_outdated: false, .. } => {}
        Agent::Silent(why) => {
            let restart = host.known_units().and_then(systemctl::Units::restart_signd);
            let remedy = restart.map_or("end it, or start signd anew".into(), Remedy::Command);
            section.warning(subject, format!("the agent does not answer: {why}"), remedy);
        }
        Agent::Answers { pid, is_outdated: true } => {
            let message = format!(
                "the agent (process {pid}) was started before gpg-agent.conf was changed, and reads all of \
                 it only at its start"
            );
            // Killing the agent is enough: the next signature starts another one.
            let restart = systemctl::restart_signd_of(pid).unwrap_or_else(|| format!("kill {pid}"));
            section.warning(subject, message, Remedy::Command(restart));
        }
    }
    if let Some(pid) = signd(host) {
        view(host, pid, &mut section);
    }
    section.of_obs_signd()
}

/// Returns the process ID of signd, if it can be found.
fn signd(host: &Host) -> Option<u32> {
    let conf = host.conf.as_ref().ok()?;
    let pidfile = conf.path("pidfile:").unwrap_or(Path::new(PIDFILE));
    let written = read_text(pidfile).ok().and_then(|text| text.trim().parse().ok());
    // After signd has exited, another process may have the same ID.
    let is_signd = |pid: &u32| {
        fs::read_to_string(format!("/proc/{pid}/cmdline"))
            .is_ok_and(|words| words.split(['/', '\0']).any(|name| name.starts_with("signd")))
    };
    written.filter(is_signd).or_else(|| host.known_units()?.signd_process())
}

/// Checks that the process of signd runs as the owner of the state, sees the current `gnupg/`, and can write to
/// it.
fn view(host: &Host, pid: u32, section: &mut Section) {
    let process = Path::new("/proc").join(pid.to_string());
    let restart = || match systemctl::restart_signd_of(pid) {
        Some(command) => Remedy::Command(command),
        None => format!("end signd (process {pid}) and start it again").into(),
    };
    if let Some(uid) = effective_uid(&process).filter(|uid| *uid != host.owner.uid.as_raw()) {
        let (found, owner) = (user(uid), &host.owner.name);
        let message = format!("signd (process {pid}) runs as {found}, not as {owner}");
        section.failed("gnupg", message, restart());
    }
    match look(host.inspector.agent_home().path(), &process) {
        Ok(Some(why)) => {
            let message = format!(
                "signd (process {pid}) {why}: it was moved away or made anew since signd was started, and no \
                 signature can be made"
            );
            section.failed("gnupg", message, restart());
        }
        Err(e) if process.exists() => {
            section.note("gnupg", format!("signd (process {pid}) could not be looked at: {e}"));
        }
        Ok(None) | Err(_) => {} // all is well, or signd has ended meanwhile
    }
}

/// Returns the effective user ID of a process. /proc/PID itself belongs to root if the process has changed its
/// user since it was started (proc(5)).
fn effective_uid(process: &Path) -> Option<u32> {
    let status = fs::read_to_string(process.join("status")).ok()?;
    let uids = status.lines().find_map(|line| line.strip_prefix("Uid:"))?;
    uids.split_whitespace().nth(1)?.parse().ok()
}

/// Returns what is wrong with `directory` as seen by the process, in its own mount namespace.
fn look(directory: &Path, process: &Path) -> io::Result<Option<&'static str>> {
    // Resolve links here first: an absolute one below /proc/PID/root would lead back into our own namespace.
    let here = directory.canonicalize()?;
    let there = process.join("root").join(here.strip_prefix("/").unwrap_or(&here));
    let is_read_only = |path: &Path| -> io::Result<bool> {
        Ok(statvfs(path)?.flags().contains(FsFlags::ST_RDONLY))
    };
    let seen = match fs::metadata(&there) {
        Err(e) if e.kind() == io::ErrorKind::NotFound && process.exists() => {
            return Ok(Some("does not see this directory"));
        }
        seen => seen?,
    };
    let found = fs::metadata(&here)?;
    if FileId::from(&seen) != FileId::from(&found) {
        return Ok(Some("has another directory in its place"));
    }
    let is_cut_off = is_read_only(&there)? && !is_read_only(&here)?;
    Ok(is_cut_off.then_some("cannot write to this directory"))
}
