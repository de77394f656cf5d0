//! The clock of this host, points in time as operators write them, and times as text. Every time is a Unix time
//! in seconds, which OpenPGP stores in 32 bits (RFC 9580, 3.5).

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::error::{Error, Result};
pub use crate::key::DAY;
use crate::key::Lifetime;

/// How many seconds a key may be dated ahead of the clock. Beyond that, either the clock or the date is wrong.
/// The clocks of hosts that share a state differ by seconds, or by minutes if they are not synchronized.
/// Kerberos allows five minutes too. A clock that was never set is wrong by more.
pub const SLACK: u64 = 300;

/// 2024-01-01. This program did not exist yet, so a clock that shows an earlier time is wrong. A host whose
/// clock has no battery starts in 1970, or at the date of its firmware.
const EARLIEST: u64 = 1_704_067_200;

/// Returns the time of the clock, even if it is implausible. Use it for display and for time limits. Decisions
/// whose effect outlives this process must use [`believed`].
pub fn now() -> Result<u64> {
    match SystemTime::now().duration_since(UNIX_EPOCH) {
        Ok(since) if u32::try_from(since.as_secs()).is_ok() => Ok(since.as_secs()),
        _ => Err(Error::Clock(
            "the clock of this host is not between 1970 and 2106, where OpenPGP keys live; set the \
             clock, then try again"
                .into(),
        )),
    }
}

/// Returns the time of the clock, for decisions about keys. Fails with [`Error::Clock`] if the clock is
/// certainly wrong.
pub fn believed() -> Result<u64> {
    match now()? {
        now if now < EARLIEST => Err(Error::Clock(format!(
            "the clock of this host says {}, when there was no such program yet: nothing was decided \
             by it; set the clock, then try again",
            timestamp(now)
        ))),
        now => Ok(now),
    }
}

/// Whether a clock that shows `now` is behind a key or file that is dated `dated`, by more than [`SLACK`].
pub fn is_behind(now: u64, dated: u64) -> bool {
    dated > now.saturating_add(SLACK)
}

/// Fails with [`Error::Clock`] if the clock is behind `what`, which is dated `dated`.
pub fn check(what: &dyn std::fmt::Display, dated: u64) -> Result<()> {
    match believed()? {
        now if is_behind(now, dated) => Err(Error::Clock(format!(
            "{}; nothing was changed; set the clock, then try again; if the clock is right now, it was \
             ahead when the key was dated: wait until then, or remove the key",
            disagreement(now, what, dated)
        ))),
        _ => Ok(()),
    }
}

/// Returns the sentence that says how the clock contradicts `what`, which is dated `dated`.
pub fn disagreement(now: u64, what: &dyn std::fmt::Display, dated: u64) -> String {
    format!(
        "the clock of this host says {}, but {what} is dated {}",
        timestamp(now),
        timestamp(dated)
    )
}

/// Formats a time as a date, like `2026-11-22`.
pub fn date(at: u64) -> String {
    timestamp(at).chars().take(10).collect()
}

/// Formats a time like `2026-11-22T18:39:49Z`.
pub fn timestamp(at: u64) -> String {
    humantime::format_rfc3339_seconds(UNIX_EPOCH + Duration::from_secs(at.min(LATEST))).to_string()
}

/// Formats a time like `20261122T183949`, which gpg reads as UTC.
pub fn iso_basic(at: u64) -> String {
    timestamp(at).chars().filter(|c| !matches!(c, '-' | ':' | 'Z')).collect()
}

/// Parses a time in the format of [`iso_basic`], and in no other.
pub fn parse_iso_basic(text: &str) -> Option<u64> {
    let part = |range| text.get(range);
    let date = format!("{}-{}-{}", part(0..4)?, part(4..6)?, part(6..8)?);
    let time = format!("{}:{}:{}", part(9..11)?, part(11..13)?, part(13..text.len())?);
    let at = parse_timestamp(&format!("{date}T{time}Z"))?;
    // Text in another format that parsed anyway does not format back to itself.
    (iso_basic(at) == text).then_some(at)
}

/// Parses a time in the format of [`timestamp`], or in another one that RFC 3339 allows.
fn parse_timestamp(text: &str) -> Option<u64> {
    let at = humantime::parse_rfc3339(text).ok()?;
    Some(at.duration_since(UNIX_EPOCH).ok()?.as_secs())
}

