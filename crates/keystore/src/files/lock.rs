//! Locks on directories (flock(2)): they tell live work from dead, and keep two processes from doing
//! the same work. They never decide which of two results counts.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

use crate::error::{Error, Result};
use crate::files::FileId;
use crate::identity::NameEmail;

/// A lock on a directory, held as long as this lives.
pub type DirectoryLock = Flock<File>;

/// Locks a directory for as long as the result lives. `None` when another process holds it, has
/// removed it or has put another one in its place.
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

/// As [`lock`], where another process is a failure: `None` becomes the error that `in_use` makes.
pub fn hold(directory: &Path, in_use: impl FnOnce() -> Error) -> Result<DirectoryLock> {
    lock(directory).map_err(Error::at("locking", directory))?.ok_or_else(in_use)
}

/// Locks a directory of a key. [`Error::InUse`] when another process works on it.
pub fn hold_key(directory: &Path, name_email: &NameEmail) -> Result<DirectoryLock> {
    hold(directory, || Error::InUse(name_email.clone()))
}
