//! Work in progress: every home is made in a directory of its own below `staging/` that is locked
//! as long as its maker lives. Nothing here is ever trusted or reused after a crash.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use nix::fcntl::Flock;

use super::durable;
use super::home::{self, Homes};
use super::lock::lock;
use super::passphrase::{self, Form};
use super::signd::SigndView;
use crate::error::{Error, Result};
use crate::gpg::Keygrip;
use crate::identity::NameEmail;

mod clear;
mod whose;

pub use clear::Work;
use whose::Identity;

/// The home inside of a staging directory; short, because agent sockets live in it.
const HOME: &str = "h";

/// The longest path of a Unix socket (unix(7): `sun_path` less its terminating zero).
const SOCKET_PATH_MAX: usize = 107;

/// `staging/`.
#[derive(Debug)]
pub struct Staging {
    directory: PathBuf,
    /// Tells the work of processes whose locks count from that of others on a shared file system.
    identity: Identity,
    /// Whether a home of this process could not be removed.
    leftovers: AtomicBool,
}

/// A home that nobody sees yet. Dropped, it is gone, and the link to its secret key with it.
#[derive(Debug)]
pub struct StagedHome<'a> {
    staging: &'a Staging,
    home: PathBuf,
    directory: PathBuf,
    _lock: Flock<File>,
    linked: Option<(&'a SigndView, Keygrip)>,
}

/// How a rename into `keys/` ended.
#[derive(Debug, PartialEq, Eq)]
pub enum Publication {
    /// The home is published.
    Done,
    /// Somebody else published a key of this identity first; it is theirs that counts.
    Lost,
}

/// Refuses a state directory so deep that agent sockets below it could not be bound. gpg binds them
/// elsewhere for users who are logged in, but a service must not depend on that.
pub fn check_path_length(root: &Path) -> Result<()> {
    let name = "staging/01234567-01234567/h/S.gpg-agent.ssh";
    let most = SOCKET_PATH_MAX - name.len() - 1;
    if root.as_os_str().len() > most {
        return Err(Error::Settings(format!(
            "state_dir = {}: longer than {most} bytes, the sockets of gpg-agent would not fit; \
             use a shorter path",
            root.display()
        )));
    }
    Ok(())
}

impl Staging {
    pub fn new(directory: PathBuf) -> Self {
        let identity = Identity::of(&directory);
        Self { directory, identity, leftovers: AtomicBool::new(false) }
    }

    /// Makes an empty home.
    pub fn create(&self) -> Result<StagedHome<'_>> {
        loop {
            let directory = self.directory.join(self.identity.name());
            let failed = |e| Error::io(format!("making {}", directory.display()), e);
            let builder = || {
                let mut builder = DirBuilder::new();
                builder.mode(0o700);
                builder
            };
            match builder().create(&directory) {
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => continue,
                made => made.map_err(failed)?,
            }
            // Somebody who clears up may have come between; then this directory is theirs.
            let lock = match lock(&directory) {
                Ok(Some(lock)) => lock,
                Ok(None) => continue,
                Err(e) => {
                    let _ = fs::remove_dir(&directory); // empty; the next start removes it as well
                    return Err(failed(e));
                }
            };
            // From here on it removes itself, whatever fails.
            let home = directory.join(HOME);
            let staged = StagedHome { staging: self, home, directory, _lock: lock, linked: None };
            builder()
                .create(&staged.home)
                .map_err(|e| Error::io(format!("making {}", staged.home.display()), e))?;
            return Ok(staged);
        }
    }

    /// In which form the passphrase is kept of what is made in the entry `directory`, if it has one yet.
    pub fn form_in(&self, directory: &Path) -> Option<Form> {
        passphrase::form_in(&directory.join(HOME)).ok()
    }

    /// Whether there is something to clear of this process itself. Asking answers for it.
    pub fn has_leftovers(&self) -> bool {
        self.leftovers.swap(false, Ordering::Relaxed)
    }

    /// Whether a home in here holds this secret key.
    pub fn holds(&self, keygrip: &Keygrip) -> bool {
        let entries = fs::read_dir(&self.directory).into_iter().flatten().flatten();
        let secret = Path::new(HOME).join(home::SECRET_KEYS).join(keygrip.file_name());
        entries.into_iter().any(|entry| fs::symlink_metadata(entry.path().join(&secret)).is_ok())
    }
}

impl<'a> StagedHome<'a> {
    /// The home, an empty directory at first.
    pub fn path(&self) -> &Path {
        &self.home
    }

    /// Makes the home an empty directory again.
    pub fn empty(&self) -> Result<()> {
        remove_tree(&self.home)?;
        DirBuilder::new()
            .mode(0o700)
            .create(&self.home)
            .map_err(|e| Error::io(format!("making {}", self.home.display()), e))
    }

    /// Where files may be made that are not to be published.
    pub fn scratch(&self) -> &Path {
        &self.directory
    }

