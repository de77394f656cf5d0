//! A key that a client or an operator asks for.

use gpg::{KeyLength, KeyParameters, Lifetime, UserId};

use crate::error::Result;
use crate::identity::NameEmail;

/// A request for a key.
#[derive(Clone, Debug)]
pub struct KeyRequest {
    name_email: NameEmail,
    parameters: KeyParameters,
}

impl KeyRequest {
    /// Makes a request for a key of `name_email` with these names in its user ID.
    ///
    /// Fails if a name is not allowed in a user ID; see [`UserId::parse`].
    pub fn new(
        name_email: NameEmail,
        name_real: &str,
        name_comment: Option<&str>,
        length: KeyLength,
        lifetime: Lifetime,
    ) -> Result<Self> {
        let user_id = UserId::parse(name_real, name_comment, name_email.as_str())?;
        Ok(Self { name_email, parameters: KeyParameters { user_id, length, lifetime } })
    }

    /// The identity that the key is for.
    pub fn name_email(&self) -> &NameEmail {
        &self.name_email
    }

    /// The parameters that gpg gets.
    pub fn parameters(&self) -> &KeyParameters {
        &self.parameters
    }
}
