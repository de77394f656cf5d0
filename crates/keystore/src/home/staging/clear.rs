//! Clears up in `staging/` after processes that died, on this host or on another one.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};
use std::{fs, io};

use crate::error::{Error, Result};
use crate::files::lock::lock;
use crate::files::{durable, entries, is_missing, remove_dangling, remove_tree};
use crate::home::record;
use crate::home::staging::process_tag::{ABANDONED, last_sign_of_life};
use crate::home::staging::{FRESH, HOME, Staging};

/// The age at which the maker of a directory without its final name counts as dead.
const MAKING: Duration = Duration::from_secs(60);

/// What an entry of `staging/` is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum StagingWork {
    /// A living process holds it.
    Alive,
    /// A process has left it behind. Either its lock would be seen here, or it has not shown any life for
    /// [`ABANDONED`].
    Dead,
    /// It belongs to another host, which may still be at work on it.
    Foreign,
    /// It is not a directory, so it was not made here.
    Strange,
}

impl Staging {
    /// Removes the entries that no living process holds; returns how many homes these were. Logs what cannot
    /// be removed and leaves it for the next time. `links` is the directory with the links to secret keys.
    pub fn clear(&self, links: &Path) -> Result<usize> {
        let mut count = 0;
        for path in entries(&self.directory)? {
            let buried = match self.judge(&path, |path| Ok(lock(path)?.is_some())) {
                Ok(Some(StagingWork::Dead)) => self.bury(&path, links),
                Ok(Some(StagingWork::Strange)) => {
                    // It was not made here, and will not go away by itself.
                    log::warn!("{}: left alone: is not a directory", path.display());
                    continue;
                }
                Ok(_) => continue,
                Err(e) => Err(Error::io(format!("{}: left alone", path.display()), e)),
            };
            match buried {
                Ok(is_done) => count += usize::from(is_done),
                Err(e) => {
                    log::warn!("{e}");
                    self.leftovers.store(true, Ordering::Relaxed);
                }
            }
        }
        Ok(count)
    }

    /// Clears up as [`Staging::clear`] does, and logs what came of it.
    pub fn clear_up(&self, links: &Path) {
        match self.clear(links) {
            Ok(0) => {}
            Ok(count) => {
                log::info!("removed {count} unfinished keys of processes that ended early")
            }
            Err(e) => log::warn!("clearing up staging/: {e}; it will be tried again"),
        }
    }

    /// Removes a dead entry. Returns `false` if another process has done so. The entry and the home in it are
    /// first given other names. Should a process be at work there after all, its work fails as a whole, and
    /// nothing is ever removed from a home that gets published.
    fn bury(&self, path: &Path, links: &Path) -> Result<bool> {
        let failed = Error::at("removing", path);
        let Some(_lock) = lock(path).map_err(failed)? else { return Ok(false) };
        let doomed = self.directory.join(self.tag.name());
        let home = doomed.join("dead");
        // On NFS, a process that has the directory open can still reach the home by its old name for a while.
        for (from, to) in [(path, &doomed), (&doomed.join(HOME), &home)] {
            match durable::rename(from, to) {
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                moved => moved.map_err(failed)?,
            }
        }
        // Remove the links before the home: only its secret keys tell which links lead there.
        for keygrip in record::secret_keys(&home)? {
            remove_dangling(&links.join(keygrip.file_name()));
        }
        remove_tree(&doomed).map(|()| true)
    }

    /// Returns every entry of `staging/`, and what it is.
    pub fn survey(&self) -> Result<Vec<(PathBuf, StagingWork)>> {
        let mut found = Vec::new();
        for path in entries(&self.directory)? {
            let failed = Error::at("looking at", &path);
            // A mere look must not take a lock that the maker is about to take.
            if let Some(work) = self.judge(&path, is_old).map_err(failed)? {
                found.push((path, work));
            }
        }
        found.sort();
        Ok(found)
    }

