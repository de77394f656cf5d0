//! The units of systemd: the socket listens, the timer is set, signd runs. Nothing is started, and where
//! systemd does not run, that is no failure.

use std::collections::HashMap;
use std::path::Path;
use std::time::{Duration, Instant};

use gpg::process::{self, End, Job};

use super::host::Host;
use super::page::Section;
use super::ping;

const SYSTEMCTL: &str = "/usr/bin/systemctl";
const PATIENCE: Duration = Duration::from_secs(5);

pub const SOCKET: &str = "copr-keygen.socket";
pub const SERVICE: &str = "copr-keygen.service";
const TIMER: &str = "copr-keygen-prolong.timer";
const PROLONG: &str = "copr-keygen-prolong.service";
const POOL: &str = "copr-keygen-pool.path";
/// What opens sealed passphrases for signd.
pub const PHRASES: &str = "copr-keygen-phrases.service";
/// What obs-signd is called, by distribution; the last one is that of the old service.
const SIGND: [&str; 3] = ["signd.service", "obssignd.service", "signd-copr.service"];

/// What to ask of each unit.
const PROPERTIES: &str = "--property=LoadState,ActiveState,UnitFileState,Result,Environment,\
NextElapseUSecRealtime,ExecMainStatus,Listen,MainPID";

/// The properties of a unit; one that is there several times has a line for each.
pub type Unit = HashMap<String, String>;

pub fn section(host: &Host) -> Section {
    let mut section = Section::new("units");
    if !under_systemd(host) {
        section.note("systemd", "not under systemd: no socket, no timer, no units to look at");
        without_systemd(host, &mut section);
        return section;
    }
    match (show(SOCKET), show(SERVICE), show(TIMER), show(PROLONG)) {
        (Ok(socket), Ok(service), Ok(timer), Ok(prolong)) => {
            judge_socket(&socket, &mut section);
            judge_service(&service, &mut section);
            judge_timer(&timer, &prolong, &mut section);
        }
        (socket, service, timer, prolong) => {
            let errors = [socket, service, timer, prolong].into_iter().filter_map(Result::err);
            let why = errors.into_iter().next().unwrap_or_default();
            section.warning("systemctl", format!("could not be asked: {why}"), "run check as root");
            return section;
        }
    }
    if host.settings.pool.get().is_ok_and(|pool| !pool.is_empty()) {
        judge_pool(&show(POOL).unwrap_or_default(), &mut section);
    }
    if host.settings.phrases_dir.get().is_ok_and(Option::is_some) {
        judge_phrases(&show(PHRASES).unwrap_or_default(), &mut section);
    }
    let signd = SIGND.map(|name| (name, show(name).unwrap_or_default()));
    judge_signd(&signd, &mut section);
    section
}

/// The main process of signd's unit, if it runs.
pub fn signd_process(host: &Host) -> Option<u32> {
    if !under_systemd(host) {
        return None;
    }
    let pid = |name| show(name).ok().and_then(|unit| get(&unit, "MainPID").parse().ok());
    SIGND.into_iter().filter_map(pid).find(|pid| *pid != 0)
}

/// The unit of signd that a process is in.
pub fn signd_unit_of(pid: u32) -> Option<&'static str> {
    let groups = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
    let mut parts = groups.split(['/', '\n']);
    SIGND.into_iter().find(|unit| parts.any(|part| part == *unit))
}

/// Whether there are units to look at.
pub fn under_systemd(host: &Host) -> bool {
    !host.options.no_units && Path::new("/run/systemd/system").is_dir()
}

fn without_systemd(host: &Host, section: &mut Section) {
    for address in host.settings.listen.get().into_iter().flatten() {
        match ping::ping(address) {
            Ok(()) => section.ok(address.to_string(), "copr-keygen answers"),
            Err(e) => section.warning(
                address.to_string(),
                format!("copr-keygen does not answer: {e}"),
                host.command("serve"),
            ),
        }
    }
}

