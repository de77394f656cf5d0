//! The passphrases that signd reads when `phrases_dir` is set. They are cleartext files, not links into
//! `keys/`, in a directory in memory. They are derived from `keys/` like the links. While the state is sealed,
//! they are never written where a disk could keep them.
//!
//! A state claims only an empty directory, by the file `.state` in it. In a directory that this state has
//! claimed, every file is derived, so it may be replaced or removed whatever it holds. In any other directory
//! nothing is written or removed.

use std::fmt;
use std::fs::{self, File, FileTimes, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use gpg::clock;
use gpg::text::printable;
use nix::sys::statfs::{FsType, TMPFS_MAGIC, statfs};
use zeroize::Zeroizing;

use crate::error::{Error, Result};
use crate::files::small_files::{Symlinks, beginning, open_regular};
use crate::files::{
    FileVersion, durable, ensure_directory, entries, if_there, look, names_in, remove_file,
};
use crate::home::Homes;
use crate::home::record::KeyRecord;
use crate::identity::NameEmail;
use crate::layout::{FILE_MODE, PASSPHRASE};
use crate::secrets::passphrase::Passphrases;

/// The magic number of ramfs, which like tmpfs has no disk (linux/magic.h).
const RAMFS_MAGIC: FsType = FsType(0x8584_58f6);

/// The age at which the writer of a half-written file counts as dead.
const ABANDONED: Duration = Duration::from_secs(60);

/// The file in `phrases_dir` that names the owner of the phrases: the path of the state directory.
const OWNER: &str = ".state";

/// The size limit in bytes of that file, larger than any path.
const OWNER_MAX: u64 = 8192;

/// The number of hexadecimal digits after the dot in the name of a half-written file.
const FRESH_DIGITS: usize = 16;

/// The message about a directory on a disk.
const ON_A_DISK: &str = "is not on a tmpfs, so passphrases would get to a disk";

/// The phrase files in `phrases_dir`.
#[derive(Clone, Debug)]
pub struct PhraseFiles {
    directory: PathBuf,
    homes: Homes,
    passphrases: Passphrases,
}

impl PhraseFiles {
    /// Keeps the phrases of `homes` in `directory`.
    pub fn new(directory: PathBuf, homes: Homes, passphrases: Passphrases) -> Self {
        Self { directory, homes, passphrases }
    }

    /// The path of `phrases_dir`.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Makes the directory if its parent exists, and claims it. Fails if others than the owner can access the
    /// directory, if it is on a disk while passphrases are sealed, or if it is not free to be claimed.
    pub fn prepare(&self) -> Result<()> {
        let wrong = |why: String| Err(self.wrong(why));
        let keys = self.homes.directory();
        let state = keys.parent().unwrap_or(keys);
        if self.directory.starts_with(state) || state.starts_with(&self.directory) {
            return wrong("must be a directory of its own, not one of the state".into());
        }
        if let Err(e) = ensure_directory(&self.directory) {
            return wrong(format!(
                "cannot be made: {e}; copr-keygen-phrases.service makes what is above it"
            ));
        }
        let found = fs::symlink_metadata(&self.directory)
            .map_err(Error::at("looking at", &self.directory))?;
        if !found.is_dir() {
            return wrong("is not a directory".into());
        }
        if found.uid() != nix::unistd::geteuid().as_raw() || found.mode() & 0o077 != 0 {
            return wrong(format!(
                "belongs to uid {} and has mode {:03o}; it must be of the owner of the keys, 700",
                found.uid(),
                found.mode() & 0o777
            ));
        }
        if self.passphrases.marker()?.is_some() && !is_in_memory(&self.directory)? {
            return wrong(ON_A_DISK.into());
        }
        if !self.is_claimed()? {
            let claimed = self.put_file(OWNER, self.owner().as_bytes(), SystemTime::now());
            claimed.map_err(Error::at("writing in", &self.directory))?;
        }
        Ok(())
    }

    /// Whether this state has claimed the directory. Returns `false` if no state has, and it is empty or
    /// missing. Fails if it holds files that may be somebody's only copy. Every function that writes or removes
    /// here asks this first.
    pub fn is_claimed(&self) -> Result<bool> {
        if self.names_this_state()? {
            return Ok(true);
        }
        let Some(foreign) = self.first_file()? else { return Ok(false) };
        // Another process of this state may have claimed the directory since, and written phrases after that.
        if self.names_this_state()? {
            return Ok(true);
        }
        Err(self.wrong(format!(
            "holds files that copr-keygen did not write, {} for one; nothing there was touched; name an empty \
             directory (phrases_dir in config.toml, or COPR_KEYGEN_PHRASES_DIR), or move these files away",
            foreign.display()
        )))
    }

    /// Returns a file of the directory that signd takes for a user. Names that begin with a dot do not count: a
    /// process that was killed while it claimed the directory leaves such a file behind.
    fn first_file(&self) -> Result<Option<PathBuf>> {
        let names = names_in(&self.directory)?;
        Ok(names.into_iter().find(|name| !is_no_user(&name.to_string_lossy())).map(PathBuf::from))
    }

    /// Whether `.state` names this state. Fails if it names another one. Otherwise a copy of the state, opened
    /// from a backup for a trial, would take away the phrases that signd signs with.
    fn names_this_state(&self) -> Result<bool> {
        let file = self.directory.join(OWNER);
        let failed = |e| Error::io(format!("reading whose phrases {} names", file.display()), e);
        let found = match if_there(open_regular(&file, Symlinks::Refused)).map_err(failed)? {
            None => return Ok(false),
            Some(found) => found.ok_or_else(|| failed(io::Error::other("no regular file")))?,
        };
        let found = beginning(found, OWNER_MAX).map_err(failed)?;
        let found = String::from_utf8_lossy(&found);
        let owner = self.owner();
        if found == owner {
            return Ok(true);
        }
        Err(self.wrong(format!(
            "holds the phrases of the state {}, not of {}; name another directory in memory for this one \
             (COPR_KEYGEN_PHRASES_DIR), or remove {} if that state has moved here",
            printable(found.trim_end()),
            printable(owner.trim_end()),
            self.directory.display()
        )))
    }

    /// Returns the line that names this state.
    fn owner(&self) -> String {
        let keys = self.homes.directory();
        let state = keys.parent().unwrap_or(keys);
        let state = state.canonicalize().unwrap_or_else(|_| state.into());
        format!("{}\n", state.display())
    }

    /// Like [`PhraseFiles::prepare`], but requires a directory in memory even if nothing is sealed yet.
    pub fn prepare_in_memory(&self) -> Result<()> {
        self.would_be_in_memory()?;
        self.prepare()
    }

    /// Fails if [`PhraseFiles::prepare_in_memory`] would, as far as the directory or its parent shows. Changes
    /// nothing.
    pub fn would_be_in_memory(&self) -> Result<()> {
        self.is_claimed()?;
        let above = self.directory.parent().unwrap_or(&self.directory);
        let place = if self.directory.exists() { &self.directory } else { above };
        match is_in_memory(place) {
            Ok(true) => Ok(()),
            Ok(false) => Err(self.wrong(ON_A_DISK)),
            Err(e) => Err(self.wrong(format!("cannot be made: {e}"))),
        }
    }

    /// Returns the error that something is wrong with the directory. It names the setting.
    fn wrong(&self, why: impl fmt::Display) -> Error {
        Error::Settings(format!("phrases_dir = {}: {why}", self.directory.display()))
    }

    /// Whether signd finds the current phrase of this identity. Compares modification times, and reads no
    /// passphrase.
    pub fn is_current(&self, name_email: &NameEmail) -> bool {
        let found = fs::symlink_metadata(self.path(name_email)).ok();
        let made = found.filter(|found| found.is_file()).and_then(|found| found.modified().ok());
        let wanted = self.stamp(name_email).ok().flatten();
        made.is_some() && made == wanted.map(|wanted| wanted.modified)
    }

    /// Writes the phrase of an identity, unless it is current.
    pub fn add(&self, name_email: &NameEmail) -> Result<()> {
        if self.is_current(name_email) { Ok(()) } else { self.put(name_email) }
    }

    /// Writes the phrase of an identity that has a key. Each writer checks afterwards whether `keys/` has
    /// changed and if so writes again, so the last of several writers leaves the current phrase.
    pub fn put(&self, name_email: &NameEmail) -> Result<()> {
        self.prepare()?;
        let home = self.homes.path(name_email);
        while let Some(stamp) = self.stamp(name_email)? {
            let Some(record) = KeyRecord::of(&home)? else { break };
            let phrase = self.passphrases.read(&home, &record.keygrip);
            match phrase {
                Ok(phrase) => self.write(name_email, &phrase, stamp.modified)?,
                // The passphrase was removed or replaced in the meantime.
                Err(_) if self.stamp(name_email)? != Some(stamp) => continue,
                Err(e) => return Err(e),
            }
            if self.stamp(name_email)? == Some(stamp) {
                return Ok(());
            }
        }
        self.remove_dangling(name_email);
        Ok(())
    }

    fn write(&self, name_email: &NameEmail, phrase: &[u8], time: SystemTime) -> Result<()> {
        let mut line = Zeroizing::new(Vec::with_capacity(phrase.len() + 1));
        line.extend_from_slice(phrase);
        line.push(b'\n');
        self.put_file(name_email.as_str(), &line, time).map_err(|e| {
            self.wrong(format!(
                "the phrase of {name_email} cannot be written, so signd cannot use its key yet: {e}; mend \
                 that or make room there, then run `copr-keygen phrases` (docs/sealing.md)"
            ))
        })
    }

    /// Puts a file with this content and modification time in place.
    fn put_file(&self, name: &str, content: &[u8], time: SystemTime) -> io::Result<()> {
        // signd does not take a name that begins with a dot for a user.
        let fresh = format!(".{:0FRESH_DIGITS$x}", rand::random::<u64>());
        let fresh = self.directory.join(fresh);
        let mut options = OpenOptions::new();
        let opened = options.write(true).create_new(true).mode(FILE_MODE).open(&fresh);
        let written = opened.and_then(|mut file: File| {
            file.write_all(content)?;
            file.set_times(FileTimes::new().set_modified(time))?;
            durable::rename(&fresh, &self.directory.join(name))
        });
        written.inspect_err(|_| {
            let _ = fs::remove_file(&fresh); // the error of the write is the one to report
        })
    }

    /// Removes the phrase of an identity.
    pub fn remove(&self, name_email: &NameEmail) -> Result<()> {
        match self.is_claimed()? {
            true => remove_file(&self.path(name_email)),
            false => Ok(()), // nothing is there
        }
    }

    /// Removes the phrase of an identity if `keys/` has no passphrase of it.
    pub fn remove_dangling(&self, name_email: &NameEmail) {
        let source = self.homes.path(name_email).join(PASSPHRASE);
        if fs::symlink_metadata(source).is_err_and(|e| e.kind() == io::ErrorKind::NotFound) {
            if let Err(e) = self.remove(name_email) {
                log::warn!("{e}; signd takes it for a user without a key");
            }
        }
    }

    /// Removes the phrases of identities without a key, and the half-written files of dead writers. Returns the
    /// number of phrases removed.
    pub fn remove_strangers(&self) -> Result<usize> {
        if !self.is_claimed()? {
            return Ok(0); // nothing is there
        }
        let mut count = 0;
        for path in entries(&self.directory)? {
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            if is_no_user(name) {
                if !is_half_written(name) {
                    continue;
                }
                // The age is taken from ctime. A writer finally sets mtime to that of the passphrase, and not
                // every kernel knows when a file was made.
                let Some(found) = look(&path)? else { continue }; // its writer has finished
                let age = clock::now()?.saturating_sub(found.ctime().unsigned_abs());
                if age > ABANDONED.as_secs() {
                    remove_file(&path)?;
                }
                continue;
            }
            match NameEmail::parse(name) {
                Ok(name_email) if !matches!(self.homes.find(&name_email), Ok(None)) => {}
                Ok(name_email) => {
                    self.remove(&name_email)?;
                    count += 1;
                    // The key may have been published at this very moment.
                    if self.stamp(&name_email)?.is_some() {
                        self.put(&name_email)?;
                    }
                }
                Err(_) => log::warn!("{}: is of no key, left alone", path.display()),
            }
        }
        Ok(count)
    }

    /// Returns the path of the phrase of an identity.
    pub fn path(&self, name_email: &NameEmail) -> PathBuf {
        self.directory.join(name_email.as_str())
    }

    /// Returns the version of the passphrase file of an identity in `keys/`, or `None` if it has none.
    fn stamp(&self, name_email: &NameEmail) -> Result<Option<FileVersion>> {
        let path = self.homes.path(name_email).join(PASSPHRASE);
        let version = look(&path)?.map(|found| FileVersion::of(&found)).transpose();
        version.map_err(Error::at("looking at", &path))
    }
}

/// Whether signd ignores this name: it belongs to a file that is being written, or to the file that names the
/// state.
pub fn is_no_user(name: &str) -> bool {
    name.starts_with('.')
}

/// Whether this is the name of a file that is being written, or that a dead writer left behind.
fn is_half_written(name: &str) -> bool {
    name.strip_prefix('.').is_some_and(|digits| {
        digits.len() == FRESH_DIGITS && digits.bytes().all(|digit| digit.is_ascii_hexdigit())
    })
}

fn is_in_memory(directory: &Path) -> Result<bool> {
    let found = statfs(directory).map_err(Error::at("looking at", directory))?;
    Ok([TMPFS_MAGIC, RAMFS_MAGIC].contains(&found.filesystem_type()))
}
