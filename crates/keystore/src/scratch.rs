//! A directory for one test, gone with it.

use tempfile::TempDir;

/// Makes the directory.
#[allow(clippy::expect_used)]
pub fn scratch() -> TempDir {
    tempfile::Builder::new().prefix("ckg-").tempdir().expect("a test needs a directory")
}
