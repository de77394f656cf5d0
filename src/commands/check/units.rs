//! Checks the systemd units: the socket listens, the timer is set, signd runs, and each service has its user
//! and sandbox. Starts nothing. A host without systemd is no failure.

use std::path::Path;

use super::finding::{Remedy, Section};
use super::host::Host;
use super::ping;
use super::who_signs::WhoSigns;
use crate::systemd::systemctl::{
    FILL_POOL, PHRASES, POOL, PROLONG, SERVICE, SIGND, SIGND_SERVICE, SIGND_SOCKET, SOCKET, TIMER,
    Unit, Units,
};

/// Where `make install` puts the drop-in for signd, to be copied for a unit of any name.
const SIGND_DROP_IN: &str = "/usr/share/copr-keygen/10-copr-keygen.conf";

pub fn section(host: &Host) -> Section {
    let mut section = Section::new("units");
    let units = match &host.units {
        Some(Ok(units)) => units,
        Some(Err(why)) => {
            section.warning("systemctl", format!("could not be asked: {why}"), "run check as root");
            return section;
        }
        None => {
            section.note("systemd", "not under systemd: no socket, no timer, no units to look at");
            without_systemd(host, &mut section);
            return section;
        }
    };
    judge_socket(&units.unit(SOCKET), &mut section);
    judge_service(SERVICE, &units.unit(SERVICE), &mut section);
    judge_timer(&units.unit(TIMER), &units.unit(PROLONG), &mut section);
    if host.settings.pool.get().is_ok_and(|pool| !pool.is_empty()) {
        judge_pool(&units.unit(POOL), &mut section);
    }
    let gives_phrases = host.settings.phrases_dir.get().is_ok_and(Option::is_some);
    if gives_phrases && !host.who_signs.is_only_ours() {
        judge_phrases(&units.unit(PHRASES), &mut section);
    }
    judge_signers(units, host.who_signs, host.conf.is_ok(), &mut section);
    let owner = &host.owner.name;
    for name in [SERVICE, PROLONG, FILL_POOL, PHRASES, SIGND_SERVICE] {
        judge_sandbox(name, &units.unit(name), owner, "10-sandbox.conf", &mut section);
    }
    // Skip this for the old service, which signs as root.
    if let Some((name, unit)) = units.signd().filter(|_| host.is_ours()) {
        judge_sandbox(name, &unit, owner, "10-copr-keygen.conf", &mut section);
    }
    section
}

fn without_systemd(host: &Host, section: &mut Section) {
    for address in host.settings.listen.get().into_iter().flatten() {
        match ping::ping(address) {
            Ok(()) => section.ok(address.to_string(), "copr-keygen answers"),
            Err(e) => section.warning(
                address.to_string(),
                format!("copr-keygen does not answer: {e}"),
                "start copr-keygen serve",
            ),
        }
    }
}

fn judge_socket(socket: &Unit, section: &mut Section) {
    let [active, result] = ["ActiveState", "Result"].map(|it| socket.get(it));
    if !socket.is_installed() {
        not_installed(SOCKET, socket, section);
    } else if socket.is_active() && !socket.is_enabled() {
        let message = "is not enabled: no key can be asked for after the next boot";
        section.failed(SOCKET, message, enable(SOCKET));
    } else if socket.is_active() {
        section.ok(SOCKET, "listens");
    } else {
        let message = format!("does not listen ({active}, {result}): no key can be asked for");
        let commands = ["restart", "enable"].map(|word| format!("systemctl {word} {SOCKET}"));
        section.failed(SOCKET, message, Remedy::commands(commands));
    }
}

/// Reports a unit that systemd has not loaded.
fn not_installed(name: &str, unit: &Unit, section: &mut Section) {
    let load = unit.get("LoadState");
    let remedy = match load {
        "masked" => Remedy::Command(format!("systemctl unmask {name}")),
        "bad-setting" | "error" => Remedy::Command(format!("systemctl status {name}")),
        _ => "install copr-keygen again".into(),
    };
    section.failed(name, format!("is not installed ({load})"), remedy);
}

