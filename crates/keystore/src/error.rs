//! Every way in which keeping keys can fail. Each error displays as the sentence that an operator reads. No
//! variant ever carries a secret.

use std::io;
use std::path::{Path, PathBuf};

use crate::identity::NameEmail;

/// The result of everything here that can fail.
pub type Result<T> = std::result::Result<T, Error>;

/// What went wrong. `Display` is the sentence for the operator, in the log or on the terminal.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// GnuPG failed, or the system did.
    #[error(transparent)]
    Gpg(#[from] gpg::Error),

    /// A setting is wrong, wherever it was set.
    #[error("{0}")]
    Settings(String),

    /// A gpg command line is refused and was not run.
    #[error("not run: {0}")]
    Arguments(String),

    /// The command line asks for something impossible.
    #[error("{0}")]
    Usage(String),

    /// There is no key of this identity.
    #[error("there is no key of {0}")]
    NoKey(NameEmail),

    /// Another process of copr-keygen is working on the key.
    #[error("the key of {0} is being worked on by another process; try again when that is done")]
    InUse(NameEmail),

    /// An input, or something in the state, is not what it must be. Nothing was changed.
    #[error("{0}")]
    Refused(String),

    /// SIGINT or SIGTERM told a mode to stop before it was done.
    #[error("interrupted by {signal}: {left}")]
    Interrupted {
        /// The signal.
        signal: nix::sys::signal::Signal,
        /// What is left undone, and how to go on.
        left: String,
    },

    /// The agreement between the hosts does not answer, or refuses. After a failed change it may be unknown
    /// whether the change was made.
    #[error("{0}")]
    NoAgreement(String),

    /// Some of many things failed; each has been reported by itself.
    #[error("{0}")]
    Partly(String),

    /// The state directory holds the keyring of another service. Nothing is made beside that keyring, because
    /// any write there would overwrite it.
    #[error(
        "{path} holds the keys of another service, such as the old copr-keygen, so nothing was changed; \
         take its keys over with: {remedy}"
    )]
    OldKeyring {
        /// The keyring.
        path: PathBuf,
        /// The command that takes the keys over.
        remedy: String,
    },

    /// A foreign file stands where a link or a file of copr-keygen has to be. It may be the only copy of a
    /// key or of a passphrase, so it is never replaced.
    #[error(
        "{path} is {what}; it may be somebody's only copy, so it was left alone and nothing was changed; \
         keep it elsewhere, then try again: {remedy}"
    )]
    Occupied {
        /// The path of the foreign file.
        path: PathBuf,
        /// What kind of thing it is.
        what: &'static str,
        /// The command that moves it away.
        remedy: String,
    },
}

impl Error {
    /// Wraps a system error; see [`gpg::Error::io`].
    pub fn io(doing: impl Into<String>, source: io::Error) -> Self {
        gpg::Error::io(doing, source).into()
    }

    /// Returns a function that turns a system error into an [`Error`] that says what was done with `path`.
    /// Use it as in `map_err(Error::at("reading", path))`.
    pub fn at<E: Into<io::Error>>(doing: &'static str, path: &Path) -> impl Fn(E) -> Self + Copy {
        move |source| Self::io(format!("{doing} {}", path.display()), source.into())
    }

    /// Returns the error for something in a home that is not as it must be; see [`gpg::Error::DamagedHome`].
    pub fn damaged(path: &Path, reason: impl Into<String>) -> Self {
        gpg::Error::DamagedHome { path: path.into(), reason: reason.into() }.into()
    }

    /// Whether the error says that something in a home is not as it must be.
    pub fn is_damage(&self) -> bool {
        matches!(self, Self::Gpg(gpg::Error::DamagedHome { .. }))
    }

    /// Returns the error for work that is under way elsewhere, or that too many requests wait for; see
    /// [`gpg::Error::Busy`].
    pub fn busy(why: impl Into<String>) -> Self {
        gpg::Error::Busy(why.into()).into()
    }

    /// Returns the error for a full file system of the state directory; see [`gpg::Error::state_full`].
    pub fn state_full(doing: impl Into<String>) -> Self {
        gpg::Error::state_full(doing).into()
    }
}
