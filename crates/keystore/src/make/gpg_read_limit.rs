//! Limits the use of gpg for looking at keys while the service makes keys. These looks are jobs of the same
//! queue, and there are never so many at once that they fill the table of connections.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::error::{Error, Result};
use crate::make::job_queue::{JobQueue, RunningJob};
use crate::make::limits::LOOKS_MAX;

/// Limits the number of requests that run gpg to look at a key.
#[derive(Debug)]
pub struct GpgReadLimit {
    queue: Arc<JobQueue>,
    inside: AtomicUsize,
    patience: Duration,
}

/// The right to run gpg to look at a key; given back when dropped.
#[must_use]
pub struct GpgRead<'a> {
    // Fields are dropped in this order: a request that gives back its job still counts as inside.
    _job: RunningJob<'a>,
    _inside: Inside<'a>,
}

struct Inside<'a>(&'a AtomicUsize);

impl GpgReadLimit {
    /// Makes a limit for looks that use the jobs of `queue`. No request waits longer than `patience` for a job.
    pub fn new(queue: Arc<JobQueue>, patience: Duration) -> Self {
        Self { queue, inside: AtomicUsize::new(0), patience }
    }

    /// Waits for a job. Fails with [`gpg::Error::Busy`] at the deadline or when `patience` is over, and at
    /// once if too many requests are inside.
    pub fn take(&self, deadline: Option<Instant>) -> Result<GpgRead<'_>> {
        // Increment first: two requests that both read the old count would both take the last place.
        let before = self.inside.fetch_add(1, Ordering::SeqCst);
        let inside = Inside(&self.inside);
        if before >= LOOKS_MAX {
            return Err(Error::busy(format!("{LOOKS_MAX} requests look at keys with gpg")));
        }
        let patience = Instant::now() + self.patience;
        let until = deadline.map_or(patience, |deadline| deadline.min(patience));
        Ok(GpgRead { _job: self.queue.take(until)?, _inside: inside })
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
    fn reads_wait_behind_requests_that_make_keys() -> Result<()> {
        let queue = Arc::new(JobQueue::new(1));
        let limit = GpgReadLimit::new(Arc::clone(&queue), SOON);
        let making = queue.take(Instant::now() + SOON)?;
        assert!(matches!(limit.take(None), Err(Error::Gpg(gpg::Error::Busy(_)))));
        drop(making);
        let read = limit.take(Some(Instant::now() + SOON))?;
        assert_eq!(queue.load(), (1, 0));
        drop(read);
        assert_eq!((queue.load(), limit.inside.into_inner()), ((0, 0), 0));
        Ok(())
    }

    #[test]
    fn a_crowd_is_turned_away_at_once() -> Result<()> {
        let limit =
            GpgReadLimit::new(Arc::new(JobQueue::new(LOOKS_MAX + 1)), Duration::from_secs(60));
        let held: Result<Vec<_>> = (0..LOOKS_MAX).map(|_| limit.take(None)).collect();
        let held = held?;
        assert!(matches!(limit.take(None), Err(Error::Gpg(gpg::Error::Busy(_)))));
        drop(held);
        drop(limit.take(None)?);
        Ok(())
    }
}