    /// Publishes the home, which must be complete, below `keys/`: links the secret key, renames the
    /// home into place (that is the moment it exists), links the phrase. Returns when all of it
    /// is on the disk.
    pub fn publish(
        mut self,
        homes: &Homes,
        signd: &'a SigndView,
        name_email: &NameEmail,
        keygrip: &Keygrip,
    ) -> Result<Publication> {
        signd.check_is_free(name_email, keygrip)?;
        durable::sync_tree(&self.home)?;
        self.linked = Some((signd, keygrip.clone()));
        signd.add_secret_key(name_email, keygrip)?;
        let target = homes.path(name_email);
        match durable::rename(&self.home, &target) {
            Ok(()) => {}
            Err(e) if matches!(e.raw_os_error(), Some(libc::ENOTEMPTY | libc::EEXIST)) => {
                return Ok(Publication::Lost);
            }
            Err(e) => return Err(Error::io(format!("publishing {}", target.display()), e)),
        }
        self.linked = None;
        durable::sync(homes.directory())?;
        signd.mark_changed(&self.directory);
        signd.add_phrase(name_email)?;
        Ok(Publication::Done)
    }
}

impl Drop for StagedHome<'_> {
    fn drop(&mut self) {
        // First the link, which leads to where this home was never published: should this process
        // die here, the home still tells the next one about it.
        if let Some((signd, keygrip)) = &self.linked {
            signd.remove_dangling_secret_key(keygrip);
        }
        if let Err(e) = remove_tree(&self.directory) {
            log::warn!("{e}; it will be tried again with the next key");
            self.staging.leftovers.store(true, Ordering::Relaxed);
        }
    }
}

/// Removes a directory and all below it. A gpg-agent that is about to die may still write there,
/// so a directory that was not empty after all is tried again.
pub(super) fn remove_tree(directory: &Path) -> Result<()> {
    let mut tries = 0;
    loop {
        match fs::remove_dir_all(directory) {
            Ok(()) => return Ok(()),
            Err(e) if e.kind() == io::ErrorKind::NotFound && !directory.exists() => return Ok(()),
            Err(e) if tries == 3 => {
                return Err(Error::io(format!("removing {}", directory.display()), e));
            }
            Err(_) => tries += 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    pub struct Scratch(pub PathBuf);

    impl Scratch {
        pub fn new() -> Self {
            let path = std::env::temp_dir().join(format!("ckg-{:016x}", rand::random::<u64>()));
            for directory in ["gnupg/private-keys-v1.d", "staging", "keys", "phrases"] {
                assert!(fs::create_dir_all(path.join(directory)).is_ok());
            }
            Self(path)
        }

        pub fn staging(&self) -> Staging {
            Staging::new(self.0.join("staging"))
        }

        pub fn count(&self) -> usize {
            fs::read_dir(self.0.join("staging")).map_or(0, Iterator::count)
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn a_held_home_survives_clearing_and_goes_when_dropped() -> Result<()> {
        let scratch = Scratch::new();
        let (staging, signd) = (scratch.staging(), SigndView::new(&scratch.0));
        let held = staging.create()?;
        assert_eq!(scratch.staging().clear(&signd)?, 0);
        assert!(held.path().is_dir());
        drop(held);
        assert_eq!(scratch.count(), 0);
        Ok(())
    }

    #[test]
    fn who_publishes_second_loses_and_leaves_no_trace() -> Result<()> {
        let scratch = Scratch::new();
        let (staging, signd) = (scratch.staging(), SigndView::new(&scratch.0));
        let homes = Homes::new(&scratch.0);
        let name = NameEmail::parse("a#b@c")?;
        let mut results = Vec::new();
        for digit in ["1", "2"] {
            let grip = Keygrip::parse(&digit.repeat(40));
            let (Some(grip), staged) = (grip, staging.create()?) else { continue };
            let secret = staged.path().join("private-keys-v1.d");
            assert!(fs::create_dir(&secret).is_ok());
            assert!(fs::write(secret.join(grip.file_name()), digit).is_ok());
            results.push(staged.publish(&homes, &signd, &name, &grip)?);
        }
        assert_eq!(results, [Publication::Done, Publication::Lost]);
        let links: Vec<_> = fs::read_dir(scratch.0.join("gnupg/private-keys-v1.d"))
            .map(|entries| entries.flatten().map(|e| e.file_name()).collect())
            .unwrap_or_default();
        assert_eq!(links, [format!("{}.key", "1".repeat(40)).as_str()]);
        assert_eq!(scratch.count(), 0);
        Ok(())
    }

    #[test]
    fn a_deep_state_directory_is_refused_in_words() {
        assert!(check_path_length(Path::new("/var/lib/copr-keygen")).is_ok());
        let deep = format!("/{}", "d".repeat(80));
        let error = check_path_length(Path::new(&deep)).err().map(|e| e.to_string());
        assert!(error.is_some_and(|text| text.contains("use a shorter path")));
    }
}
