//! What processes that died have left in `staging/`.

use std::collections::BTreeMap;
use std::path::Path;

use keystore::StagingWork;

use super::host::Host;
use super::page::{Section, number};

/// Names at most so many directories of one other host.
const NAMED_MAX: usize = 10;

pub fn section(host: &Host) -> Section {
    let mut section = Section::new("work in progress");
    let work = match host.inspector.work() {
        Ok(work) => work,
        Err(e) => {
            section.failed("staging", e.to_string(), host.repair());
            return section;
        }
    };
    let (mut alive, mut hosts) = (0, BTreeMap::<String, Vec<&Path>>::new());
    let mut dead = Vec::new();
    for (path, work) in &work {
        match work {
            StagingWork::Alive => alive += 1,
            StagingWork::Dead => dead.push(host.name(path)),
            StagingWork::Foreign => {
                let name = path.file_name().unwrap_or_default().to_string_lossy();
                let tag = name.split('-').next().unwrap_or_default().to_owned();
                hosts.entry(tag).or_default().push(path);
            }
            StagingWork::Strange => {
                section.note(host.name(path), "was not made here; nothing clears it");
            }
        }
    }
    let message = "was left behind by a process that ended early";
    if host.options.repair && !dead.is_empty() {
        let cleared = host.inspector.clear_staging();
        let count = number(dead.len(), "unfinished key", "unfinished keys");
        section.mended("staging", format!("{count} of dead processes"), cleared.map(drop));
    } else {
        for subject in dead {
            section.warning(subject, message, host.repair());
        }
    }
    for (tag, paths) in hosts {
        let homes = number(paths.len(), "directory", "directories");
        let named: Vec<_> = paths.iter().take(NAMED_MAX).map(|path| host.quoted(path)).collect();
        let more = match paths.len() - named.len() {
            0 => String::new(),
            more => format!(" and {more} more of it"),
        };
        section.note(
            "staging",
            format!(
                "{homes} of another host ({tag}), cleared by itself after 7 days without a sign of life; if that host \
                 is gone for good: rm -r {}{more}",
                named.join(" ")
            ),
        );
    }
    if alive > 0 {
        section
            .note("staging", format!("{} at work", number(alive, "process is", "processes are")));
    }
    if work.is_empty() {
        section.ok("staging", "empty");
    }
    section
}