/// Warns if the pool unit does not run. Keys are then made on request, which only takes longer.
fn judge_pool(pool: &Unit, section: &mut Section) {
    if pool.is_active() {
        section.ok(POOL, "has keys made in advance");
    } else {
        let message = "does not run: no keys are made in advance, each request waits for its own";
        section.warning(POOL, message, enable(&format!("{FILL_POOL} {POOL}")));
    }
}

/// Checks the unit that writes the phrases at boot. Without it, signd knows no user after the next boot,
/// until each key is requested again.
fn judge_phrases(phrases: &Unit, section: &mut Section) {
    if !phrases.is_active() {
        section.failed(PHRASES, "has not given signd its phrases", enable(PHRASES));
    } else if !phrases.is_enabled() {
        let message = "is not enabled: signd has none after the next boot";
        section.failed(PHRASES, message, enable(PHRASES));
    } else {
        section.ok(PHRASES, "has given signd its phrases");
    }
}

fn judge_service(name: &str, service: &Unit, section: &mut Section) {
    let state = service.get("ActiveState");
    if state == "failed" {
        let [result, status] = ["Result", "ExecMainStatus"].map(|it| service.get(it));
        let message = format!("has failed ({result}, status {status})");
        section.failed(name, message, say_why_and("restart", name));
    } else if service.is_installed() {
        let message = format!("{state}; started by the next connection when it is not");
        section.ok(name, message);
    }
    if service.get("Environment").contains("COPR_KEYGEN_") {
        section.warning(
            name,
            "has settings in its Environment=, which check and prolong do not see",
            "move them to /etc/copr-keygen/config.toml",
        );
    }
}

fn judge_timer(timer: &Unit, prolong: &Unit, section: &mut Section) {
    if !timer.is_installed() {
        not_installed(TIMER, timer, section);
    } else if !timer.is_active() {
        section.failed(TIMER, "is not set: keys will expire", enable(TIMER));
    } else if !timer.is_enabled() {
        let message = "is not enabled: it is gone after the next boot";
        section.failed(TIMER, message, enable(TIMER));
    } else {
        match timer.get("NextElapseUSecRealtime") {
            "" => {
                let restart = Remedy::Command(format!("systemctl restart {TIMER}"));
                section.warning(TIMER, "has no next time", restart);
            }
            next => section.ok(TIMER, format!("prolongs next at {next}")),
        }
    }
    if prolong.get("ActiveState") == "failed" {
        section.failed(PROLONG, "has failed the last time", say_why_and("start", PROLONG));
    }
}

/// Checks that exactly one of the two signers is enabled or runs. `has_conf` is whether
/// obs-signd has its configuration.
fn judge_signers(units: &Units, who: WhoSigns, has_conf: bool, section: &mut Section) {
    let (socket, signd) = (units.unit(SIGND_SOCKET), units.signd());
    match (who.ours, who.obs_signd) {
        (true, true) => {
            let theirs = signd.as_ref().map_or(SIGND[0], |(name, _)| name);
            // Keep the signer that runs: it was chosen last.
            let loser = if socket.is_active() { theirs } else { SIGND_SOCKET };
            let message = format!(
                "is enabled or runs beside {theirs}: each stops the other, and the next boot decides who signs"
            );
            let command = format!("systemctl disable --now {loser}");
            section.failed(SIGND_SOCKET, message, Remedy::Command(command));
        }
        (true, false) => judge_own_signer(&socket, &units.unit(SIGND_SERVICE), section),
        (false, false) if socket.is_installed() && !(has_conf && signd.is_some()) => {
            let message = "is not enabled, and obs-signd does not run: nothing can be signed";
            section.failed(SIGND_SOCKET, message, enable(SIGND_SOCKET));
        }
        (false, _) => judge_signd(signd.as_ref(), section),
    }
}

