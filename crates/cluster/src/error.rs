//! Every way in which etcd can fail, with the sentence that an operator reads.

/// The result of every fallible function of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// The maximum number of characters that are shown of a server's message.
pub const WORDS_MAX: usize = 300;

/// A failure. No variant carries a value from etcd.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A setting is wrong.
    #[error("{0}")]
    Settings(String),

    /// No member of etcd has answered in time. It is unknown whether a change was made.
    #[error("etcd does not answer: {0}")]
    Unreachable(String),

    /// etcd has answered that it refuses the request.
    #[error("etcd refuses: {0}")]
    Refused(String),

    /// etcd no longer keeps the revisions that were asked for.
    #[error("etcd has compacted the changes up to revision {0}")]
    Compacted(u64),
}

impl Error {
    /// The error that etcd's database has reached its quota.
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
