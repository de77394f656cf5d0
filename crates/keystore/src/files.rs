//! Safe file operations: reads that links and pipes cannot mislead, writes that survive a crash,
//! locks, and removal.

pub(crate) mod durable;
pub(crate) mod lock;
pub(crate) mod small_files;

use std::ffi::OsString;
use std::fs::{self, DirBuilder, Metadata};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::error::{Error, Result};
use crate::layout::DIRECTORY_MODE;

/// Identifies a file or directory as long as it exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FileId {
    device: u64,
    inode: u64,
}

impl From<&Metadata> for FileId {
    fn from(found: &Metadata) -> Self {
        Self { device: found.dev(), inode: found.ino() }
    }
}

/// Identifies one version of a file's content. A later version is a new file, or has another length or time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileVersion {
    id: FileId,
    length: u64,
    /// When the content was last changed.
    pub modified: SystemTime,
}

impl FileVersion {
    /// Returns the version of the file with the metadata `found`.
    pub fn of(found: &Metadata) -> io::Result<Self> {
        Ok(Self { id: found.into(), length: found.len(), modified: found.modified()? })
    }
}

/// Whether an error says that a file or directory does not exist. Any other error leaves open
/// whether it exists.
pub fn is_missing(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENOTDIR))
}

/// Returns `None` in place of the error that a file does not exist.
pub fn if_there<T>(found: io::Result<T>) -> io::Result<Option<T>> {
    match found {
        Err(e) if is_missing(&e) => Ok(None),
        found => found.map(Some),
    }
}

/// Returns the metadata of what is at `path`, without following links; `None` if nothing is there.
pub fn look(path: &Path) -> Result<Option<Metadata>> {
    if_there(fs::symlink_metadata(path)).map_err(Error::at("looking at", path))
}

/// Whether there is something at `path`. Fails if that cannot be known.
pub fn is_there(path: &Path) -> Result<bool> {
    Ok(look(path)?.is_some())
}

/// Returns the paths of all entries of a directory. Fails rather than return only some of them.
pub fn entries(directory: &Path) -> Result<Vec<PathBuf>> {
    let reading = Error::at("reading", directory);
    let entries = fs::read_dir(directory).map_err(reading)?;
    entries.map(|entry| entry.map(|entry| entry.path()).map_err(reading)).collect()
}

/// Returns the paths as [`entries`] does; no paths if there is no directory.
pub fn entries_if_there(directory: &Path) -> Result<Vec<PathBuf>> {
    Ok(names_in(directory)?.into_iter().map(|name| directory.join(name)).collect())
}

/// Returns the names in a directory; no names if there is no directory. Fails rather than return
/// only some of them.
pub fn names_in(directory: &Path) -> Result<Vec<OsString>> {
    let reading = Error::at("reading", directory);
    match if_there(fs::read_dir(directory)).map_err(reading)? {
        Some(entries) => {
            entries.map(|entry| entry.map(|entry| entry.file_name()).map_err(reading)).collect()
        }
        None => Ok(Vec::new()),
    }
}

/// Creates a directory that only its owner can access.
pub fn make_directory(path: &Path) -> Result<()> {
    DirBuilder::new().mode(DIRECTORY_MODE).create(path).map_err(Error::at("making", path))
}

/// Creates a directory as [`make_directory`] does, unless something is there already.
pub fn ensure_directory(path: &Path) -> io::Result<()> {
    match DirBuilder::new().mode(DIRECTORY_MODE).create(path) {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        made => made,
    }
}

/// Removes a file or a link, if it exists.
pub fn remove_file(path: &Path) -> Result<()> {
    if_there(fs::remove_file(path)).map(drop).map_err(Error::at("removing", path))
}

/// Removes a symbolic link that leads to nothing. Leaves anything else alone, and logs a failure.
pub fn remove_dangling(link: &Path) {
    let is_link = fs::symlink_metadata(link).is_ok_and(|found| found.is_symlink());
    if is_link && fs::metadata(link).is_err_and(|e| e.kind() == io::ErrorKind::NotFound) {
        if let Err(e) = remove_file(link) {
            log::warn!("{e}; it is a link to nothing");
        }
    }
}

/// Removes a directory and everything below it. A gpg-agent that is about to die may still write there, so a
/// failed removal is tried again.
pub fn remove_tree(directory: &Path) -> Result<()> {
    let mut tries = 0;
    loop {
        match fs::remove_dir_all(directory) {
            Ok(()) => return Ok(()),
            Err(e) if e.kind() == io::ErrorKind::NotFound && !directory.exists() => return Ok(()),
            Err(e) if tries == 3 => return Err(Error::at("removing", directory)(e)),
            Err(_) => tries += 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scratch::scratch;

    #[test]
    fn what_cannot_be_told_is_no_answer() -> Result<()> {
        let root = scratch();
        let (file, circle) = (root.path().join("file"), root.path().join("circle"));
        assert!(fs::write(&file, "").is_ok());
        assert!(std::os::unix::fs::symlink("circle", &circle).is_ok());
        for nothing in [root.path().join("nothing"), file.join("nothing")] {
            assert!(!is_there(&nothing)?);
            assert!(names_in(&nothing)?.is_empty());
        }
        assert!(is_there(&circle.join("x")).is_err());
        assert!(names_in(&circle).is_err() && entries_if_there(&circle).is_err());
        assert!(crate::home::record::secret_keys(&circle).is_err());
        assert_eq!(names_in(root.path())?.len(), 2);
        Ok(())
    }
}
