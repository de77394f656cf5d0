//! Checks `staging/` for what dead processes have left there.

use std::collections::BTreeMap;
use std::path::Path;

use keystore::StagingWork;
use keystore::remedy::quote_path;

use super::finding::{Mend, Section};
use super::host::Host;
use super::survey::Survey;
use crate::commands::output::number;

/// The number of directories of another host that are named at most.
const NAMED_MAX: usize = 10;

pub fn section(host: &Host, _: &Survey) -> Section {
    let mut section = Section::new("work in progress");
    let found = host.inspector.work();
    let Some(work) = section.look("staging", found, host.give_back()) else { return section };
    let (mut alive, mut dead, mut hosts) = (0, 0, BTreeMap::<_, Vec<&Path>>::new());
    for (path, work) in &work {
        match work {
            StagingWork::Alive => alive += 1,
            StagingWork::Dead => {
                dead += 1;
                // With --repair, one line below stands for all of them, as they are cleared together.
                if !host.options.repair {
                    let message = "was left behind by a process that ended early";
                    section.warning(host.name(path), message, Mend::Staging);
                }
            }
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
    if host.options.repair && dead > 0 {
        let count = number(dead, "unfinished key", "unfinished keys");
        section.warning("staging", format!("{count} of dead processes"), Mend::Staging);
    }
    for (tag, paths) in hosts {
        let homes = number(paths.len(), "directory", "directories");
        let named: Vec<_> = paths.iter().take(NAMED_MAX).map(|path| quote_path(path)).collect();
        let more = match paths.len() - named.len() {
            0 => String::new(),
            more => format!(" and {more} more of it"),
        };
        let message = format!(
            "{homes} of another host ({tag}), cleared by itself after 7 days without a sign of life; if that host \
             is gone for good: rm -r {}{more}",
            named.join(" ")
        );
        section.note("staging", message);
    }
    if alive > 0 {
        let count = number(alive, "process is", "processes are");
        section.note("staging", format!("{count} at work"));
    }
    if work.is_empty() {
        section.ok("staging", "empty");
    }
    section
}
