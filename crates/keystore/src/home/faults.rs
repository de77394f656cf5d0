//! What may be wrong with a home, or with one file or directory of the state.

use std::ffi::OsStr;
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::error::Error;
use crate::layout::{DIRECTORY_MODE, FILE_MODE, RECORD};

/// Something in a home that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The key cannot be used: the path of the file or directory that is missing, empty or too much, and what
    /// is wrong with it.
    Damage(PathBuf, String),
    /// The home is empty. It is what is left of an identity that has no key.
    Empty,
    /// There is no revocation certificate at this path. The key signs without it.
    NoRevocation(PathBuf),
    /// `key.json` is missing or does not agree with the files beside it.
    Record(String),
    /// Something has a wrong mode: its path, the mode found, and the mode wanted.
    Mode(PathBuf, u32, u32),
    /// Something has a wrong owner: its path, and the uid found.
    Owner(PathBuf, u32),
    /// A file that does not belong into a home.
    Strange(PathBuf),
    /// A trust database, which no home needs.
    TrustDatabase(PathBuf),
}

/// Whether everything needed to sign is there.
pub fn is_whole(faults: &[Fault]) -> bool {
    !faults.iter().any(|fault| matches!(fault, Fault::Damage(..) | Fault::Empty))
}

/// Returns the faults in owner and mode of one file or directory of the state.
pub fn judge(path: &Path, found: &Metadata, owner: u32) -> Vec<Fault> {
    let mut faults = Vec::new();
    if owner != found.uid() {
        faults.push(Fault::Owner(path.into(), found.uid()));
    }
    let wanted = match found.file_type() {
        kind if kind.is_dir() => DIRECTORY_MODE,
        kind if kind.is_file() => FILE_MODE,
        _ => return faults,
    };
    // Directories in a volume of a group inherit its set-group-ID bit, which gives nobody access.
    let inherited = if found.is_dir() { 0o2000 } else { 0 };
    let mode = found.mode() & 0o7777 & !inherited;
    if mode != wanted {
        faults.push(Fault::Mode(path.into(), mode, wanted));
    }
    faults
}

impl Fault {
    /// Whether the fault is that the file `name` of the home is missing.
    pub fn is_missing(&self, name: &str) -> bool {
        matches!(self, Self::Damage(path, why) if path.ends_with(name) && why == "is missing")
    }

    /// Returns this fault of the home `home` as an error.
    pub fn error(&self, home: &Path) -> Error {
        match self {
            Self::Damage(path, why) => Error::damaged(path, why.as_str()),
            Self::Record(why) => Error::damaged(&home.join(RECORD), why.as_str()),
            Self::Empty => Error::damaged(home, "is empty"),
            Self::NoRevocation(path) => Error::damaged(path, "holds no revocation certificate"),
            Self::Owner(path, uid) => Error::damaged(path, format!("belongs to uid {uid}")),
            Self::Mode(path, mode, wanted) => {
                let open = if mode & 0o077 == 0 { "" } else { ", others could read it" };
                Error::damaged(path, format!("has mode {mode:03o} instead of {wanted:03o}{open}"))
            }
            Self::Strange(path) | Self::TrustDatabase(path) => {
                Error::damaged(path, "does not belong into a home")
            }
        }
    }
}

/// Returns the sort key of a fault. The most important fault sorts first.
pub fn rank(fault: &Fault) -> (u8, &OsStr) {
    match fault {
        Fault::Damage(path, _) => (0, path.as_os_str()),
        Fault::Empty => (1, OsStr::new("")),
        Fault::Record(_) => (2, OsStr::new("")),
        Fault::Owner(path, _) => (3, path.as_os_str()),
        Fault::Mode(path, ..) => (4, path.as_os_str()),
        Fault::NoRevocation(path) => (5, path.as_os_str()),
        Fault::TrustDatabase(path) => (6, path.as_os_str()),
        Fault::Strange(path) => (7, path.as_os_str()),
    }
}
