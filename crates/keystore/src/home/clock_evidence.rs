//! What the state itself tells about the time. A clock that is behind a key, or years after the last sign of
//! life, is wrong or has been wrong. No program can know which of the two.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use gpg::clock;

use crate::home::record::KeyRecord;
use crate::identity::NameEmail;
use crate::layout::{KEYS, STAGING};

/// The longest time, two years, in which nothing in a state may change before the clock is doubted. After
/// that, either the host was off or the clock has jumped ahead, because the timer of `prolong` leaves a
/// trace every day.
const LONGEST_SLEEP: u64 = 2 * 365 * clock::DAY;

/// The newest key seen so far, the key that was changed last, and the last sign of life, with their Unix times.
#[derive(Clone, Debug, Default)]
pub struct Evidence {
    newest: Option<(u64, NameEmail)>,
    changed: Option<(u64, NameEmail)>,
    alive: u64,
}

impl Evidence {
    /// Reads the last sign of life from the directories of the state directory `root`.
    pub fn of(root: &Path) -> Self {
        let moved = [KEYS, STAGING].map(|part| {
            fs::symlink_metadata(root.join(part)).map_or(0, |found| found.mtime().unsigned_abs())
        });
        Self { newest: None, changed: None, alive: moved.into_iter().max().unwrap_or_default() }
    }

    /// Takes a key into account.
    pub fn see(&mut self, name_email: &NameEmail, record: &KeyRecord) {
        let latest = |known: &mut Option<(u64, NameEmail)>, at| {
            if known.as_ref().is_none_or(|(latest, _)| *latest < at) {
                *known = Some((at, name_email.clone()));
            }
        };
        latest(&mut self.newest, record.created);
        latest(&mut self.changed, record.changed);
        self.alive = self.alive.max(record.created).max(record.changed);
    }

    /// Returns why a clock that says `now` is doubted, if it is.
    pub fn against(&self, now: u64) -> Option<String> {
        let (dated, name_email) = self.newest.as_ref()?;
        if clock::is_behind(now, *dated) {
            return Some(clock::disagreement(now, &format!("the key of {name_email}"), *dated));
        }
        let (changed, name_email) = self.changed.as_ref()?;
        if clock::is_behind(now, *changed) {
            return Some(format!(
                "the clock of this host says {}, but the key of {name_email} was last changed at {}: this \
                 clock is behind, or the key was last changed under a clock that was ahead",
                clock::timestamp(now),
                clock::timestamp(*changed)
            ));
        }
        self.against_jump(now)
    }

    /// Whether no key was made after `now`, but one was changed after it.
    pub fn is_only_of_change(&self, now: u64) -> bool {
        let is_ahead = |known: &Option<(u64, NameEmail)>| {
            known.as_ref().is_some_and(|(at, _)| clock::is_behind(now, *at))
        };
        is_ahead(&self.changed) && !is_ahead(&self.newest)
    }

    /// Returns why the clock, which says `now`, may have jumped ahead. Unlike [`Evidence::against`], it
    /// does not mind keys that are dated after `now`. It is for decisions that can go wrong only by
    /// coming too early.
    pub fn against_jump(&self, now: u64) -> Option<String> {
        // The time is 0 in an image that was unpacked without dates.
        (self.alive > 0 && now > self.alive.saturating_add(LONGEST_SLEEP)).then(|| {
            format!(
                "the clock of this host says {}, but the last sign of life in the state is of {}: it \
                 has jumped ahead, or this host was off",
                clock::timestamp(now),
                clock::timestamp(self.alive)
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gpg::{Fingerprint, Keygrip};

    #[test]
    fn a_clock_is_doubted_before_a_key_and_years_after_all_of_them() {
        let digits = "0123456789ABCDEF0123456789ABCDEF01234567";
        let (Some(fingerprint), Some(keygrip)) =
            (Fingerprint::parse(digits), Keygrip::parse(digits))
        else {
            unreachable!("they are forty digits")
        };
        let Ok(name) = NameEmail::parse("a#b@c") else { unreachable!("it is one") };
        let made = 1_800_000_000;
        let (algorithm, changed) = ("rsa2048".into(), made + 100);
        let record =
            KeyRecord { fingerprint, keygrip, algorithm, created: made, expires: None, changed };
        let mut evidence = Evidence::default();
        assert_eq!(evidence.against(made), None, "no key, nothing to decide");
        evidence.see(&name, &record);
        for (now, words) in [
            (made - 301, Some("but the key of a#b@c is dated 2027-01-15T08:00:00Z")),
            (made - 300, Some("but the key of a#b@c was last changed at 2027-01-15T08:01:40Z")),
            (made, None),
            (changed + LONGEST_SLEEP, None),
            (changed + LONGEST_SLEEP + 1, Some("it has jumped ahead")),
        ] {
            let found = evidence.against(now);
            assert_eq!(found.is_some(), words.is_some(), "{now}: {found:?}");
            assert!(found.unwrap_or_default().contains(words.unwrap_or_default()), "{now}");
        }
        evidence.alive = changed + 10 * LONGEST_SLEEP;
        assert_eq!(evidence.against(changed + LONGEST_SLEEP + 1), None);
    }
}
