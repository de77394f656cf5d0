//! Locks on directories (flock(2)). They tell live work from dead work, and keep two processes from doing the
//! same work. They never decide which of two results counts.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

use crate::error::{Error, Result};
use crate::files::FileId;
use crate::identity::NameEmail;

/// A lock on a directory, held until this is dropped.
pub type DirectoryLock = Flock<File>;

/// Locks a directory until the result is dropped. Returns `None` if another process holds the lock, has
/// removed the directory, or has put another directory in its place.
pub fn lock(directory: &Path) -> io::Result<Option<DirectoryLock>> {
    let flags = libc::O_DIRECTORY | libc::O_NOFOLLOW;
    let file = match File::options().read(true).custom_flags(flags).open(directory) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(e),
    };
    let lock = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(lock) => lock,
        Err((_, Errno::EWOULDBLOCK)) => return Ok(None),
        Err((_, errno)) => return Err(errno.into()),
    };
    match fs::symlink_metadata(directory) {
        Ok(now) if FileId::from(&now) == FileId::from(&lock.metadata()?) => Ok(Some(lock)),
        Ok(_) => Ok(None),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}

/// Locks a directory as [`lock`] does, but fails with the error of `in_use` where that returns `None`.
pub fn hold(directory: &Path, in_use: impl FnOnce() -> Error) -> Result<DirectoryLock> {
    lock(directory).map_err(Error::at("locking", directory))?.ok_or_else(in_use)
}

/// Locks a directory of a key. Fails with [`Error::InUse`] if another process works on the key.
pub fn hold_key(directory: &Path, name_email: &NameEmail) -> Result<DirectoryLock> {
    hold(directory, || Error::InUse(name_email.clone()))
}
