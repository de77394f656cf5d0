//! A bounded number of gpg jobs at once, handed out first come, first served.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use gpg::locks::unpoisoned;

use crate::error::{Error, Result};
use crate::parallel::lock;

/// A bounded number of gpg jobs, handed out first come, first served.
#[derive(Debug)]
pub struct JobQueue {
    count: usize,
    queue: Mutex<QueueState>,
}

#[derive(Debug, Default)]
struct QueueState {
    running: usize,
    /// The waiting requests in the order of their arrival. Each one is woken by itself: hundreds of others
    /// need not run just to find that it is not their turn.
    waiting: VecDeque<Arc<Condvar>>,
}

/// The right to run one gpg job; given back when dropped.
#[must_use]
pub struct RunningJob<'a>(&'a JobQueue);

impl JobQueue {
    /// Makes a queue that runs `count` jobs at once.
    pub fn new(count: usize) -> Self {
        Self { count, queue: Mutex::default() }
    }

    /// Waits for a job behind earlier requests. Fails with [`gpg::Error::Busy`] at the deadline.
    pub fn take(&self, deadline: Instant) -> Result<RunningJob<'_>> {
        let mut queue = lock(&self.queue);
        if queue.running < self.count && queue.waiting.is_empty() {
            queue.running += 1;
            return Ok(RunningJob(self));
        }
        let turn = Arc::new(Condvar::new());
        queue.waiting.push_back(Arc::clone(&turn));
        let is_first = |queue: &QueueState| {
            queue.waiting.front().is_some_and(|first| Arc::ptr_eq(first, &turn))
        };
        while queue.running == self.count || !is_first(&queue) {
            match remaining(deadline, "the gpg jobs of other requests take too long") {
                Ok(left) => queue = wait(&turn, queue, left),
                Err(busy) => {
                    queue.waiting.retain(|other| !Arc::ptr_eq(other, &turn));
                    queue.wake_first(self.count);
                    return Err(busy);
                }
            }
        }
        queue.waiting.pop_front();
        queue.running += 1;
        queue.wake_first(self.count);
        Ok(RunningJob(self))
    }

    /// The number of jobs that run, and the number of requests that wait for one.
    pub fn load(&self) -> (usize, usize) {
        let queue = lock(&self.queue);
        (queue.running, queue.waiting.len())
    }
}

impl QueueState {
    fn wake_first(&self, count: usize) {
        if let Some(first) = self.waiting.front().filter(|_| self.running < count) {
            first.notify_one();
        }
    }
}

impl Drop for RunningJob<'_> {
    fn drop(&mut self) {
        let mut queue = lock(&self.0.queue);
        queue.running -= 1;
        queue.wake_first(self.0.count);
    }
}

/// Waits on `condvar` for at most `limit`.
pub fn wait<'a, T>(
    condvar: &Condvar,
    guard: MutexGuard<'a, T>,
    limit: Duration,
) -> MutexGuard<'a, T> {
    unpoisoned(condvar.wait_timeout(guard, limit)).0
}

/// Returns the time left until `deadline`. After that, fails with [`gpg::Error::Busy`] and the
/// words `otherwise`.
pub fn remaining(deadline: Instant, otherwise: &str) -> Result<Duration> {
    match deadline.saturating_duration_since(Instant::now()) {
        left if left.is_zero() => Err(Error::busy(otherwise)),
        left => Ok(left),
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    pub fn soon() -> Instant {
        Instant::now() + Duration::from_millis(30)
    }

    pub fn late() -> Instant {
        Instant::now() + Duration::from_secs(60)
    }

    #[test]
    fn never_more_jobs_than_there_may_be_and_first_come_first_served() {
        let queue = JobQueue::new(2);
        let (running, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for _ in 0..16 {
                scope.spawn(|| {
                    let job = queue.take(late());
                    most.fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                    std::thread::sleep(Duration::from_millis(5));
                    running.fetch_sub(1, Ordering::SeqCst);
                    drop(job);
                });
            }
        });
        assert_eq!(most.into_inner(), 2);
        assert_eq!(queue.load(), (0, 0));
    }

    #[test]
    fn who_gives_up_does_not_block_the_queue() -> Result<()> {
        let queue = JobQueue::new(1);
        let held = queue.take(soon())?;
        assert!(matches!(queue.take(soon()), Err(Error::Gpg(gpg::Error::Busy(_)))));
        std::thread::scope(|scope| {
            let next = scope.spawn(|| queue.take(late()).is_ok());
            drop(held);
            assert!(next.join().is_ok_and(|taken| taken));
        });
        Ok(())
    }
}
