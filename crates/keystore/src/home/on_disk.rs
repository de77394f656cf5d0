//! Which keys are known to survive a power cut. Everybody sees a rename at once, long before the disk
//! has it. So a process that answers that a key exists must know that, not merely see it. Known is a home that this
//! process has seen under its name before an fsync(2) of the directories that succeeded. Who made the key,
//! this process or another one, of today or killed yesterday, makes no difference.
//!
//! That fsync is paid once for a home, by many requests together, and not at all for homes that were
//! there when the directories were last written through: as long as nothing has changed in these since,
//! everything in them is on the disk.

use std::collections::HashSet;
use std::fs::{self, Metadata};
use std::hash::{BuildHasher, RandomState};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Condvar, Mutex, MutexGuard};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use gpg::locks::unpoisoned;

use crate::error::Result;
use crate::files::{FileId, durable};
use crate::identity::NameEmail;
use crate::parallel::lock;

/// Homes that are remembered, 8 bytes each. One more, and all are forgotten and looked at again.
const KNOWN_MAX: usize = 100_000;

/// A directory that changed this shortly ago may change again without a new time stamp: the clocks of
/// file systems tick, some every two seconds.
const TICK: Duration = Duration::from_secs(3);

/// What tells a directory, or one state of it, from another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct HomeVersion {
    id: FileId,
    /// rename(2) sets it on what is renamed, and on the directory where.
    changed: (i64, i64),
}

impl From<&Metadata> for HomeVersion {
    fn from(found: &Metadata) -> Self {
        let changed = (found.ctime(), found.ctime_nsec());
        Self { id: found.into(), changed }
    }
}

impl HomeVersion {
    /// Of what is at `path` now; `None` when that cannot be told.
    pub fn of(path: &Path) -> Option<Self> {
        fs::symlink_metadata(path).ok().as_ref().map(Self::from)
    }

    /// Whether any later change has another stamp.
    fn is_settled(&self, now: SystemTime) -> bool {
        let now = now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let changed = u64::try_from(self.changed.0).unwrap_or(u64::MAX);
        changed.saturating_add(TICK.as_secs()) < now
    }
}

/// What this process knows to be on the disk.
#[derive(Debug)]
pub struct OnDisk {
    /// Where homes are renamed into, and the links to what is in them.
    directories: Vec<PathBuf>,
    state: Mutex<Knowledge>,
    ended: Condvar,
    hasher: RandomState,
}

#[derive(Debug, Default)]
struct Knowledge {
    known: HashSet<u64>,
    /// The directories before they were last written through, if each had settled.
    calm: Option<Vec<HomeVersion>>,
    /// How often it was begun to write them through, and the last time that succeeded.
    begun: u64,
    succeeded: u64,
    is_running: bool,
}

impl OnDisk {
    /// Nothing is known yet of what is in `directories`.
    pub fn new(directories: Vec<PathBuf>) -> Self {
        Self {
            directories,
            state: Mutex::default(),
            ended: Condvar::new(),
            hasher: RandomState::new(),
        }
    }

    /// Makes sure that a home which was seen under its name, as `stamp`, is on the disk with the links
    /// that lead to it.
    pub fn make_sure(&self, name_email: &NameEmail, stamp: HomeVersion) -> Result<()> {
        let home = self.hasher.hash_one((name_email, stamp));
        let mut state = lock(&self.state);
        if state.known.contains(&home) {
            return Ok(());
        }
        if state.calm.is_none() || state.calm != self.stamps() {
            // One that runs already may have begun before the home was there.
            let needed = state.begun + 1;
            state = self.write_through(state, needed)?;
        }
        state.learn(home);
        Ok(())
    }

    /// Takes note of a home that was written through after it was seen as `stamp`.
    pub fn learn(&self, name_email: &NameEmail, stamp: HomeVersion) {
        let home = self.hasher.hash_one((name_email, stamp));
        lock(&self.state).learn(home);
    }

    /// Writes through what is in the directories now.
    pub fn sync(&self) -> Result<()> {
        let state = lock(&self.state);
        let needed = state.begun + 1;
        self.write_through(state, needed).map(drop)
    }

    /// Returns when the attempt number `needed`, or a later one, has succeeded. One thread makes an
    /// attempt for all that wait; each fails by an attempt of its own.
    fn write_through<'a>(
        &'a self,
        mut state: MutexGuard<'a, Knowledge>,
        needed: u64,
    ) -> Result<MutexGuard<'a, Knowledge>> {
        while state.succeeded < needed {
            if state.is_running {
                state = unpoisoned(self.ended.wait(state));
                continue;
            }
            state.is_running = true;
            state.begun += 1;
            let number = state.begun;
            drop(state);
            let before = self.stamps();
            let now = SystemTime::now();
            let mut directories = self.directories.iter();
            let written = directories.try_for_each(|directory| durable::sync(directory));
            state = lock(&self.state);
            state.is_running = false;
            self.ended.notify_all();
            written?;
            state.succeeded = number;
            let is_settled =
                |stamps: &Vec<HomeVersion>| stamps.iter().all(|one| one.is_settled(now));
            state.calm = before.filter(is_settled);
        }
        Ok(state)
    }

    fn stamps(&self) -> Option<Vec<HomeVersion>> {
        self.directories.iter().map(|directory| HomeVersion::of(directory)).collect()
    }
}

impl Knowledge {
    fn learn(&mut self, home: u64) {
        if self.known.len() >= KNOWN_MAX {
            self.known.clear();
        }
        self.known.insert(home);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scratch::scratch;

    fn some_file() -> FileId {
        let Ok(found) = fs::metadata("/") else { unreachable!("there is a root") };
        FileId::from(&found)
    }

    #[test]
    fn a_stamp_that_a_later_change_may_share_has_not_settled() {
        let stamp = HomeVersion { id: some_file(), changed: (1_000, 5) };
        let settled_at = |seconds| stamp.is_settled(UNIX_EPOCH + Duration::from_secs(seconds));
        assert!(settled_at(1_004));
        // Also while the clock of this host is behind that of the file server.
        for seconds in [0, 999, 1_000, 1_003] {
            assert!(!settled_at(seconds), "{seconds}");
        }
    }

    #[test]
    fn what_cannot_be_written_through_is_not_known_until_it_can() -> Result<()> {
        let root = scratch();
        let path = root.path().join("keys");
        let on_disk = OnDisk::new(vec![path.clone()]);
        let name = NameEmail::parse("a#b@c")?;
        let stamp = HomeVersion { id: some_file(), changed: (1, 1) };
        assert!(on_disk.make_sure(&name, stamp).is_err());
        assert!(fs::create_dir(&path).is_ok());
        on_disk.make_sure(&name, stamp)?;
        assert!(fs::remove_dir(&path).is_ok());
        on_disk.make_sure(&name, stamp)?;
        let later = HomeVersion { changed: (1, 2), ..stamp };
        assert!(on_disk.make_sure(&name, later).is_err(), "another home of this name");
        on_disk.learn(&name, later);
        on_disk.make_sure(&name, later)
    }
}
