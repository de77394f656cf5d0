//! The identity that a key belongs to: `name_email`, parsed once and valid ever after. Only this module may
//! turn bytes from outside into a file name.

use std::fmt;

use gpg::{Error, Result};
use serde::Serialize;

/// The longest `name_email`, in bytes.
pub const FIELD_MAX: usize = gpg::PART_MAX;

/// The unique identifier of a key, like `user#project@copr.example.org` or
/// `@group#project@copr.example.org`. It is a safe file name and a safe obs-signd user: no `/`,
/// no control character, no leading `.` or `-`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct NameEmail(String);

impl NameEmail {
    /// Parses by the rule of the old service (`validate_name_email` of copr-keygen), made
    /// stricter where a file name or an option of gpg could be forged.
    pub fn parse(text: &str) -> Result<Self> {
        let refuse =
            |reason: &str| Err(Error::Field { field: "name_email", reason: reason.into() });
        if text.is_empty() {
            return refuse("is empty, must look like user#project@copr.example.org");
        }
        if text.len() > FIELD_MAX {
            return refuse("is longer than 200 bytes");
        }
        if text.starts_with(['-', '.']) {
            return refuse("must not begin with '-' or '.'");
        }
        if text.ends_with(".lock") {
            return refuse("must not end in '.lock'");
        }
        let Some((owner, rest)) = text.trim_start_matches('@').split_once('#') else {
            return refuse("has no '#', must look like user#project@copr.example.org");
        };
        if owner.is_empty() || !owner.chars().all(|c| is_word(c) || c == '.' || c == '-') {
            return refuse("may hold only letters, digits, '_', '.' and '-' before the '#'");
        }
        if rest.is_empty() || !rest.chars().all(|c| is_word(c) || matches!(c, '.' | '-' | '@')) {
            return refuse("may hold only letters, digits, '_', '.', '-' and '@' after the '#'");
        }
        if rest.matches('@').count() != 1 {
            return refuse("must hold exactly one '@' after the '#'");
        }
        Ok(Self(text.into()))
    }

    /// Returns the identity that a user ID belongs to: the one of its mail address.
    pub fn of_user_id(user_id: &str) -> Result<Self> {
        Self::parse(mail_address(user_id))
    }

    /// Whether `user_id` belongs to this identity: its mail address is exactly this identifier.
    pub fn is_in(&self, user_id: &str) -> bool {
        mail_address(user_id) == self.as_str()
    }

    /// The identifier as the client wrote it; also the name of its home below `keys/`.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for NameEmail {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

/// Returns the part of a user ID that gpg takes for the mail address.
fn mail_address(user_id: &str) -> &str {
    match user_id.strip_suffix('>').and_then(|text| text.rsplit_once('<')) {
        Some((_, address)) => address,
        None => user_id,
    }
}

/// `\w` of Python's `re` for text: alphanumeric in Unicode, or `_`.
fn is_word(c: char) -> bool {
    c == '_' || c.is_alphanumeric()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn email(text: &str) -> Result<NameEmail> {
        NameEmail::parse(text)
    }

    #[test]
    fn accepts_what_the_old_service_accepted() {
        for good in [
            "frostyx#foo@copr.fedorahosted.org",
            "@copr#foo@copr.fedorahosted.org",
            "@db-sig#foo@copr.fedorahosted.org",
            "@copr#foo-bar@copr.fedorahosted.org",
            "frostyx#foo.bar@copr.fedorahosted.org",
            "@@a#b@c",
            "jürgen#größe@copr.example.org",
            "a#@b",
            "a#b@",
        ] {
            assert_eq!(email(good).map(|e| e.as_str().to_owned()).ok().as_deref(), Some(good));
        }
    }

    #[test]
    fn refuses_what_the_old_service_refused_and_what_forges_names() {
        let long = format!("a#{}@c", "b".repeat(FIELD_MAX));
        for bad in [
            "",
            "foo",
            "user#invalid-email",
            "@copr#copr.fedorahosted.org",
            "user#foo@@copr.fedorahosted.org",
            "@c&pr#foo@copr.fedorahosted.org",
            "user#foo@copr.#!&:.org",
            "#foo@copr.org",
            "@#foo@copr.org",
            "user#",
            "../a#b@c",
            "a/b#c@d",
            "a#../b@c",
            "..#b@c",
            ".a#b@c",
            "-a#b@c",
            "--version#b@c",
            "a#b@c.lock",
            "a#b@c\n",
            "a#b@c\0",
            "a\0#b@c",
            "a#b@c\r\nKey-Type: DSA",
            "a b#c@d",
            "<a#b@c>",
            "a#b@c\u{202e}",
            &long,
        ] {
            assert!(matches!(email(bad), Err(Error::Field { field: "name_email", .. })), "{bad:?}");
        }
        assert!(email(&format!("a#{}@c", "b".repeat(FIELD_MAX - 4))).is_ok());
    }
}