/// The properties of a unit.
pub fn show(unit: &str) -> Result<Unit, String> {
    systemctl(&["show", PROPERTIES, unit]).map(|text| properties(&text))
}

/// The files of a unit, as they are, in the order in which they are read.
pub fn cat(unit: &str) -> Result<String, String> {
    systemctl(&["cat", "--no-pager", unit])
}

fn systemctl(arguments: &[&str]) -> Result<String, String> {
    let job = Job {
        program: Path::new(SYSTEMCTL),
        arguments: arguments.iter().map(Into::into).collect(),
        stdin: b"",
        deadline: Instant::now() + PATIENCE,
        background: None,
    };
    match process::run(&job) {
        Ok(done) if done.end == Some(End::Exited(0)) => {
            Ok(String::from_utf8_lossy(&done.stdout).into_owned())
        }
        Ok(done) if done.end.is_none() => Err("it did not answer in time".into()),
        Ok(done) => Err(String::from_utf8_lossy(&done.stderr).trim().to_owned()),
        Err(e) => Err(e.to_string()),
    }
}

fn properties(text: &str) -> Unit {
    let mut unit = Unit::new();
    for (name, value) in text.lines().filter_map(|line| line.split_once('=')) {
        let known = unit.entry(name.to_owned()).or_default();
        if !known.is_empty() {
            known.push('\n');
        }
        known.push_str(value);
    }
    unit
}

/// A property; empty when there is none.
pub fn get<'a>(unit: &'a Unit, name: &str) -> &'a str {
    unit.get(name).map_or("", String::as_str)
}

fn is_installed(unit: &Unit) -> bool {
    get(unit, "LoadState") == "loaded"
}

fn is_active(unit: &Unit) -> bool {
    matches!(get(unit, "ActiveState"), "active" | "activating" | "reloading")
}

fn judge_socket(socket: &Unit, section: &mut Section) {
    if !is_installed(socket) {
        let state = get(socket, "LoadState");
        section.failed(SOCKET, format!("is not installed ({state})"), "install copr-keygen again");
    } else if is_active(socket) {
        section.ok(SOCKET, "listens");
    } else {
        section.failed(
            SOCKET,
            format!(
                "does not listen ({}, {}): no key can be asked for",
                get(socket, "ActiveState"),
                get(socket, "Result")
            ),
            format!("systemctl restart {SOCKET}; systemctl enable {SOCKET}"),
        );
    }
}

/// Without it keys are made on the spot, which only takes longer.
fn judge_pool(pool: &Unit, section: &mut Section) {
    if is_active(pool) {
        section.ok(POOL, "has keys made in advance");
    } else {
        section.warning(
            POOL,
            "does not run: no keys are made in advance, each request waits for its own",
            format!("systemctl enable --now copr-keygen-pool.service {POOL}"),
        );
    }
}

/// Without it signd knows no user after the next boot, until each key is asked for.
fn judge_phrases(phrases: &Unit, section: &mut Section) {
    let enable = format!("systemctl enable --now {PHRASES}, then systemctl status {PHRASES}");
    if !is_active(phrases) {
        section.failed(PHRASES, "has not given signd its phrases", enable);
    } else if get(phrases, "UnitFileState") != "enabled" {
        section.failed(PHRASES, "is not enabled: signd has none after the next boot", enable);
    } else {
        section.ok(PHRASES, "has given signd its phrases");
    }
}

fn judge_service(service: &Unit, section: &mut Section) {
    match get(service, "ActiveState") {
        "failed" => section.failed(
            SERVICE,
            format!(
                "has failed ({}, status {})",
                get(service, "Result"),
                get(service, "ExecMainStatus")
            ),
            format!("journalctl -u {SERVICE} -n 20 says why; then systemctl restart {SOCKET}"),
        ),
        state if is_installed(service) => {
            section.ok(SERVICE, format!("{state}; started by the next connection when it is not"));
        }
        _ => {}
    }
    if get(service, "Environment").contains("COPR_KEYGEN_") {
        section.warning(
            SERVICE,
            "has settings in its Environment=, which check and prolong do not see",
            "move them to /etc/copr-keygen/config.toml",
        );
    }
}

