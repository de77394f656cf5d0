//! Work in progress. Every home is made in a directory of its own below `staging/`, which is locked as long
//! as its maker lives. Nothing in `staging/` is ever trusted or reused after a crash.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use gpg::Keygrip;

use crate::error::{Error, Result};
use crate::files::durable;
use crate::files::lock::{DirectoryLock, lock};
use crate::files::{is_there, make_directory, names_in, remove_tree};
use crate::layout::{DIRECTORY_MODE, SECRET_KEYS};
use crate::secrets::passphrase::{self, Form};

pub(crate) mod clear;
pub(crate) mod process_tag;

use process_tag::ProcessTag;

/// The name of the home in a staging directory. It is short because the sockets of gpg-agent are in the home.
const HOME: &str = "h";

/// The beginning of a directory's name until the directory is locked.
const FRESH: &str = ".";

/// The longest path of a Unix socket (unix(7): `sun_path` less its terminating zero).
const SOCKET_PATH_MAX: usize = 107;

/// The directory `staging/`.
#[derive(Debug)]
pub struct Staging {
    directory: PathBuf,
    /// Tells the work of processes whose locks are seen here from the work of others on a shared file system.
    tag: ProcessTag,
    /// Whether a staged home of this process could not be removed.
    leftovers: AtomicBool,
}

/// A home that is not published yet. It is removed when this is dropped.
#[derive(Debug)]
pub struct StagedHome<'a> {
    staging: &'a Staging,
    home: PathBuf,
    directory: PathBuf,
    _lock: DirectoryLock,
}

/// Refuses a state directory with a path so long that gpg-agent could not bind its sockets below it. gpg
/// binds them elsewhere for users who are logged in, but a service must not depend on that.
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
        let tag = ProcessTag::of(&directory);
        Self { directory, tag, leftovers: AtomicBool::new(false) }
    }

    /// Makes an empty home. Its directory gets its final name once it is locked. The lock tells live work
    /// from leftovers, and a process that only looks for leftovers must not take it before the maker does.
    pub fn create(&self) -> Result<StagedHome<'_>> {
        loop {
            let name = self.tag.name();
            let directory = self.directory.join(&name);
            let fresh = self.directory.join(format!("{FRESH}{name}"));
            let failed = Error::at("making", &directory);
            let builder = || {
                let mut builder = DirBuilder::new();
                builder.mode(DIRECTORY_MODE);
                builder
            };
            match builder().create(&fresh) {
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => continue,
                made => made.map_err(failed)?,
            }
            let lock = match lock(&fresh) {
                Ok(Some(lock)) => lock,
                // A process that clears up has locked the directory first, and removes it.
                Ok(None) => continue,
                Err(e) => {
                    let _ = fs::remove_dir(&fresh); // empty; the next start removes it as well
                    return Err(failed(e));
                }
            };
            // With a home in it, the directory is not empty, so that no other one can be renamed over it.
            let named = builder()
                .create(fresh.join(HOME))
                .and_then(|()| durable::rename(&fresh, &directory));
            if let Err(e) = named {
                remove_tree(&fresh)?;
                if durable::is_taken(&e) {
                    continue; // the name is taken
                }
                return Err(failed(e));
            }
            let home = directory.join(HOME);
            return Ok(StagedHome { staging: self, home, directory, _lock: lock });
        }
    }

    /// Does `work`, and restores the modification time of `staging/`. That time counts as a sign of life when the
    /// clock is judged, and neither an inspection nor clearing up after a crash must leave one.
    pub fn without_sign_of_life<T>(&self, work: impl FnOnce() -> T) -> T {
        let directory = File::open(&self.directory).and_then(|opened| {
            let modified = opened.metadata()?.modified()?;
            Ok((opened, modified))
        });
        let result = work();
        if let Err(e) = directory.and_then(|(opened, modified)| opened.set_modified(modified)) {
            log::debug!("{}: {e}", self.directory.display());
        }
        result
    }

    /// Returns the form of the passphrase in the home of the entry `directory`, if there is one yet.
    pub fn form_in(&self, directory: &Path) -> Option<Form> {
        passphrase::form_in(&directory.join(HOME)).ok()
    }

    /// Whether this process has left something to clear. Asking resets the answer.
    pub fn has_leftovers(&self) -> bool {
        self.leftovers.swap(false, Ordering::Relaxed)
    }

    /// Whether a home in `staging/` holds this secret key.
    pub fn holds(&self, keygrip: &Keygrip) -> Result<bool> {
        let secret = Path::new(HOME).join(SECRET_KEYS).join(keygrip.file_name());
        for name in names_in(&self.directory)? {
            if is_there(&self.directory.join(name).join(&secret))? {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

impl StagedHome<'_> {
    /// The path of the home, which is an empty directory at first.
    pub fn path(&self) -> &Path {
        &self.home
    }

    /// Makes the home an empty directory again.
    pub fn empty(&self) -> Result<()> {
        remove_tree(&self.home)?;
        make_directory(&self.home)
    }

    /// The directory for files that are not to be published.
    pub fn scratch(&self) -> &Path {
        &self.directory
    }
}

impl Drop for StagedHome<'_> {
    fn drop(&mut self) {
        if let Err(e) = remove_tree(&self.directory) {
            log::warn!("{e}; it will be tried again with the next key");
            self.staging.leftovers.store(true, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests;
