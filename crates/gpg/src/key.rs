//! The length and the lifetime of a key. Neither type can hold a value that gpg would refuse or misread.

use std::fmt;
use std::str::FromStr;

/// The number of seconds in a day.
pub const DAY: u64 = 86_400;

/// The length of an RSA modulus in bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyLength {
    /// 2048 bits.
    Rsa2048 = 2048,
    /// 3072 bits.
    Rsa3072 = 3072,
    /// 4096 bits.
    Rsa4096 = 4096,
}

impl KeyLength {
    /// Every supported length.
    pub const ALL: [Self; 3] = [Self::Rsa2048, Self::Rsa3072, Self::Rsa4096];

    /// The length in bits.
    pub fn bits(self) -> u16 {
        self as u16
    }
}

impl FromStr for KeyLength {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|length| length.bits().to_string() == text);
        found.ok_or_else(|| "must be 2048, 3072 or 4096".into())
    }
}

impl fmt::Display for KeyLength {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "rsa{}", self.bits())
    }
}

/// How long a key is valid, in seconds; zero means for ever. OpenPGP stores it as 32 bits, counted from the
/// creation of the key (RFC 9580, 5.2.3.13).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lifetime(u32);

impl Lifetime {
    /// The lifetime of a key that never expires.
    pub const FOREVER: Self = Self(0);

    /// Returns the lifetime in seconds; zero means for ever.
    pub fn seconds(self) -> u32 {
        self.0
    }

    /// Parses a span that is not the lifetime of a key. Accepts what [`Lifetime::from_str`] accepts, and hours
    /// like `12h`.
    pub fn parse_span(text: &str) -> Result<Self, String> {
        match text.strip_suffix('h') {
            Some(hours) => Self::count(hours, 3_600),
            None => text.parse(),
        }
        .map_err(|_| {
            "must be a number of days, or like 12h, 2w, 18m, 5y, and end before 2106".into()
        })
    }

    /// Multiplies the number in `digits` by `seconds`, the length of its unit.
    fn count(digits: &str, seconds: u64) -> Result<Self, String> {
        if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
            return Err("must be a number of days, or like 2w, 18m, 5y; 0 is never".into());
        }
        let seconds = digits.parse::<u64>().ok().and_then(|count| count.checked_mul(seconds));
        match seconds.map(u32::try_from) {
            Some(Ok(seconds)) => Ok(Self(seconds)),
            _ => Err("a key must expire before the year 2106; 0 is never".into()),
        }
    }

    /// Returns when a key that was created at `created` expires (both Unix times), or `None` for never. Fails
    /// if gpg cannot represent the expiry.
    ///
    /// gpg keeps times in 32 bits, so a key must expire before 2106-02-07.
    pub fn expiry(self, created: u64) -> Result<Option<u64>, String> {
        if self == Self::FOREVER {
            return Ok(None);
        }
        match created.saturating_add(u64::from(self.0)) {
            at if at <= u64::from(u32::MAX) => Ok(Some(at)),
            _ => Err("a key must expire before the year 2106; 0 is never".into()),
        }
    }
}

impl FromStr for Lifetime {
    type Err = String;

    /// Parses a number of days, or a number with a unit of gpg: `d`, `w`, `m` (30 days) or `y` (365 days).
    fn from_str(text: &str) -> Result<Self, String> {
        let days = match text.as_bytes().last() {
            Some(b'w') => 7,
            Some(b'm') => 30,
            Some(b'y') => 365,
            _ => 1,
        };
        let digits = text.strip_suffix(['d', 'w', 'm', 'y']).unwrap_or(text);
        Self::count(digits, days * DAY)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_three() {
        assert_eq!("4096".parse::<KeyLength>().map(KeyLength::bits), Ok(4096));
        for bad in ["1024", "9999", "abc", "", "-2048", "2048 ", "02048", "2048.0"] {
            assert!(bad.parse::<KeyLength>().is_err(), "{bad}");
        }
    }

    #[test]
    fn lifetimes_read_as_gpg_reads_them() {
        let days = |text: &str| text.parse::<Lifetime>().map(|l| l.seconds() / 86_400);
        assert_eq!(days("0"), Ok(0));
        assert_eq!(days("30"), Ok(30));
        assert_eq!(days("3d"), Ok(3));
        assert_eq!(days("2w"), Ok(14));
        assert_eq!(days("18m"), Ok(540));
        assert_eq!(days("5y"), Ok(1825));
        for bad in
            ["", "-1", "+1", "y", "5yy", "1.5", "5 y", "never", "1e3", "5Y", "٣", "é", "99999999"]
        {
            assert!(bad.parse::<Lifetime>().is_err(), "{bad}");
        }
        assert!("18446744073709551615y".parse::<Lifetime>().is_err());
    }

    #[test]
    fn spans_may_be_hours_and_lifetimes_may_not() {
        let seconds = |text| Lifetime::parse_span(text).map(Lifetime::seconds);
        assert_eq!(seconds("12h"), Ok(43_200));
        assert_eq!(seconds("0h"), Ok(0));
        assert_eq!(seconds("2w"), Ok(14 * 86_400));
        for bad in ["", "h", "-1h", "1.5h", "12H", "never", "9999999h"] {
            assert!(seconds(bad).is_err_and(|why| why.contains("12h")), "{bad}");
        }
        assert!("12h".parse::<Lifetime>().is_err());
    }

    #[test]
    fn expiry_stays_within_gpgs_clock() {
        let year = Lifetime(365 * 86_400);
        assert_eq!(year.expiry(1_000), Ok(Some(31_537_000)));
        assert_eq!(Lifetime::FOREVER.expiry(1_000), Ok(None));
        assert!(year.expiry(u64::from(u32::MAX) - 10).is_err());
    }
}
