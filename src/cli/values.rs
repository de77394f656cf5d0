//! Parsers of option values that more than one mode has.

use gpg::Lifetime;
use keystore::NameEmail;

pub fn name_email(text: &str) -> Result<NameEmail, String> {
    NameEmail::parse(text).map_err(|e| e.to_string())
}

/// A span of time that is longer than nothing.
pub fn span(text: &str) -> Result<Lifetime, String> {
    match Lifetime::parse_span(text)? {
        Lifetime::FOREVER => Err("must be longer than nothing".into()),
        lifetime => Ok(lifetime),
    }
}

pub fn yes_or_no(text: &str) -> Result<bool, String> {
    match text {
        "yes" => Ok(true),
        "no" => Ok(false),
        _ => Err("must be yes or no".into()),
    }
}