fn judge_timer(timer: &Unit, prolong: &Unit, section: &mut Section) {
    let enable = format!("systemctl enable --now {TIMER}");
    if !is_installed(timer) {
        section.failed(TIMER, "is not installed", "install copr-keygen again");
    } else if !is_active(timer) {
        section.failed(TIMER, "is not set: keys will expire", enable);
    } else if get(timer, "UnitFileState") != "enabled" {
        section.failed(TIMER, "is not enabled: it is gone after the next boot", enable);
    } else {
        match get(timer, "NextElapseUSecRealtime") {
            "" => section.warning(TIMER, "has no next time", format!("systemctl restart {TIMER}")),
            next => section.ok(TIMER, format!("prolongs next at {next}")),
        }
    }
    if get(prolong, "ActiveState") == "failed" {
        section.failed(
            PROLONG,
            "has failed the last time",
            format!("journalctl -u {PROLONG} -n 20 says why; then systemctl start {PROLONG}"),
        );
    }
}

fn judge_signd(units: &[(&str, Unit)], section: &mut Section) {
    let mut installed = units.iter().filter(|(_, unit)| is_installed(unit));
    let running = installed.clone().find(|(_, unit)| is_active(unit));
    match running.or_else(|| installed.next()) {
        None => section.failed(
            SIGND[0],
            "obs-signd has no unit: nothing can be signed",
            "install obs-signd",
        ),
        Some((name, unit)) if is_active(unit) => section.ok(*name, "runs"),
        Some((name, unit)) => section.failed(
            *name,
            format!("does not run ({}, {})", get(unit, "ActiveState"), get(unit, "Result")),
            format!("systemctl start {name}, then systemctl status {name}"),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(judge: impl Fn(&mut Section)) -> String {
        let mut section = Section::new("units");
        judge(&mut section);
        format!("{section:?}")
    }

    #[test]
    fn units_that_are_well_are_told_from_others() {
        let unit = |text: &str| properties(&format!("LoadState=loaded\n{text}"));
        let active = unit("ActiveState=active\nUnitFileState=enabled\nNextElapseUSecRealtime=Mon");
        let none = properties("LoadState=not-found\nActiveState=inactive\n");
        let dead = unit("ActiveState=failed\nResult=trigger-limit-hit");
        for (unit, word) in
            [(&active, "Ok"), (&none, "not installed"), (&dead, "trigger-limit-hit")]
        {
            assert!(lines(|section| judge_socket(unit, section)).contains(word), "{word}");
        }
        let disabled = unit("ActiveState=active\nUnitFileState=disabled");
        for (unit, word) in [
            (&active, "prolongs next at Mon"),
            (&none, "not installed"),
            (&dead, "keys will expire"),
            (&disabled, "gone after the next boot"),
        ] {
            assert!(lines(|section| judge_timer(unit, &active, section)).contains(word), "{word}");
        }
        let failed = lines(|section| judge_timer(&active, &dead, section));
        assert!(failed.contains("failed the last time"), "{failed}");
        let hidden = unit("ActiveState=inactive\nEnvironment=A=b COPR_KEYGEN_JOBS=1");
        assert!(lines(|section| judge_service(&hidden, section)).contains("do not see"));
        assert!(lines(|section| judge_service(&dead, section)).contains("has failed"));
        for (first, second, word) in [
            (&active, &none, "signd.service\", message: \"runs"),
            (&none, &active, "obssignd.service\", message: \"runs"),
            (&none, &none, "install obs-signd"),
            (&none, &dead, "systemctl start obssignd.service"),
        ] {
            let units = [(SIGND[0], first.clone()), (SIGND[1], second.clone())];
            let told = lines(|section| judge_signd(&units, section));
            assert!(told.contains(word), "{word}: {told}");
        }
    }
}
