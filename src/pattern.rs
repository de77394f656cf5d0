//! Shell patterns of identities, as tokens and rules of access have them.

use glob::Pattern;
use keystore::identity::FIELD_MAX;

/// A shell pattern of identities.
pub fn parse_pattern(text: &str) -> Result<Pattern, &'static str> {
    let wrong = "the pattern must be a shell pattern of names like '*#*@copr.example.org'";
    if text.len() > FIELD_MAX || text.contains(|c: char| c.is_control() || c.is_whitespace()) {
        return Err(wrong);
    }
    Pattern::new(text).map_err(|_| wrong)
}
