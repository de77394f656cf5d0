//! Every way in which etcd can fail us, with the sentence that an operator reads.

/// The result of everything here that can fail.
pub type Result<T> = std::result::Result<T, Error>;

/// So much of what a server says is told.
pub const WORDS_MAX: usize = 300;

/// What went wrong. No variant ever carries a value of etcd.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A setting is wrong.
    #[error("{0}")]
    Settings(String),

    /// No member of etcd has answered in time. Whether a change was made is not known.
    #[error("etcd does not answer: {0}")]
    Unreachable(String),

    /// etcd has answered that it does not do this.
    #[error("etcd refuses: {0}")]
    Refused(String),

    /// Revisions that are asked for are no longer kept.
    #[error("etcd has compacted the changes up to revision {0}")]
    Compacted(u64),
}

impl Error {
    /// What etcd says when its quota is reached.
    pub fn full(words: &str) -> Self {
        Self::Refused(format!(
            "{words}: its database is full; compact and defragment it, then take the alarm off (docs/cluster.md)"
        ))
    }
}

impl From<Error> for keystore::Error {
    fn from(error: Error) -> Self {
        match error {
            Error::Settings(why) => Self::Settings(why),
            error => Self::NoAgreement(error.to_string()),
        }
    }
}
