//! Requests that were not let in, in the log: a line for each, and a number for a flood of them.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// So many lines are written
const LINES_MAX: u32 = 10;
/// in this time; the rest is counted. A day of flood is some ten thousand lines.
const SPAN: Duration = Duration::from_secs(60);

/// How much has been logged of late.
#[derive(Debug, Default)]
pub struct Refusals(Mutex<Span>);

#[derive(Debug, Default)]
struct Span {
    began: Option<Instant>,
    lines: u32,
    left_out: u64,
}

impl Refusals {
    /// Whether another one gets a line, and how many have got none since the last line.
    pub fn line(&self) -> Option<u64> {
        let mut span = self.0.lock().unwrap_or_else(PoisonError::into_inner);
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
        self.0.lock().unwrap_or_else(PoisonError::into_inner).left_out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_a_number() {
        let refusals = Refusals::default();
        let lines = (0..1000).filter(|_| refusals.line() == Some(0)).count();
        assert_eq!((lines, refusals.left_out()), (10, 990));
        if let Ok(mut span) = refusals.0.lock() {
            span.began = None;
        }
        assert_eq!(refusals.line(), Some(990));
        assert_eq!((refusals.line(), refusals.left_out()), (Some(0), 0));
    }
}
