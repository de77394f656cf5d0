//! Checks `copr-keygen signd`: it must answer, and its rules must admit the intended clients only.

use std::fs;
use std::path::Path;

use keystore::remedy::{self, quote, quote_path};

use super::finding::{Remedy, Section};
use super::host::Host;
use super::who_signs::{who_answers, who_answers_at_port};
use crate::access_rule::{AccessRule, Clients, Network};
use crate::commands::sign_conf::read_text;
use crate::listen_address::ListenAddress;
use crate::settings::rules_in;
use crate::systemd::systemctl::{SIGND_SERVICE, SIGND_SOCKET};
use crate::users;

const ALLOW: &str = "signd.allow";
const RESERVED_PORTS: &str = "signd.reserved_ports";

/// The file with the first port that any user may bind (ip(7)).
const FIRST_FREE_PORT: &str = "/proc/sys/net/ipv4/ip_unprivileged_port_start";
const RESERVED: u32 = 1024;

pub fn section(host: &Host) -> Section {
    let mut section = Section::new("copr-keygen signd");
    if !host.who_signs.ours {
        return section;
    }
    rules(host, &mut section);
    reserved_ports(host, &mut section);
    let addresses = addresses(host);
    addresses.iter().for_each(|address| answers(host, address, &mut section));
    if host.who_signs.obs_signd && host.known_units().is_none() {
        let message = "leads to an obs-signd that answers, too: clients decide who signs";
        section.warning(host.sign_conf().to_string_lossy(), message, "end one of the two");
    }
    if host.who_signs.is_only_ours() {
        clients_of_this_host(host, &addresses, &mut section);
    }
    section
}

/// Checks the rules of `signd.allow`, each as it was written.
fn rules(host: &Host, section: &mut Section) {
    let Some((_, text, source)) = host.settings.origins.iter().find(|(name, ..)| name == ALLOW)
    else {
        return;
    };
    let rules: Vec<_> = rules_in(text).collect();
    let clients = |rule: &str| rule.parse::<AccessRule>().map(|rule| rule.clients);
    let (mut unknown, mut open) = (Vec::new(), Vec::new());
    for rule in &rules {
        match clients(rule) {
            Ok(Clients::User(name)) => {
                unknown.extend(users::user(ALLOW, &name).err().map(|e| (*rule, e.to_string())));
            }
            Ok(Clients::Network(network)) if network.is_everything() => open.push(*rule),
            Ok(Clients::Network(_)) | Err(_) => {}
        }
    }
    // Never suggest removing the last rule: with no rules, this host may have everything signed.
    let others_stay = unknown.len() < rules.len();
    for (rule, why) in unknown {
        let command = take_out(host, rule, Path::new(source)).filter(|_| others_stay);
        let remedy = command.unwrap_or_else(|| {
            "make that user, or correct the setting; then start it again".into()
        });
        section.failed(ALLOW, format!("{why}: copr-keygen signd does not start"), remedy);
    }
    for rule in open {
        let reserved = match host.settings.signd.reserved_ports.get() {
            Ok(true) => "; that it uses a port below 1024 says only that root uses it, over there",
            _ => "",
        };
        let message = format!(
            "the rule {rule:?} lets every host have signed that reaches this one{reserved}"
        );
        section.warning(ALLOW, message, "name the addresses of those who sign, in place of that");
    }
    if section.is_well() {
        let message = match rules.len() {
            0 => "has no rules: this host may have everything signed, and no other".into(),
            _ => format!("lets in {}", rules.join(", ")),
        };
        section.ok(ALLOW, message);
    }
}

/// Returns the command line that removes a rule from an array in the configuration file. `None` unless the
/// rule is there exactly once, as it was written.
fn take_out(host: &Host, rule: &str, file: &Path) -> Option<Remedy> {
    let text = read_text(file).ok()?;
    let quoted = ['"', '\''].map(|mark| format!("{mark}{rule}{mark}"));
    let member = quoted.iter().find(|member| text.matches(*member).count() == 1)?;
    // Only in an array does a bracket or a comma precede the rule; otherwise it is an equals sign.
    let before = text.split(member.as_str()).next()?.trim_end();
    if !before.ends_with(['[', ',']) {
        return None;
    }
    let is_special = |c: char| r"\/.*[]^$".contains(c);
    let escape = |c: char| if is_special(c) { format!("\\{c}") } else { c.into() };
    let pattern: String = member.chars().map(escape).collect();
    let script = quote(&format!("s/{pattern}[[:space:]]*,*//"));
    let edit = format!("sed -i {script} {}", quote_path(file));
    Some(match host.known_units() {
        Some(_) => Remedy::commands([edit, format!("systemctl restart {SIGND_SOCKET}")]),
        None => Remedy::Command(edit),
    })
}