/// The last second of the year 9999, the latest time that can be formatted.
const LATEST: u64 = 253_402_300_799;

/// A point in time, absolute or relative to now. It parses from `@` and a Unix time, a date, a time as in RFC
/// 3339, or a span like `90d`, `2w` or `12h`. [`Moment::before`] and [`Moment::after`] turn a span into a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// A Unix time.
    At(u64),
    /// A span of this many seconds, before or after now.
    Span(u64),
}

impl Moment {
    /// Returns the time itself, or the time that lies the span before `now`.
    pub fn before(self, now: u64) -> u64 {
        match self {
            Self::At(at) => at,
            Self::Span(seconds) => now.saturating_sub(seconds),
        }
    }

    /// Returns the time itself, or the time that lies the span after `now`.
    pub fn after(self, now: u64) -> u64 {
        match self {
            Self::At(at) => at,
            Self::Span(seconds) => now.saturating_add(seconds),
        }
    }
}

impl std::str::FromStr for Moment {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let wrong = || {
            "must be a date like 2027-01-31, a time like 2027-01-31T12:00:00Z, a span like 12h, 90d, \
             2w or 5y, or @ and a Unix time"
                .to_owned()
        };
        if let Some(digits) = text.strip_prefix('@') {
            return digits.parse().map(Self::At).map_err(|_| wrong());
        }
        let full = if text.len() == 10 { format!("{text}T00:00:00Z") } else { text.to_owned() };
        if let Some(at) = parse_timestamp(&full) {
            return Ok(Self::At(at));
        }
        let ends_in_unit = text.ends_with(['h', 'd', 'w', 'm', 'y']);
        match Lifetime::parse_span(text) {
            Ok(span) if ends_in_unit => Ok(Self::Span(span.seconds().into())),
            _ => Err(wrong()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_gpg_and_people_read_them() {
        assert_eq!(date(1_700_000_000), "2023-11-14");
        assert_eq!(timestamp(1_700_000_000), "2023-11-14T22:13:20Z");
        assert_eq!(iso_basic(1_700_000_000), "20231114T221320");
        assert_eq!(date(u64::MAX), "9999-12-31");
        assert_eq!(parse_iso_basic("20231114T221320"), Some(1_700_000_000));
        for bad in ["", "T", "20231114T22132", "20231314T221320", "2023111éT221320", "1"] {
            assert_eq!(parse_iso_basic(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_clock_is_behind_what_is_dated_later_by_more_than_hosts_differ() {
        let now = 1_800_000_000;
        for (dated, behind) in [
            (0, false),
            (now, false),
            (now + SLACK, false),
            (now + SLACK + 1, true),
            (u64::MAX, true),
        ] {
            assert_eq!(is_behind(now, dated), behind, "{dated}");
        }
        assert!(!is_behind(u64::MAX, u64::MAX));
        assert_eq!(date(EARLIEST), "2024-01-01");
        assert!(check(&"a key", EARLIEST).is_ok());
        let words = check(&"a key", u64::from(u32::MAX)).map_err(|e| e.to_string());
        let words = words.err().unwrap_or_default();
        assert!(words.contains("but a key is dated 2106-02-07T06:28:15Z; nothing"), "{words}");
    }

    #[test]
    fn moments_are_read() {
        for (text, expected) in [
            ("@1700000000", Moment::At(1_700_000_000)),
            ("2023-11-14", Moment::At(1_699_920_000)),
            ("2023-11-14T22:13:20Z", Moment::At(1_700_000_000)),
            ("12h", Moment::Span(DAY / 2)),
            ("2w", Moment::Span(14 * DAY)),
            ("365d", Moment::Span(365 * DAY)),
        ] {
            assert_eq!(text.parse(), Ok(expected), "{text}");
        }
        for bad in ["", "@", "@-1", "12", "2023-13-14", "1969-01-01", "yesterday", "2s", "-1d"] {
            assert!(bad.parse::<Moment>().is_err(), "{bad}");
        }
        assert_eq!(Moment::Span(10).before(15), 5);
        assert_eq!(Moment::Span(10).before(5), 0);
        assert_eq!(Moment::Span(10).after(5), 15);
    }
}
