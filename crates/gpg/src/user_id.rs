//! The user ID of a key. Once parsed, it contains nothing that gpg could take for syntax.

use crate::error::{Error, Result};
use crate::text::is_misleading;

/// The maximum length of each part of a user ID, in bytes.
pub const PART_MAX: usize = 200;

/// An OpenPGP user ID: `name_real (name_comment) <name_email>`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserId {
    name_real: String,
    name_comment: Option<String>,
    name_email: String,
}

impl UserId {
    /// Parses the parts. White space around a part is dropped, because gpg drops it too. An empty comment
    /// counts as none.
    pub fn parse(name_real: &str, name_comment: Option<&str>, name_email: &str) -> Result<Self> {
        let name_real = parse_part("name_real", name_real, &['<', '>'])?;
        if name_real.is_empty() {
            return Err(Error::Field { field: "name_real", reason: "is empty".into() });
        }
        let parse_comment = |text| parse_part("name_comment", text, &['<', '>', '(', ')']);
        let name_comment = name_comment.map(parse_comment).transpose()?;
        let name_comment = name_comment.filter(|text| !text.is_empty());
        let name_email = parse_part("name_email", name_email, &['<', '>'])?;
        Ok(Self { name_real, name_comment, name_email })
    }

    /// The name, never empty.
    pub fn name_real(&self) -> &str {
        &self.name_real
    }

    /// The comment, never empty when there is one.
    pub fn name_comment(&self) -> Option<&str> {
        self.name_comment.as_deref()
    }

    /// The mail address.
    pub fn name_email(&self) -> &str {
        &self.name_email
    }
}

fn parse_part(field: &'static str, text: &str, forbidden: &[char]) -> Result<String> {
    let refuse = |reason: String| Err(Error::Field { field, reason });
    if text.len() > PART_MAX {
        return refuse(format!("is longer than {PART_MAX} bytes"));
    }
    if text.chars().any(is_misleading) {
        return refuse("holds a control character or a line break".into());
    }
    if let Some(c) = text.chars().find(|c| forbidden.contains(c)) {
        return refuse(format!("must not hold '{c}'"));
    }
    Ok(text.trim().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn user_ids_hold_no_syntax_of_their_own() -> Result<()> {
        let id = "a#b@c";
        for bad in
            ["", "  ", "a\nKey-Length: 512", "a\rb", "a\0b", "a<b", "a>b", "\u{7f}", "\u{85}"]
        {
            assert!(UserId::parse(bad, None, id).is_err(), "{bad:?}");
        }
        assert!(UserId::parse(&"x".repeat(201), None, id).is_err());
        for bad in ["a(b", "a)b", "a\nb", "a<b"] {
            assert!(UserId::parse("a", Some(bad), id).is_err(), "{bad:?}");
        }
        assert!(UserId::parse("a", None, "a#b@c\n%commit").is_err());
        let user = UserId::parse(" a (b) c ", Some(" "), id)?;
        assert_eq!((user.name_real(), user.name_comment()), ("a (b) c", None));
        Ok(())
    }
}