    /// Returns what an entry is; `None` if it is gone by now, or is being made. `is_left` tells whether the
    /// maker of an entry without its final name has left it behind.
    fn judge(
        &self,
        path: &Path,
        is_left: impl Fn(&Path) -> io::Result<bool>,
    ) -> io::Result<Option<StagingWork>> {
        let name = path.file_name().unwrap_or_default();
        if let Some(name) = name.as_bytes().strip_prefix(FRESH.as_bytes()) {
            let is_dead = self.tag.proves_dead(OsStr::from_bytes(name)) && is_left(path)?;
            return Ok(is_dead.then_some(StagingWork::Dead));
        }
        Ok(Some(match lock(path) {
            Ok(None) if fs::symlink_metadata(path).is_err() => return Ok(None),
            Ok(None) => StagingWork::Alive,
            Ok(Some(_)) if self.tag.proves_dead(name) || self.is_abandoned(path) => {
                StagingWork::Dead
            }
            Ok(Some(_)) => StagingWork::Foreign,
            Err(e) if matches!(e.raw_os_error(), Some(libc::ENOTDIR | libc::ELOOP)) => {
                StagingWork::Strange
            }
            Err(e) => return Err(e),
        }))
    }

    fn is_abandoned(&self, path: &Path) -> bool {
        let last = last_sign_of_life(path, HOME);
        let silent = last.and_then(|last| SystemTime::now().duration_since(last).ok());
        silent.is_some_and(|silent| silent > ABANDONED)
    }
}

