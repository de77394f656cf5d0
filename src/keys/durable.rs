//! Making what was written survive a power cut.

use std::fs::{self, File};
use std::path::Path;

use crate::error::{Error, Result};

/// Writes a file or directory through to the disk.
pub fn sync(path: &Path) -> Result<()> {
    File::open(path)
        .and_then(|file| file.sync_all())
        .map_err(|e| Error::io(format!("writing {} through to the disk", path.display()), e))
}

/// Writes a directory and all below it through to the disk.
pub fn sync_tree(directory: &Path) -> Result<()> {
    let reading = |e| Error::io(format!("reading {}", directory.display()), e);
    for entry in fs::read_dir(directory).map_err(reading)? {
        let entry = entry.map_err(reading)?;
        if entry.file_type().map_err(reading)?.is_dir() {
            sync_tree(&entry.path())?;
        } else {
            sync(&entry.path())?;
        }
    }
    sync(directory)
}
