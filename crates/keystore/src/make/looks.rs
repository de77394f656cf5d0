//! Looking at keys with gpg while the service makes keys: under the same permits, and never so many
//! at once that they fill the table of connections.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::error::{Error, Result};
use crate::make::turns::{Permit, Permits};

/// Requests that may look at a key with gpg or wait for that at the same time. Together with those
/// that make keys (`turns::INSIDE_MAX`) they leave connections free for what is quickly answered.
const LOOKS_MAX: usize = 32;

/// Who may run gpg to look at a key.
#[derive(Debug)]
pub struct Looks {
    permits: Arc<Permits>,
    inside: AtomicUsize,
    patience: Duration,
}

/// Held while gpg looks.
#[must_use]
pub struct Look<'a> {
    // In this order: who gives back the permit is still inside.
    _permit: Permit<'a>,
    _inside: Inside<'a>,
}

struct Inside<'a>(&'a AtomicUsize);

impl Looks {
    /// Looks under `permits`, none of which waits longer than `patience` for one.
    pub fn new(permits: Arc<Permits>, patience: Duration) -> Self {
        Self { permits, inside: AtomicUsize::new(0), patience }
    }

    /// Waits for a permit. [`gpg::Error::Busy`] at the deadline or when patience ends, and at once when
    /// too many are inside.
    pub fn take(&self, deadline: Option<Instant>) -> Result<Look<'_>> {
        // Counts itself first, so that no two take the last place.
        let before = self.inside.fetch_add(1, Ordering::SeqCst);
        let inside = Inside(&self.inside);
        if before >= LOOKS_MAX {
            return Err(Error::busy(format!("{LOOKS_MAX} requests look at keys with gpg")));
        }
        let patience = Instant::now() + self.patience;
        let until = deadline.map_or(patience, |deadline| deadline.min(patience));
        Ok(Look { _permit: self.permits.take(until)?, _inside: inside })
    }
}

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_millis(30);

    #[test]
    fn looks_wait_behind_those_who_make_keys() -> Result<()> {
        let permits = Arc::new(Permits::new(1));
        let looks = Looks::new(Arc::clone(&permits), SOON);
        let making = permits.take(Instant::now() + SOON)?;
        assert!(matches!(looks.take(None), Err(Error::Gpg(gpg::Error::Busy(_)))));
        drop(making);
        let look = looks.take(Some(Instant::now() + SOON))?;
        assert_eq!(permits.load(), (1, 0));
        drop(look);
        assert_eq!((permits.load(), looks.inside.into_inner()), ((0, 0), 0));
        Ok(())
    }

    #[test]
    fn a_crowd_is_turned_away_at_once() -> Result<()> {
        let looks = Looks::new(Arc::new(Permits::new(LOOKS_MAX + 1)), Duration::from_secs(60));
        let held: Result<Vec<_>> = (0..LOOKS_MAX).map(|_| looks.take(None)).collect();
        let held = held?;
        assert!(matches!(looks.take(None), Err(Error::Gpg(gpg::Error::Busy(_)))));
        drop(held);
        drop(looks.take(None)?);
        Ok(())
    }
}
