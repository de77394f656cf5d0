//! Limits the log lines about refused clients that have no access.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use gpg::locks::unpoisoned;

/// The maximum number of such lines in one [`SPAN`]; further refusals are only counted. A day of flooding
/// yields some ten thousand lines.
const LINES_MAX: u32 = 10;
/// The period over which lines are limited.
const SPAN: Duration = Duration::from_secs(60);

/// A rate limit for log lines about clients without access.
#[derive(Debug, Default)]
pub struct FloodLimit(Mutex<FloodSpan>);

#[derive(Debug, Default)]
struct FloodSpan {
    began: Option<Instant>,
    lines: u32,
    left_out: u64,
}

impl FloodLimit {
    /// Decides whether another refusal is logged. If so, returns how many refusals were left out since the last
    /// line; otherwise counts this one as left out and returns `None`.
    pub fn line(&self) -> Option<u64> {
        let mut span = unpoisoned(self.0.lock());
        if span.began.is_none_or(|began| began.elapsed() >= SPAN) {
            span.began = Some(Instant::now());
            span.lines = 0;
        }
        if span.lines >= LINES_MAX {
            span.left_out += 1;
            return None;
        }
        span.lines += 1;
        Some(std::mem::take(&mut span.left_out))
    }

    /// Returns how many refusals have been left out since the last line.
    pub fn left_out(&self) -> u64 {
        unpoisoned(self.0.lock()).left_out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_a_number() {
        let flood = FloodLimit::default();
        let lines = (0..1000).filter(|_| flood.line() == Some(0)).count();
        assert_eq!((lines, flood.left_out()), (10, 990));
        if let Ok(mut span) = flood.0.lock() {
            span.began = None;
        }
        assert_eq!(flood.line(), Some(990));
        assert_eq!((flood.line(), flood.left_out()), (Some(0), 0));
    }
}