fn judge_own_signer(socket: &Unit, service: &Unit, section: &mut Section) {
    if !socket.is_active() {
        let [active, result] = ["ActiveState", "Result"].map(|it| socket.get(it));
        let message = format!("does not listen ({active}, {result}): nothing can be signed");
        let restart = Remedy::Command(format!("systemctl restart {SIGND_SOCKET}"));
        section.failed(SIGND_SOCKET, message, restart);
    } else if !socket.is_enabled() {
        let message = "is not enabled: nothing can be signed after the next boot";
        section.failed(SIGND_SOCKET, message, enable(SIGND_SOCKET));
    } else {
        section.ok(SIGND_SOCKET, "listens");
    }
    judge_service(SIGND_SERVICE, service, section);
}

fn judge_signd(signd: Option<&(&str, Unit)>, section: &mut Section) {
    match signd {
        None => {
            let message = "obs-signd has no unit: nothing can be signed";
            section.failed(SIGND[0], message, "install obs-signd");
        }
        Some((name, unit)) if unit.is_active() => section.ok(name, "runs"),
        Some((name, unit)) => section.failed(
            name,
            format!("does not run ({}, {})", unit.get("ActiveState"), unit.get("Result")),
            Remedy::Command(format!("systemctl start {name}")),
        ),
    }
}

/// Checks that a unit has its user and its sandbox. Both come from a drop-in; without
/// that, the unit still works, but as root.
fn judge_sandbox(name: &str, unit: &Unit, owner: &str, drop_in: &str, section: &mut Section) {
    let user = if unit.get("User").is_empty() { "root" } else { unit.get("User") };
    let has_sandbox = unit.get("NoNewPrivileges") == "yes" && unit.get("ProtectSystem") == "strict";
    let what = match (user == owner, has_sandbox) {
        (true, true) => return,
        _ if !unit.is_installed() => return,
        (true, false) => "without a sandbox".to_owned(),
        (false, true) => format!("as {user}, not as {owner}"),
        (false, false) => format!("as {user}, not as {owner}, and without a sandbox"),
    };
    let message = format!("runs {what}: {drop_in} is missing, or is not what it was");
    let remedy = match SIGND.contains(&name) && Path::new(SIGND_DROP_IN).exists() {
        true => Remedy::commands([
            format!("install -D -m 0644 {SIGND_DROP_IN} /etc/systemd/system/{name}.d/{drop_in}"),
            "systemctl daemon-reload".into(),
            format!("systemctl restart {name}"),
        ]),
        false => "install copr-keygen again; it brings the file back".into(),
    };
    section.failed(name, message, remedy);
}

fn enable(units: &str) -> Remedy {
    Remedy::Command(format!("systemctl enable --now {units}"))
}