fn reserved_ports(host: &Host, section: &mut Section) {
    if !host.settings.signd.reserved_ports.get().is_ok_and(|reserved| *reserved) {
        return;
    }
    let first = fs::read_to_string(FIRST_FREE_PORT).ok();
    let first = first.and_then(|text| text.trim().parse::<u32>().ok()).unwrap_or(RESERVED);
    if first < RESERVED {
        let message = format!(
            "every user of this host may take ports from {first} on, so a port below {RESERVED} says nothing \
             of who asks"
        );
        let command = format!("sysctl -w net.ipv4.ip_unprivileged_port_start={RESERVED}");
        section.warning(RESERVED_PORTS, message, Remedy::Command(command));
    } else {
        section.ok(RESERVED_PORTS, "only root may ask over TCP, on any host");
    }
}

/// Returns the addresses of the socket unit, or without systemd those of the setting `signd.listen`.
fn addresses(host: &Host) -> Vec<ListenAddress> {
    let Some(units) = host.known_units() else {
        return host.settings.signd.listen.get().cloned().unwrap_or_default();
    };
    let socket = units.unit(SIGND_SOCKET);
    let lines = socket.get("Listen").lines().filter_map(|line| line.strip_suffix(" (Stream)"));
    let parse = |line: &str| match line.starts_with('/') {
        true => format!("unix:{line}").parse().ok(),
        false => line.parse().ok(),
    };
    lines.filter_map(parse).collect()
}

fn answers(host: &Host, address: &ListenAddress, section: &mut Section) {
    let restart = || match host.known_units() {
        Some(_) => Remedy::commands([
            format!("journalctl --no-pager -n 20 -u {SIGND_SERVICE}"),
            format!("systemctl restart {SIGND_SOCKET}"),
        ]),
        None => "start copr-keygen signd".into(),
    };
    let subject = address.to_string();
    if keeps_this_host_away(host, address) {
        section.note(
            subject,
            "was not asked: IPAddressDeny= of the socket keeps this host itself away",
        );
        return;
    }
    match who_answers(address) {
        Ok(true) => section.ok(subject, "copr-keygen signd answers"),
        Ok(false) => {
            section.failed(subject, "something else answers, or nothing in time", restart());
        }
        Err(e) => section.failed(subject, format!("does not answer: {e}"), restart()),
    }
}

/// Whether the IP filter of the socket unit drops packets that this host sends to its own address.
fn keeps_this_host_away(host: &Host, address: &ListenAddress) -> bool {
    let (Some(units), ListenAddress::Tcp(here)) = (host.known_units(), address) else {
        return false;
    };
    let socket = units.unit(SIGND_SOCKET);
    let networks = |property| {
        let words = socket.get(property).split_whitespace();
        words.filter_map(|word| word.parse::<Network>().ok()).collect::<Vec<_>>()
    };
    let (allowed, denied) = (networks("IPAddressAllow"), networks("IPAddressDeny"));
    let is_in = |networks: &[Network], ip| networks.iter().any(|network| network.contains(ip));
    let here = here.addresses("signd.listen").unwrap_or_default();
    here.iter().any(|here| is_in(&denied, here.ip()) && !is_in(&allowed, here.ip()))
}

/// Checks that `sign`, when run on this host, reaches `copr-keygen signd`.
fn clients_of_this_host(host: &Host, addresses: &[ListenAddress], section: &mut Section) {
    let Ok(conf) = &host.conf else { return };
    let file = host.sign_conf().to_string_lossy();
    let is_local = conf.word("server:").is_none_or(|server| server == "127.0.0.1");
    let Some(port) = conf.port().ok().filter(|_| is_local) else { return };
    if matches!(who_answers_at_port(port), Ok(true)) {
        return;
    }
    let ports = addresses.iter().filter_map(|address| match address {
        ListenAddress::Tcp(host_port) => host_port.addresses("signd.listen").ok(),
        ListenAddress::Unix(_) => None,
    });
    let ours: Vec<_> = ports.flatten().filter(|address| address.ip().is_loopback()).collect();
    let message = format!("sends sign to port {port} of this host, where nothing of ours answers");
    let remedy = match ours.first() {
        Some(address) => {
            let lines =
                [format!("port: {}", address.port()), format!("proxyport: {}", address.port())];
            Remedy::Command(remedy::append(host.sign_conf(), &lines))
        }
        None => {
            "have copr-keygen signd listen there, or name its address in server: and port:".into()
        }
    };
    section.warning(file, message, remedy);
}