/// Whether a directory has been without its final name for so long that its maker must be dead.
fn is_old(directory: &Path) -> io::Result<bool> {
    let found = match fs::symlink_metadata(directory) {
        Err(e) if is_missing(&e) => return Ok(false),
        found => found?,
    };
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Ok(now.as_secs().saturating_sub(found.ctime().unsigned_abs()) > MAKING.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Homes;
    use crate::home::on_disk::OnDisk;
    use crate::home::staging::StagedHome;
    use crate::home::staging::process_tag::ProcessTag;
    use crate::home::staging::tests::Scratch;
    use crate::identity::NameEmail;
    use crate::view::publish::{Publication, Publisher};
    use crate::view::signd_view::SigndView;
    use gpg::Keygrip;
    use std::fs::{File, FileTimes};
    use std::time::Duration;

    const GRIP: &str = "0123456789ABCDEF0123456789ABCDEF01234567";

    #[test]
    fn clearing_takes_what_is_dead_and_of_this_host_only() -> Result<()> {
        let scratch = Scratch::new();
        let (staging, signd) = (scratch.staging(), SigndView::new(scratch.path()));
        let grip = format!("{GRIP}.key");
        let dead = scratch.path().join("staging").join(staging.tag.name());
        let secret = dead.join("h/private-keys-v1.d");
        let foreign = scratch.path().join("staging/host-b-00/h");
        let link = scratch.path().join("gnupg/private-keys-v1.d").join(&grip);
        let made = fs::create_dir_all(&secret)
            .and_then(|()| fs::write(secret.join(grip), ""))
            .and_then(|()| fs::create_dir_all(&foreign))
            .and_then(|()| std::os::unix::fs::symlink("../../keys/a#b@c/x", &link));
        assert!(made.is_ok());
        assert_eq!(staging.clear(signd.secret_keys())?, 1);
        assert!(foreign.is_dir() && !dead.exists());
        assert!(fs::symlink_metadata(&link).is_err(), "the dangling link stayed");
        Ok(())
    }

    /// `staging/` as a process under another kernel sees it, on a file system that several
    /// kernels have mounted.
    fn seen_by(scratch: &Scratch, kernel: &str, host: &str) -> Staging {
        Staging { tag: ProcessTag::made_up(kernel, host, false), ..scratch.staging() }
    }

    /// A staged home whose lock other hosts do not see, with a secret key in it.
    fn unseen<'a>(scratch: &Scratch, staging: &'a Staging) -> Result<StagedHome<'a>> {
        let mut staged = staging.create()?;
        let elsewhere = lock(&scratch.path().join("keys")).map_err(|e| Error::io("locking", e))?;
        let Some(elsewhere) = elsewhere else { unreachable!("nobody else locks it") };
        staged._lock = elsewhere;
        let secret = staged.path().join("private-keys-v1.d");
        let made = fs::create_dir(&secret)
            .and_then(|()| fs::write(secret.join(format!("{GRIP}.key")), "x"));
        assert!(made.is_ok());
        Ok(staged)
    }

    /// Sets all times in the entry of `staged` as if nobody had written there for the time `by`.
    fn age(staged: &StagedHome, by: Duration) {
        let home = staged.path();
        let entries = fs::read_dir(home).into_iter().flatten().flatten().map(|e| e.path());
        let times = FileTimes::new().set_modified(SystemTime::now() - by);
        for path in [staged.scratch().into(), home.into()].into_iter().chain(entries) {
            assert!(File::open(path).and_then(|file: File| file.set_times(times)).is_ok());
        }
    }

    #[test]
    fn work_of_a_clone_whose_locks_are_not_seen_lives_until_it_is_silent_for_long() -> Result<()> {
        let scratch = Scratch::new();
        let signd = SigndView::new(scratch.path());
        let one = seen_by(&scratch, "aaaaaaaa", "12345678");
        // A clone of the host has the same machine-id; any other host has another one.
        for host in ["12345678", "87654321"] {
            let two = seen_by(&scratch, "bbbbbbbb", host);
            let staged = unseen(&scratch, &one)?;
            for hours in [0, 24, 6 * 24] {
                age(&staged, Duration::from_secs(hours * 3600));
                assert_eq!(two.clear(signd.secret_keys())?, 0, "{host}: cleared after {hours} h");
                assert!(staged.path().is_dir());
            }
            // Its maker writes again.
            age(&staged, ABANDONED * 2);
            assert!(fs::write(staged.path().join("pubring.kbx"), "x").is_ok());
            assert_eq!(two.clear(signd.secret_keys())?, 0, "{host}: cleared although it lives");
            age(&staged, ABANDONED * 2);
            assert_eq!(two.clear(signd.secret_keys())?, 1, "{host}: stays for ever");
            assert_eq!(scratch.count(), 0);
        }
        Ok(())
    }

    #[test]
    fn whoever_was_taken_for_dead_fails_whole_and_publishes_nothing() -> Result<()> {
        let scratch = Scratch::new();
        let (signd, homes) = (SigndView::new(scratch.path()), Homes::new(scratch.path()));
        let [one, two] =
            ["aaaaaaaa", "bbbbbbbb"].map(|kernel| seen_by(&scratch, kernel, "12345678"));
        let staged = unseen(&scratch, &one)?;
        age(&staged, ABANDONED * 2);
        assert_eq!(two.clear(signd.secret_keys())?, 1);
        let (name, Some(grip)) = (NameEmail::parse("a#b@c")?, Keygrip::parse(GRIP)) else {
            unreachable!("it is one")
        };
        let published =
            Publisher { homes: &homes, signd: &signd, on_disk: &OnDisk::new(Vec::new()) }.publish(
                staged.path(),
                staged.scratch(),
                &name,
                &grip,
            );
        assert!(!matches!(published, Ok(Publication::Done)));
        assert_eq!(fs::read_dir(homes.directory()).map_or(1, Iterator::count), 0);
        let links = fs::read_dir(scratch.path().join("gnupg/private-keys-v1.d"));
        assert_eq!(links.map_or(1, Iterator::count), 0);
        Ok(())
    }

    #[test]
    fn a_restarted_container_clears_up_after_the_last_one_under_any_name() -> Result<()> {
        let scratch = Scratch::new();
        let signd = SigndView::new(scratch.path());
        // Two containers under one kernel, each with a host name of its own.
        let killed = seen_by(&scratch, "aaaaaaaa", "12345678");
        let next = seen_by(&scratch, "aaaaaaaa", "87654321");
        let staged = killed.create()?;
        assert_eq!(next.clear(signd.secret_keys())?, 0, "it holds its lock");
        let name = staged.scratch().to_owned();
        std::mem::drop(staged);
        assert!(fs::create_dir_all(name.join("h")).is_ok());
        assert_eq!(next.clear(signd.secret_keys())?, 1);
        assert_eq!(scratch.count(), 0);
        Ok(())
    }
}
