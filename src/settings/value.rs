//! The value of one setting. It may be invalid, which is an error only where it is needed.

use crate::error::{Error, Result};

/// A parsed value, or the reason why it is invalid. Only modes that need the setting fail.
#[derive(Clone, Debug)]
pub struct Value<T>(std::result::Result<T, String>);

impl<T> Value<T> {
    /// Wraps the result of a parser.
    pub(super) fn new(parsed: std::result::Result<T, String>) -> Self {
        Self(parsed)
    }

    /// Returns the value. Fails with [`Error::Settings`] if it is invalid.
    pub fn get(&self) -> Result<&T> {
        self.0.as_ref().map_err(|fault| Error::Settings(fault.clone()))
    }
}

impl<T> From<T> for Value<T> {
    fn from(value: T) -> Self {
        Self(Ok(value))
    }
}
