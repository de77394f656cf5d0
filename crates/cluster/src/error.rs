//! Every way in which etcd can fail us, with the sentence that an operator reads.

/// The result of everything here that can fail.
pub type Result<T> = std::result::Result<T, Error>;

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

impl From<Error> for keystore::Error {
    fn from(error: Error) -> Self {
        match error {
            Error::Settings(why) => Self::Settings(why),
            error => Self::NoAgreement(error.to_string()),
        }
    }
}
