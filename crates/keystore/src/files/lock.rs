//! Locks on directories (flock(2)): they tell live work from dead, and keep two processes from doing
//! the same work. They never decide which of two results counts.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

/// Locks a directory for as long as the result lives. `None` when another process holds it, has
/// removed it or has put another one in its place.
pub fn lock(directory: &Path) -> io::Result<Option<Flock<File>>> {
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
        Ok(now) if now.ino() == lock.metadata()?.ino() => Ok(Some(lock)),
        Ok(_) => Ok(None),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}
