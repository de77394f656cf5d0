//! Allows one maker per identity in this process. This lock only saves work: `rename` alone decides which of
//! two makers wins.

use std::collections::HashSet;
use std::sync::{Condvar, Mutex};
use std::time::Instant;

use crate::error::{Error, Result};
use crate::identity::NameEmail;
use crate::make::job_queue::{remaining, wait};
use crate::make::limits::INSIDE_MAX;
use crate::parallel::lock;

/// The identities whose key this process is making, and a count of the requests that wait.
#[derive(Debug, Default)]
pub struct IdentityLocks {
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
pub struct IdentityLock<'a> {
    locks: &'a IdentityLocks,
    name_email: NameEmail,
}

impl IdentityLocks {
    /// Waits until no other request in this process makes this key. Fails with [`gpg::Error::Busy`] at the
    /// deadline, or at once if too many requests are inside.
    pub fn take(&self, name_email: &NameEmail, deadline: Instant) -> Result<IdentityLock<'_>> {
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
        Ok(IdentityLock { locks: self, name_email: name_email.clone() })
    }
}

impl Drop for IdentityLock<'_> {
    fn drop(&mut self) {
        lock(&self.locks.crowd).taken.remove(&self.name_email);
        self.locks.given_back.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::make::job_queue::tests::{late, soon};
    use std::time::Duration;

    #[test]
    fn one_lock_per_identity() -> Result<()> {
        let locks = IdentityLocks::default();
        let (a, b) = (NameEmail::parse("a#b@c")?, NameEmail::parse("b#b@c")?);
        let held = locks.take(&a, soon())?;
        assert!(matches!(locks.take(&a, soon()), Err(Error::Gpg(gpg::Error::Busy(_)))));
        drop(locks.take(&b, soon())?);
        drop(held);
        drop(locks.take(&a, soon())?);
        Ok(())
    }

    #[test]
    fn a_crowd_is_turned_away_at_once() -> Result<()> {
        let locks = IdentityLocks::default();
        let names: gpg::Result<Vec<_>> =
            (0..INSIDE_MAX).map(|n| NameEmail::parse(&format!("a{n}#b@c"))).collect();
        let held: Result<Vec<_>> = names?.iter().map(|name| locks.take(name, soon())).collect();
        let held = held?;
        let one_more = NameEmail::parse("x#b@c")?;
        let started = Instant::now();
        assert!(matches!(locks.take(&one_more, late()), Err(Error::Gpg(gpg::Error::Busy(_)))));
        assert!(started.elapsed() < Duration::from_secs(30), "it waited for the deadline");
        drop(held);
        drop(locks.take(&one_more, soon())?);
        Ok(())
    }
}
