//! Checks for keys that have expired or will soon, by their `key.json`.

use gpg::clock;
use keystore::Evidence;
use keystore::remedy::quote;

use super::finding::{Remedy, Section};
use super::host::Host;
use super::survey::Survey;
use crate::commands::output::number;

/// The remedy for a clock that contradicts a key.
pub const SET_CLOCK: &str = "set the clock of this host; if it is right now, and a key is dated later, it was \
     ahead when that was made: wait until then, or remove the key, and the next request makes another one";

pub fn section(host: &Host, survey: &Survey) -> Section {
    let mut section = Section::new("expiry");
    let Some(now) = section.look("clock", clock::believed(), SET_CLOCK) else { return section };
    let mut evidence = Evidence::of(host.state());
    let records = || survey.whole().filter_map(|home| Some((home, home.record.as_ref()?)));
    records().for_each(|(home, record)| evidence.see(&home.name_email, record));
    if let Some(words) = evidence.against(now) {
        let remedy = match evidence.is_only_of_change(now) {
            true => host.repair(),
            false => SET_CLOCK.into(),
        };
        section.failed("clock", words, remedy);
        section.note("keys", "which of them expire soon was not decided by that clock");
        return section;
    }
    let mut soon = [(30, 0), (90, 0), (365, 0)];
    let mut forever = 0;
    for (home, record) in records() {
        match record.expires {
            None => forever += 1,
            Some(at) if at <= now => {
                let prolong = Remedy::Command(host.command("prolong --expired"));
                section.failed(quote(home.name_email.as_str()), "has expired", prolong);
            }
            Some(at) => {
                for (days, count) in &mut soon {
                    *count += usize::from(at <= now + *days * clock::DAY);
                }
            }
        }
    }
    let [month, quarter, year] = soon.map(|(_, count)| count);
    let keys = |count| number(count, "key expires", "keys expire");
    if month > 0 {
        let message =
            format!("{} within 30 days: does copr-keygen-prolong.timer run?", keys(month));
        section.warning("keys", message, Remedy::Command(host.command("prolong")));
    }
    for (days, count) in [(90, quarter), (365, year)] {
        if count > month {
            section.note("keys", format!("{} within {days} days", keys(count)));
        }
    }
    if section.is_well() && year == 0 {
        let forever = number(forever, "key never does", "keys never do");
        section.ok("keys", format!("none expires within a year; {forever}"));
    }
    section
}
