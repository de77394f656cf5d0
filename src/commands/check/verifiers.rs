//! Checks for keys that apt will refuse although rpm accepts them, by their `key.json`,
//! and whether new keys will be of that kind.

use gpg::clock;
use gpg::short_rsa::{APT_ENDS, ends_early};
use keystore::Home;

use super::finding::{Section, Verdict};
use super::host::Host;
use super::survey::Survey;
use crate::commands::output::number;

/// The number of these keys that are named at most.
const NAMED: usize = 3;
/// The seconds before [`APT_ENDS`] within which making such keys is a mistake. apt warns
/// its users during the same time.
const NEAR: u64 = 365 * clock::DAY;

pub fn section(host: &Host, survey: &Survey) -> Section {
    let mut section = Section::new("verifiers");
    // A wrong clock or a wrong setting has a line elsewhere.
    let (Ok(now), Ok(length)) = (clock::believed(), host.settings.key_length.get()) else {
        return section;
    };
    let day = clock::date(APT_ENDS);
    if ends_early(&length.to_string(), None) {
        // This length is the default and right for rpm, so it is only a note until the day is near.
        let verdict = if now >= APT_ENDS - NEAR { Verdict::Warning } else { Verdict::Note };
        let bits = length.bits();
        let message = format!(
            "{bits}: apt 3 refuses RSA keys of less than 3072 bits from {day} on; rpm takes them"
        );
        let advice = "if apt is to read what new keys sign: set key_length = 4096, and pool = \"4096:16\" to \
                      have them in advance";
        section.add(verdict, "key_length", message, advice);
    }
    let is_short = |home: &&Home| {
        home.record.as_ref().is_some_and(|record| ends_early(&record.algorithm, record.expires))
    };
    let mut names: Vec<_> =
        survey.whole().filter(is_short).map(|h| h.name_email.as_str()).collect();
    let count = names.len();
    if count > 0 {
        names.truncate(NAMED);
        let keys = number(count, "RSA key has", "RSA keys have");
        let named = names.join(", ");
        let more = match count - names.len() {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        let message = format!(
            "{keys} less than 3072 bits; from {day} on apt 3 refuses signatures by such keys, old ones \
             too: {named}{more}"
        );
        let advice = "leave them where rpm verifies; what apt reads needs a longer key by then";
        section.add(Verdict::Note, "keys", message, advice);
    }
    section
}
