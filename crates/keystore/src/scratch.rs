//! A directory for one test, which is removed with the test.

use tempfile::TempDir;

/// Creates the directory.
#[allow(clippy::expect_used)]
pub fn scratch() -> TempDir {
    tempfile::Builder::new().prefix("ckg-").tempdir().expect("a test needs a directory")
}
