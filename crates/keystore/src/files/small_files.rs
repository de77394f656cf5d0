//! Reads small files, whatever is at their paths. A read does not block as on a pipe, does not fill the
//! memory, and is not led elsewhere by a link.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use zeroize::Zeroizing;

use crate::error::{Error, Result};
use crate::files::is_missing;

/// Whether a symbolic link in the place of the file is followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Symlinks {
    /// A link is followed, because an administrator may keep the file elsewhere.
    Followed,
    /// Opening a link fails with ELOOP.
    Refused,
}

/// Opens a file for reading. Returns `None` if it is not a regular file.
pub fn open_regular(path: &Path, links: Symlinks) -> io::Result<Option<File>> {
    let no_follow = if links == Symlinks::Refused { libc::O_NOFOLLOW } else { 0 };
    let file =
        OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK | no_follow).open(path)?;
    Ok(file.metadata()?.is_file().then_some(file))
}

/// Reads the first `most` bytes of a file. The memory is zeroed when it is dropped.
pub fn beginning(file: File, most: u64) -> io::Result<Zeroizing<Vec<u8>>> {
    // The buffer must never grow: that would leave copies of a secret behind.
    let room = usize::try_from(file.metadata()?.len().min(most) + 1).unwrap_or_default();
    let mut bytes = Zeroizing::new(Vec::with_capacity(room));
    file.take(most).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Reads a regular file that is not empty and has at most `limit` bytes. Does not follow a link.
///
/// Fails with [`gpg::Error::DamagedHome`] if nothing or something else is there.
pub fn read_file(path: &Path, limit: u64) -> Result<Zeroizing<Vec<u8>>> {
    let damaged = |reason: &str| Err(Error::damaged(path, reason));
    let file = match open_regular(path, Symlinks::Refused) {
        Ok(Some(file)) => file,
        Ok(None) => return damaged("is empty or not a regular file"),
        Err(e) if e.kind() == io::ErrorKind::NotFound => return damaged("is missing"),
        Err(e) if e.raw_os_error() == Some(libc::ELOOP) => return damaged("is a symbolic link"),
        Err(e) => return Err(Error::at("reading", path)(e)),
    };
    let bytes = beginning(file, limit + 1).map_err(Error::at("reading", path))?;
    match u64::try_from(bytes.len()) {
        Ok(0) => damaged("is empty or not a regular file"),
        Ok(length) if length <= limit => Ok(bytes),
        _ => damaged(&format!("is longer than {limit} bytes")),
    }
}

/// Reads the [`beginning`] of the regular file at `path`. Returns `None` if nothing or something else is
/// there. Does not follow a link.
pub fn beginning_of(path: &Path, most: u64) -> Result<Option<Zeroizing<Vec<u8>>>> {
    let file = match open_regular(path, Symlinks::Refused) {
        Err(e) if is_missing(&e) || e.raw_os_error() == Some(libc::ELOOP) => return Ok(None),
        file => file.map_err(Error::at("reading", path))?,
    };
    file.map(|file| beginning(file, most)).transpose().map_err(Error::at("reading", path))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scratch::scratch;
    use std::fs;
    use std::os::unix::fs::symlink;

    #[test]
    fn what_is_no_small_file_is_named_and_makes_nobody_wait() {
        let root = scratch();
        let path = |name: &str| root.path().join(name);
        assert!(fs::write(path("file"), "12345").is_ok());
        assert!(fs::write(path("empty"), "").is_ok());
        assert!(symlink("file", path("link")).is_ok());
        let mode = nix::sys::stat::Mode::S_IRWXU;
        assert!(nix::unistd::mkfifo(&path("pipe"), mode).is_ok());
        assert_eq!(read_file(&path("file"), 5).ok().as_deref(), Some(&b"12345".to_vec()));
        for (name, limit, why) in [
            ("file", 4, "is longer than 4 bytes"),
            ("empty", 5, "is empty or not a regular file"),
            ("pipe", 5, "is empty or not a regular file"),
            (".", 5, "is empty or not a regular file"),
            ("link", 5, "is a symbolic link"),
            ("nothing", 5, "is missing"),
        ] {
            let error = read_file(&path(name), limit).err();
            let reason = match &error {
                Some(Error::Gpg(gpg::Error::DamagedHome { reason, .. })) => reason.as_str(),
                _ => "",
            };
            assert_eq!(reason, why, "{name}: {error:?}");
        }
        for name in ["pipe", ".", "link", "nothing"] {
            assert!(matches!(beginning_of(&path(name), 3), Ok(None)), "{name}");
        }
        let beginning = beginning_of(&path("file"), 3).ok().flatten();
        assert_eq!(beginning.as_deref(), Some(&b"123".to_vec()));
        let followed = open_regular(&path("link"), Symlinks::Followed);
        assert!(followed.is_ok_and(|file| file.is_some()));
    }
}
