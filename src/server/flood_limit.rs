//! How many lines the refusals of strangers get in the log.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use gpg::locks::unpoisoned;

/// Lines that refusals of strangers get in one [`SPAN`]; the rest is counted. A day of flood is some ten
/// thousand lines.
const LINES_MAX: u32 = 10;
/// The time in which lines are counted.
const SPAN: Duration = Duration::from_secs(60);

/// Limits the lines of strangers in the log.
#[derive(Debug, Default)]
pub struct FloodLimit(Mutex<FloodSpan>);

#[derive(Debug, Default)]
struct FloodSpan {
    began: Option<Instant>,
    lines: u32,
    left_out: u64,
}

impl FloodLimit {
    /// Whether another refusal gets a line, and how many have got none since the last line.
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

    /// How many have got no line since the last line.
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
