//! Who may work now: one maker per identity, and as many gpg jobs as there are permits. These locks
//! save work; which of two makers wins is decided by `rename` alone.

use std::collections::{HashSet, VecDeque};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use crate::error::{Error, Result};
use crate::identity::NameEmail;
use crate::parallel::lock;

/// Requests that may make a key or wait for one at the same time; more would only fill the table
/// of connections and keep out those that are quickly answered.
const INSIDE_MAX: usize = 192;

/// Identities whose key is being made by this process, and who waits for that.
#[derive(Debug, Default)]
pub struct Turns {
    crowd: Mutex<Crowd>,
    given_back: Condvar,
}

#[derive(Debug, Default)]
struct Crowd {
    taken: HashSet<NameEmail>,
    waiting: usize,
}

/// The right to make the key of one identity.
#[must_use]
pub struct Turn<'a> {
    turns: &'a Turns,
    name_email: NameEmail,
}

impl Turns {
    /// Waits until nobody else in this process makes this key. [`gpg::Error::Busy`] at the deadline, or
    /// at once when too many are inside.
    pub fn take(&self, name_email: &NameEmail, deadline: Instant) -> Result<Turn<'_>> {
        let mut crowd = lock(&self.crowd);
        if crowd.taken.len() + crowd.waiting >= INSIDE_MAX {
            return Err(Error::busy(format!("{INSIDE_MAX} requests wait for keys")));
        }
        crowd.waiting += 1;
        while crowd.taken.contains(name_email) {
            match remaining(deadline, "another request is still making this key") {
                Ok(left) => crowd = wait(&self.given_back, crowd, left),
                Err(busy) => {
                    crowd.waiting -= 1;
                    return Err(busy);
                }
            }
        }
        crowd.waiting -= 1;
        crowd.taken.insert(name_email.clone());
        Ok(Turn { turns: self, name_email: name_email.clone() })
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        lock(&self.turns.crowd).taken.remove(&self.name_email);
        self.turns.given_back.notify_all();
    }
}

/// A bounded number of gpg jobs, handed out first come, first served.
#[derive(Debug)]
pub struct Permits {
    count: usize,
    queue: Mutex<Queue>,
    moved: Condvar,
}

#[derive(Debug, Default)]
struct Queue {
    running: usize,
    waiting: VecDeque<u64>,
    next_ticket: u64,
}

/// Held while gpg runs.
#[must_use]
pub struct Permit<'a>(&'a Permits);

impl Permits {
    /// `count` jobs at once.
    pub fn new(count: usize) -> Self {
        Self { count, queue: Mutex::default(), moved: Condvar::new() }
    }

    /// Waits for a permit behind those who came earlier; [`gpg::Error::Busy`] at the deadline.
    pub fn take(&self, deadline: Instant) -> Result<Permit<'_>> {
        let mut queue = lock(&self.queue);
        let ticket = queue.next_ticket;
        queue.next_ticket += 1;
        queue.waiting.push_back(ticket);
        while queue.running == self.count || queue.waiting.front() != Some(&ticket) {
            match remaining(deadline, "the gpg jobs of other requests take too long") {
                Ok(left) => queue = wait(&self.moved, queue, left),
                Err(busy) => {
                    queue.waiting.retain(|other| *other != ticket);
                    self.moved.notify_all();
                    return Err(busy);
                }
            }
        }
        queue.waiting.pop_front();
        queue.running += 1;
        self.moved.notify_all();
        Ok(Permit(self))
    }

    /// Permits in use, and how many wait for one.
    pub fn load(&self) -> (usize, usize) {
        let queue = lock(&self.queue);
        (queue.running, queue.waiting.len())
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        lock(&self.0.queue).running -= 1;
        self.0.moved.notify_all();
    }
}

fn wait<'a, T>(
    condvar: &Condvar,
    guard: MutexGuard<'a, T>,
    limit: std::time::Duration,
) -> MutexGuard<'a, T> {
    condvar.wait_timeout(guard, limit).unwrap_or_else(PoisonError::into_inner).0
}

fn remaining(deadline: Instant, otherwise: &str) -> Result<std::time::Duration> {
    match deadline.saturating_duration_since(Instant::now()) {
        left if left.is_zero() => Err(Error::busy(otherwise)),
        left => Ok(left),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    fn soon() -> Instant {
        Instant::now() + Duration::from_millis(30)
    }

    fn late() -> Instant {
        Instant::now() + Duration::from_secs(60)
    }

    #[test]
    fn one_turn_per_identity() -> Result<()> {
        let turns = Turns::default();
        let (a, b) = (NameEmail::parse("a#b@c")?, NameEmail::parse("b#b@c")?);
        let held = turns.take(&a, soon())?;
        assert!(matches!(turns.take(&a, soon()), Err(Error::Gpg(gpg::Error::Busy(_)))));
        drop(turns.take(&b, soon())?);
        drop(held);
        drop(turns.take(&a, soon())?);
        Ok(())
    }

    #[test]
    fn a_crowd_is_turned_away_at_once() -> Result<()> {
        let turns = Turns::default();
        let names: gpg::Result<Vec<_>> =
            (0..INSIDE_MAX).map(|n| NameEmail::parse(&format!("a{n}#b@c"))).collect();
        let held: Result<Vec<_>> = names?.iter().map(|name| turns.take(name, soon())).collect();
        let held = held?;
        let one_more = NameEmail::parse("x#b@c")?;
        let started = Instant::now();
        assert!(matches!(turns.take(&one_more, late()), Err(Error::Gpg(gpg::Error::Busy(_)))));
        assert!(started.elapsed() < Duration::from_secs(30), "it waited for the deadline");
        drop(held);
        drop(turns.take(&one_more, soon())?);
        Ok(())
    }

    #[test]
    fn never_more_jobs_than_permits_and_first_come_first_served() {
        let permits = Permits::new(2);
        let (running, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for _ in 0..16 {
                scope.spawn(|| {
                    let permit = permits.take(late());
                    most.fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                    std::thread::sleep(Duration::from_millis(5));
                    running.fetch_sub(1, Ordering::SeqCst);
                    drop(permit);
                });
            }
        });
        assert_eq!(most.into_inner(), 2);
        assert_eq!(permits.load(), (0, 0));
    }

    #[test]
    fn who_gives_up_does_not_block_the_queue() -> Result<()> {
        let permits = Permits::new(1);
        let held = permits.take(soon())?;
        assert!(matches!(permits.take(soon()), Err(Error::Gpg(gpg::Error::Busy(_)))));
        std::thread::scope(|scope| {
            let next = scope.spawn(|| permits.take(late()).is_ok());
            drop(held);
            assert!(next.join().is_ok_and(|taken| taken));
        });
        Ok(())
    }
}
