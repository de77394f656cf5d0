//! What decides, for several hosts, which key of an identity counts.

use std::fmt::Debug;

use crate::error::Result;
use crate::identity::NameEmail;

/// What counts for an identity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Agreed {
    /// A number that grows with every change; 0 where nothing was ever agreed on.
    pub revision: u64,
    /// A key, or that one was removed; see [`crate::Shared`]. `None` where nothing was ever agreed on.
    pub value: Option<Vec<u8>>,
}

/// Decides which key of an identity counts. Every method fails with [`crate::Error::NoAgreement`] when it cannot
/// decide now.
pub trait Agreement: Debug + Send + Sync {
    /// Whether it can decide now.
    fn answers(&self) -> Result<()>;

    /// What counts now: nobody can have been told of anything later.
    fn look(&self, name_email: &NameEmail) -> Result<Agreed>;

    /// Has `value` count instead of what has counted since the revision `over`. `None` when it does; else what counts
    /// instead.
    fn put(&self, name_email: &NameEmail, over: u64, value: &[u8]) -> Result<Option<Agreed>>;
}
