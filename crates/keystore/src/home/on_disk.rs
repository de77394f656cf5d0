//! Knows which keys survive a power cut. Every process sees a rename at once, long before it is on the disk. So
//! a process that answers that a key exists must know that the key is on the disk, and not merely see it. It
//! knows that of a home which it saw under its name before a successful fsync(2) of the directories. It does
//! not matter whether this process made the key or another one, or whether its maker was killed yesterday.
//!
//! One fsync serves many requests together. Homes that were there when the directories were last synced need
//! no other fsync. As long as the directories have not changed since, everything in them is on the disk.

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

/// The number of homes that are remembered, 8 bytes each. Beyond it, all are forgotten and looked at again.
const KNOWN_MAX: usize = 100_000;

/// A directory that changed less than this ago may change again without a new timestamp. The clocks of file
/// systems tick, some of them only every two seconds.
const TICK: Duration = Duration::from_secs(3);

/// Identifies a directory or a link, and one version of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct HomeVersion {
    id: FileId,
    /// The change time (ctime). rename(2) sets it on what is renamed, and on the directory that it
    /// is renamed into.
    changed: (i64, i64),
}

impl From<&Metadata> for HomeVersion {
    fn from(found: &Metadata) -> Self {
        let changed = (found.ctime(), found.ctime_nsec());
        Self { id: found.into(), changed }
    }
}

impl HomeVersion {
    /// Returns the version of what is at `path` now; `None` if that cannot be told.
    pub fn of(path: &Path) -> Option<Self> {
        fs::symlink_metadata(path).ok().as_ref().map(Self::from)
    }

    /// Whether any later change is sure to have another change time.
    fn is_settled(&self, now: SystemTime) -> bool {
        let now = now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let changed = u64::try_from(self.changed.0).unwrap_or(u64::MAX);
        changed.saturating_add(TICK.as_secs()) < now
    }
}

/// What this process knows to be on the disk.
#[derive(Debug)]
pub struct OnDisk {
    /// The directory that homes are renamed into, and the directories with links into the homes.
    directories: Vec<PathBuf>,
    state: Mutex<Knowledge>,
    ended: Condvar,
    hasher: RandomState,
}

#[derive(Debug, Default)]
struct Knowledge {
    known: HashSet<u64>,
    /// The versions of the directories before they were last synced; `None` if one of them was not yet settled.
    calm: Option<Vec<HomeVersion>>,
    /// The number of syncs begun, and the number of the last sync that succeeded.
    begun: u64,
    succeeded: u64,
    is_running: bool,
}

impl OnDisk {
    /// Starts without any knowledge of what is on the disk in `directories`.
    pub fn new(directories: Vec<PathBuf>) -> Self {
        Self {
            directories,
            state: Mutex::default(),
            ended: Condvar::new(),
            hasher: RandomState::new(),
        }
    }

    /// Makes sure that a home is on the disk, together with the links that lead to it. The home was seen
    /// under its name as `stamp`.
    pub fn make_sure(&self, name_email: &NameEmail, stamp: HomeVersion) -> Result<()> {
        let home = self.hasher.hash_one((name_email, stamp));
        let mut state = lock(&self.state);
        if state.known.contains(&home) {
            return Ok(());
        }
        if state.calm.is_none() || state.calm != self.stamps() {
            // A sync that runs already may have begun before the home was there, so wait for the next one.
            let needed = state.begun + 1;
            state = self.write_through(state, needed)?;
        }
        state.learn(home);
        Ok(())
    }

    /// Takes note of a home that was synced after it was seen as `stamp`.
    pub fn learn(&self, name_email: &NameEmail, stamp: HomeVersion) {
        let home = self.hasher.hash_one((name_email, stamp));
        lock(&self.state).learn(home);
    }

    /// Syncs what is in the directories now.
    pub fn sync(&self) -> Result<()> {
        let state = lock(&self.state);
        let needed = state.begun + 1;
        self.write_through(state, needed).map(drop)
    }

    /// Returns when sync number `needed`, or a later one, has succeeded. One thread syncs for all threads
    /// that wait. After a failure, each of the others makes an attempt of its own.
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
