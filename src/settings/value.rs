//! The value of one setting, which may be wrong without anybody needing it.

use crate::error::{Error, Result};

/// A value, or what is wrong with it: only a mode that needs the setting fails.
#[derive(Clone, Debug)]
pub struct Value<T>(std::result::Result<T, String>);

impl<T> Value<T> {
    /// What a parser made of a text.
    pub(super) fn new(parsed: std::result::Result<T, String>) -> Self {
        Self(parsed)
    }

    /// The value, or [`Error::Settings`] with what is wrong with it.
    pub fn get(&self) -> Result<&T> {
        self.0.as_ref().map_err(|fault| Error::Settings(fault.clone()))
    }
}

impl<T> From<T> for Value<T> {
    fn from(value: T) -> Self {
        Self(Ok(value))
    }
}
