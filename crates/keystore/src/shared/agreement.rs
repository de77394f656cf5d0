//! The interface to the service that decides, for several hosts, which key of an identity counts.

use std::fmt::Debug;

use crate::error::Result;
use crate::identity::NameEmail;

/// The agreed value of an identity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Agreed {
    /// The revision of the value, which grows with every change. It is 0 if nothing was ever agreed on.
    pub revision: u64,
    /// A key, or the statement that it was removed; see [`crate::Shared`]. `None` if nothing was ever agreed
    /// on.
    pub value: Option<Vec<u8>>,
}

/// Decides which key of an identity counts. Every method fails with [`crate::Error::NoAgreement`] if no
/// decision is possible now.
pub trait Agreement: Debug + Send + Sync {
    /// Fails unless a decision is possible now.
    fn answers(&self) -> Result<()>;

    /// Returns the current value. The read must be linearizable: nobody can have been told of a later value.
    fn look(&self, name_email: &NameEmail) -> Result<Agreed>;

    /// Replaces the value whose revision is `over` with `value`. Returns `None` on success. If the revision is
    /// another one, returns the value that counts instead.
    fn put(&self, name_email: &NameEmail, over: u64, value: &[u8]) -> Result<Option<Agreed>>;
}