/// Returns a remedy that shows the journal of a unit before it runs `systemctl WORD`. The journal has the
/// reason of the failure; while that persists, the unit fails again.
fn say_why_and(word: &str, unit: &str) -> Remedy {
    let journal = format!("journalctl --no-pager -n 20 -u {unit}");
    Remedy::commands([journal, format!("systemctl {word} {unit}")])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(judge: impl Fn(&mut Section)) -> String {
        let mut section = Section::new("units");
        judge(&mut section);
        format!("{section:?}")
    }

    fn unit(text: &str) -> Unit {
        Unit::parse(&format!("LoadState=loaded\n{text}"))
    }

    #[test]
    fn units_that_are_well_are_told_from_others() {
        let active = unit("ActiveState=active\nUnitFileState=enabled\nNextElapseUSecRealtime=Mon");
        let none = Unit::parse("LoadState=not-found\nActiveState=inactive\n");
        let dead = unit("ActiveState=failed\nResult=trigger-limit-hit");
        for (unit, word) in
            [(&active, "Ok"), (&none, "not installed"), (&dead, "trigger-limit-hit")]
        {
            assert!(lines(|section| judge_socket(unit, section)).contains(word), "{word}");
        }
        let disabled = unit("ActiveState=active\nUnitFileState=disabled");
        let masked = Unit::parse("LoadState=masked\nActiveState=inactive\n");
        for (unit, word) in
            [(&disabled, "after the next boot"), (&masked, "unmask copr-keygen.socket")]
        {
            assert!(lines(|section| judge_socket(unit, section)).contains(word), "{word}");
        }
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
        assert!(lines(|section| judge_service(SERVICE, &hidden, section)).contains("do not see"));
        assert!(lines(|section| judge_service(SERVICE, &dead, section)).contains("has failed"));
        for (first, second, word) in [
            (&active, &none, "signd.service\", message: \"runs"),
            (&none, &active, "obssignd.service\", message: \"runs"),
            (&none, &none, "install obs-signd"),
            (&none, &dead, "systemctl start obssignd.service"),
        ] {
            let units = Units::of(SIGND.into_iter().zip([first.clone(), second.clone()]));
            let told = lines(|section| judge_signd(units.signd().as_ref(), section));
            assert!(told.contains(word), "{word}: {told}");
        }
    }

    #[test]
    fn exactly_one_signer_is_to_be_on() {
        let on = unit("ActiveState=active\nUnitFileState=enabled");
        let enabled = unit("ActiveState=inactive\nUnitFileState=enabled");
        let running = unit("ActiveState=active\nUnitFileState=disabled");
        let off = unit("ActiveState=inactive\nUnitFileState=disabled");
        let none = Unit::parse("LoadState=not-found\nActiveState=inactive\n");
        for (ours, theirs, has_conf, words) in [
            (&on, &none, false, "copr-keygen-signd.socket\", message: \"listens"),
            (&on, &off, true, "copr-keygen-signd.socket\", message: \"listens"),
            (&running, &off, true, "systemctl enable --now copr-keygen-signd.socket"),
            (&enabled, &off, true, "systemctl restart copr-keygen-signd.socket"),
            (&on, &enabled, true, "systemctl disable --now signd.service"),
            (&enabled, &on, true, "systemctl disable --now copr-keygen-signd.socket"),
            (&off, &on, true, "signd.service\", message: \"runs"),
            (&none, &on, true, "signd.service\", message: \"runs"),
            (&off, &off, true, "systemctl start signd.service"),
            (&off, &off, false, "systemctl enable --now copr-keygen-signd.socket"),
            (&off, &none, true, "systemctl enable --now copr-keygen-signd.socket"),
            (&none, &none, true, "install obs-signd"),
        ] {
            let units = [(SIGND_SOCKET, ours.clone()), (SIGND[0], theirs.clone())];
            let units = Units::of(units);
            let who = WhoSigns::by_units(&units);
            let told = lines(|section| judge_signers(&units, who, has_conf, section));
            assert!(told.contains(words), "{words}: {told}");
        }
    }

    #[test]
    fn a_unit_without_its_drop_in_is_told() {
        let confined = "NoNewPrivileges=yes\nProtectSystem=strict";
        for (text, words) in [
            (format!("User=copr-signer\n{confined}"), ""),
            (
                "User=\nNoNewPrivileges=no\nProtectSystem=no".into(),
                "as root, not as copr-signer, and",
            ),
            ("User=copr-signer\nNoNewPrivileges=yes".into(), "runs without a sandbox: 10-x.conf"),
            (format!("User=bin\n{confined}"), "runs as bin, not as copr-signer: "),
        ] {
            let judge = |section: &mut Section| {
                judge_sandbox(SERVICE, &unit(&text), "copr-signer", "10-x.conf", section);
            };
            let told = lines(judge);
            assert!(told.contains(words) && told.contains("Failed") != words.is_empty(), "{told}");
        }
        let none = Unit::parse("LoadState=not-found");
        let judge = |section: &mut Section| judge_sandbox(PROLONG, &none, "a", "b", section);
        assert!(!lines(judge).contains("Failed"));
    }
}
