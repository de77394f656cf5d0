//! Checks whether this host has the same keys as the others, if several hosts share keys through etcd.

use std::collections::HashSet;

use cluster::{Directory, Error as ClusterError};
use gpg::clock;
use gpg::text::{number, size};
use keystore::{Followed, NameEmail};

use super::finding::Section;
use super::host::Host;
use super::survey::Survey;

/// The age in seconds at which `cluster.json` is too old. A host that follows writes it every 15 seconds.
const LATE: u64 = 60;

/// The default quota of etcd in bytes: with a larger database it accepts no more changes.
const QUOTA: u64 = 2 << 30;

/// The seconds that the clocks of two hosts may differ; two of them allow for the measurement. On a host
/// whose clock is behind, a new key or signature of another host is not valid at once.
const BETWEEN_CLOCKS: u64 = 5;

const FOLLOW: &str = "start copr-keygen-follow.service, or look at its log (docs/cluster.md)";

pub fn section(host: &Host, survey: &Survey) -> Section {
    let mut section = Section::new("other hosts");
    if host.settings.cluster.endpoints.get().map_or(true, Vec::is_empty) {
        return section;
    }
    if let Some(why) = &host.settings.cluster_fault {
        section.failed("cluster", why, "see docs/cluster.md");
    }
    let Some(directory) = &host.settings.cluster_directory else {
        section.note("cluster", "etcd was not asked: that takes the credentials of the units");
        followed(host, &mut section);
        return section;
    };
    members(directory, &mut section);
    if section.look("cluster", directory.compare_sealing(), "see docs/cluster.md").is_none() {
        return section;
    }
    followed(host, &mut section);
    let hosts = section.look("cluster", directory.hosts(), "see the members of etcd above");
    if let Some(hosts) = hosts {
        let own = host.settings.cluster.host.get().cloned().unwrap_or_default();
        match hosts.contains(&own) {
            true => section.ok("hosts that follow", hosts.join(", ")),
            false => section.failed(&own, "does not follow the other hosts", FOLLOW),
        }
    }
    compare(directory, survey, &mut section);
    section
}

fn members(directory: &Directory, section: &mut Section) {
    let mut clusters = HashSet::new();
    for (endpoint, member) in directory.etcd().members() {
        let subject = endpoint.to_string();
        match member {
            Ok(member) if !member.has_leader => {
                section.failed(subject, "has no leader", "look at the other members of etcd");
            }
            Ok(member) => {
                clusters.insert(member.cluster);
                let bytes = size(member.size);
                let message = format!("etcd {}, database of {bytes}", member.version);
                let remedy = "compact and defragment it, or raise its quota (docs/cluster.md)";
                if !member.errors.is_empty() {
                    section.failed(&subject, member.errors.join(", "), remedy);
                } else if member.size > QUOTA / 4 * 3 {
                    section.warning(&subject, message, remedy);
                } else {
                    section.ok(&subject, message);
                }
                if member.ahead.unsigned_abs() > BETWEEN_CLOCKS {
                    let seconds = member.ahead.unsigned_abs();
                    let side = if member.ahead > 0 { "ahead of" } else { "behind" };
                    let message = format!("its clock is {seconds} s {side} the one of this host");
                    section.failed(subject, message, "look at timedatectl on both");
                }
            }
            Err(e) => section.warning(subject, e.to_string(), "start this member of etcd"),
        }
    }
    if clusters.len() > 1 {
        let message = "the endpoints are of more than one etcd: each decides for itself";
        section.failed("cluster.endpoints", message, "name members of one etcd only");
    }
}

fn followed(host: &Host, section: &mut Section) {
    let Some(followed) = Followed::read(host.state()) else {
        section.failed("cluster.json", "this host has never followed the others", FOLLOW);
        return;
    };
    let now = clock::now().unwrap_or_default();
    if now.saturating_sub(followed.time) > LATE {
        let at = clock::timestamp(followed.time);
        section.failed("cluster.json", format!("has followed the others until {at}"), FOLLOW);
    }
    if followed.refused > 0 {
        let keys = number(followed.refused, "key", "keys");
        let message = format!("{keys} of other hosts could not be taken over");
        section.failed("cluster.json", message, "the log of copr-keygen-follow.service names them");
    }
}

/// Checks for keys that only this host or only etcd has.
fn compare(directory: &Directory, survey: &Survey, section: &mut Section) {
    let here: HashSet<&NameEmail> = survey.whole().map(|home| &home.name_email).collect();
    let (mut there, mut common) = (0_usize, 0_usize);
    let listed = directory.names::<ClusterError>(|names| {
        let known = names.iter().filter_map(|name| name.name_email.as_ref().ok());
        for name_email in known {
            there += 1;
            common += usize::from(here.contains(name_email));
        }
        Ok(())
    });
    if section.look("cluster", listed, "see the members of etcd above").is_none() {
        return;
    }
    match here.len() - common {
        0 => section.ok("keys", format!("{} here, each known to etcd", here.len())),
        more => {
            let keys = number(more, "key is", "keys are");
            let message = format!("{keys} not known to the other hosts");
            section.failed("keys", message, "tell them: copr-keygen follow --seed");
        }
    }
    let removed_or_missing = there - common;
    if removed_or_missing > 0 {
        let names = number(removed_or_missing, "name", "names");
        section.note("etcd", format!("knows {names} more: removed keys, or keys to be taken over"));
    }
}
