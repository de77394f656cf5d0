//! Every way in which running GnuPG can fail, with the sentence that an operator reads. No variant carries a
//! secret.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

/// The result of every fallible function of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// A failure. `Display` gives the sentence for the operator, in the log or on the terminal.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The clock contradicts the date of a key, or is certainly wrong. No decision was made by it.
    #[error("{0}")]
    Clock(String),

    /// A part of a user ID is not acceptable.
    #[error("{field}: {reason}")]
    Field {
        /// The name of the part.
        field: &'static str,
        /// Why it is not acceptable.
        reason: String,
    },

    /// Too much work is going on. The same call may succeed later.
    #[error("too busy: {0}")]
    Busy(String),

    /// A file system is full, or a quota is used up.
    #[error("{shortage}: {doing}; {}", .shortage.remedy(.disk))]
    NoSpace {
        /// The action that failed, with its file or stream.
        doing: String,
        /// The file system that is full.
        disk: FullDisk,
        /// What ran out.
        shortage: Shortage,
    },

    /// gpg or gpg-agent could not be started.
    #[error(
        "{program} could not be started: {source}; install GnuPG or correct the setting `{setting}`"
    )]
    Missing {
        /// The program as configured.
        program: PathBuf,
        /// The setting that names it.
        setting: &'static str,
        /// Why it did not start.
        source: io::Error,
    },

    /// gpg did not finish in time and was killed.
    #[error("gpg was killed after {:.1} s without finishing: {words}", .after.as_secs_f32())]
    TimedOut {
        /// How long it had run.
        after: Duration,
        /// Its messages on stderr until then.
        words: String,
    },

    /// gpg ended without doing its task.
    #[error("gpg failed ({how}): {words}")]
    Failed {
        /// The exit status or signal, or what is missing in its output.
        how: String,
        /// Its messages on stderr.
        words: String,
    },

    /// A home is damaged. It is never replaced, because it may hold the only copy of the key.
    #[error("the home of this key is damaged: {path}: {reason}; restore it from a backup")]
    DamagedHome {
        /// The file or directory that is wrong.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },

    /// A system call failed.
    #[error("{doing}: {source}{}", remedy(.source))]
    Io {
        /// The action that failed, with its path.
        doing: String,
        /// The system's reason.
        source: io::Error,
    },
}

/// Which file system is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FullDisk {
    /// The file system of the state directory, where gpg works and keys are kept.
    State,
    /// The file system of the file or stream that the error names.
    Named,
}

/// What ran out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shortage {
    /// The file system has no space or no inodes left (`ENOSPC`).
    Space,
    /// The quota of the user on the file system is used up (`EDQUOT`).
    Quota,
}

impl std::fmt::Display for Shortage {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str(match self {
            Self::Space => "no space left",
            Self::Quota => "no space left within the quota of this user",
        })
    }
}

impl Shortage {
    fn remedy(self, disk: &FullDisk) -> &'static str {
        match (self, disk) {
            (Self::Space, FullDisk::State) => {
                "make room on the file system of the state directory, nothing was changed"
            }
            (Self::Space, FullDisk::Named) => "make room there, then try again",
            (Self::Quota, _) => "raise the quota or make room within it, then try again",
        }
    }
}

/// Returns what the operator can do about a file that cannot be written; empty for any other failure.
fn remedy(source: &io::Error) -> &'static str {
    match source.raw_os_error() {
        Some(libc::EROFS) => {
            "; mount it for writing, or name its directory in ReadWritePaths= if a unit of systemd does \
             this"
        }
        Some(libc::EFBIG) => {
            "; raise the limit on the size of files (ulimit -f, LimitFSIZE= of a unit), or write to a \
             file system that takes larger ones"
        }
        _ => "",
    }
}

impl Error {
    /// Wraps a system error. `doing` must name the file or stream.
    ///
    /// Two conditions may pass while a client waits, and have variants of their own. [`Error::NoSpace`] is for
    /// a full file system or quota. [`Error::Busy`] is for a lack of file descriptors, processes or memory.
    pub fn io(doing: impl Into<String>, source: io::Error) -> Self {
        let doing = doing.into();
        let no_space = |doing, shortage| Self::NoSpace { doing, disk: FullDisk::Named, shortage };
        match source.raw_os_error() {
            Some(libc::ENOSPC) => no_space(doing, Shortage::Space),
            Some(libc::EDQUOT) => no_space(doing, Shortage::Quota),
            Some(libc::EMFILE | libc::ENFILE | libc::EAGAIN | libc::ENOMEM) => {
                Self::Busy(format!("{doing}: {source}"))
            }
            _ => Self::Io { doing, source },
        }
    }

    /// Whether gpg-agent cannot read the secret key that it has just written. GnuPG 2.2 and 2.3 spoil one in
    /// some ten thousand keys. They write a salt or nonce that looks like text as a string. They lose a byte of
    /// it if that has two spaces side by side, and the rest of the file if it has a byte 0. The next key is no
    /// more likely to be spoiled.
    pub fn is_spoiled_key(&self) -> bool {
        const SAID: [&str; 2] = ["Corrupted protection", "Unmatched parentheses in S-expression"];
        matches!(self, Self::Failed { words, .. } if SAID.iter().any(|said| words.contains(said)))
    }

    /// The error that `doing` failed because the file system of the state directory is full.
    pub fn state_full(doing: impl Into<String>) -> Self {
        Self::NoSpace { doing: doing.into(), disk: FullDisk::State, shortage: Shortage::Space }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_written_is_named_with_a_remedy_of_its_own() {
        let text = |code| Error::io("writing /x", io::Error::from_raw_os_error(code)).to_string();
        let full = "no space left: writing /x; make room there, then try again";
        assert_eq!(text(libc::ENOSPC), full);
        for (code, words) in [
            (libc::EDQUOT, "the quota of this user: writing /x; raise the quota"),
            (libc::EROFS, "writing /x: Read-only file system (os error 30); mount it"),
            (libc::EFBIG, "writing /x: File too large (os error 27); raise the limit"),
        ] {
            let said = text(code);
            assert!(said.contains(words) && !said.contains("state directory"), "{said}");
        }
        assert_eq!(text(libc::EACCES), "writing /x: Permission denied (os error 13)");
        assert!(Error::state_full("making a key").to_string().contains("of the state directory"));
    }
}
