//! Keys that have expired or will soon, as `key.json` knows it.

use super::homes::Survey;
use super::host::Host;
use super::page::{Section, number, quote};
use crate::clock;
use crate::error::Result;

pub fn section(host: &Host, survey: &Survey) -> Result<Section> {
    let mut section = Section::new("expiry");
    let now = clock::now()?;
    let mut soon = [(30, 0), (90, 0), (365, 0)];
    let mut forever = 0;
    for home in survey.whole() {
        let Some(record) = &home.record else { continue };
        match record.expires {
            None => forever += 1,
            Some(at) if at <= now => section.failed(
                quote(home.name_email.as_str()),
                "has expired",
                host.command("prolong --expired"),
            ),
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
        section.warning(
            "keys",
            format!("{} within 30 days: does copr-keygen-prolong.timer run?", keys(month)),
            host.command("prolong"),
        );
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
    Ok(section)
}
