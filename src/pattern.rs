//! Shell patterns of identities, as used in tokens and access rules.

use std::collections::BTreeSet;

use glob::Pattern;
use keystore::identity::FIELD_MAX;

/// Parses a shell pattern of identities.
pub fn parse_pattern(text: &str) -> Result<Pattern, &'static str> {
    let wrong = "the pattern must be a shell pattern of names like '*#*@copr.example.org'";
    if text.len() > FIELD_MAX || text.contains(|c: char| c.is_control() || c.is_whitespace()) {
        return Err(wrong);
    }
    Pattern::new(text).map_err(|_| wrong)
}

/// The part of an identity that the last character read belongs to. [`NameEmail::parse`] defines the syntax.
///
/// [`NameEmail::parse`]: keystore::NameEmail::parse
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Place {
    Start,
    At,
    Owner,
    Project,
    Domain,
}

impl Place {
    /// Returns the place after reading `c`, or `None` if no identity has `c` at this point.
    fn after(self, c: char) -> Option<Self> {
        let is_word = c == '_' || c.is_alphanumeric();
        match (self, c) {
            (Self::Start | Self::At, '@') => Some(Self::At),
            (Self::Owner, '#') => Some(Self::Project),
            (Self::Project, '@') => Some(Self::Domain),
            (Self::Start, _) if is_word => Some(Self::Owner),
            (Self::At, _) if is_word || ".-".contains(c) => Some(Self::Owner),
            (Self::Owner | Self::Project | Self::Domain, _) if is_word || ".-".contains(c) => {
                Some(self)
            }
            _ => None,
        }
    }
}

/// Whether some identity can match `pattern`. Runs the pattern as a state machine: after each piece of it,
/// tracks the set of places an identity can have reached.
pub fn matches_some_identity(pattern: &Pattern) -> bool {
    let mut rest = pattern.as_str();
    let mut places = BTreeSet::from([Place::Start]);
    while let Some(piece) = first_piece(rest) {
        rest = &rest[piece.as_str().len()..];
        if piece.as_str() == "*" {
            // An identity passes through five places at most, so five rounds reach every place.
            for _ in 0..5 {
                places.extend(behind(&places, &piece));
            }
        } else {
            places = behind(&places, &piece);
        }
    }
    places.contains(&Place::Domain) && !pattern.as_str().ends_with(".lock")
}

/// Returns the first piece of a pattern: the shortest prefix that is a valid pattern. This is `*`, or something
/// that matches exactly one character.
fn first_piece(text: &str) -> Option<Pattern> {
    let ends = text.char_indices().map(|(at, c)| at + c.len_utf8());
    ends.filter_map(|end| Pattern::new(&text[..end]).ok()).next()
}

/// Returns the places that can follow `places` after one character that matches `piece`. Tries the printable
/// ASCII characters and those that `piece` contains; they represent all others.
fn behind(places: &BTreeSet<Place>, piece: &Pattern) -> BTreeSet<Place> {
    let characters = (' '..='~').chain(piece.as_str().chars());
    let matching = characters.filter(|c| piece.matches(c.encode_utf8(&mut [0; 4])));
    matching.flat_map(|c| places.iter().filter_map(move |place| place.after(c))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use keystore::NameEmail;
    use proptest::prelude::*;

    #[test]
    fn what_no_identity_can_look_like_is_known() {
        for (text, expected) in [
            ("*", true),
            ("**", true),
            ("*#*", true),
            ("?*", true),
            ("?#?", true),
            ("user#project@copr.example.org", true),
            ("@group#*@copr.example.org", true),
            ("@@a#b@c", true),
            ("*#*@*.example.[com][or]?", true),
            ("*@*", true),
            ("a*c", true),
            ("a#@", true),
            ("[]x]#b@c", true),
            ("[!a]#b@c", true),
            ("[#-@]*", true),
            ("[ä-ü]#b@c", true),
            ("ünï#cödé@c", true),
            ("*lock", true),
            ("", false),
            ("??", false),
            ("copr", false),
            ("copr.example.org", false),
            ("*.lock", false),
            ("-*", false),
            (".*", false),
            ("#*", false),
            ("@#*", false),
            ("a#b", false),
            ("a@b#*", false),
            ("*#*#*", false),
            ("*#*@*@*", false),
            ("*#*@*:*", false),
            ("*/*", false),
            ("[:/]*", false),
            ("[-.#]*", false),
            ("127.0.0.1", false),
            ("::1", false),
            ("unix:copr", false),
            ("'*'", false),
        ] {
            let pattern = parse_pattern(text).unwrap_or_else(|why| panic!("{text}: {why}"));
            assert_eq!(matches_some_identity(&pattern), expected, "{text:?}");
        }
    }

    fn identity() -> impl Strategy<Value = String> {
        "@{0,2}[a-cä_][a-c.-]{0,3}#[a-c._-]{0,3}@[a-c.]{0,3}"
            .prop_filter("no identity", |text| NameEmail::parse(text).is_ok())
    }

    proptest! {
        #[test]
        fn a_pattern_that_an_identity_matches_is_taken(
            identity in identity(),
            kinds in proptest::collection::vec(0..8, 16),
        ) {
            let piece = |(c, kind)| match kind {
                0 => "*".into(),
                1 => "?".into(),
                2 => format!("[x{c}]"),
                3 => "[!x]".into(),
                _ => String::from(c),
            };
            let text: String = identity.chars().zip(kinds).map(piece).collect();
            // A run of three or more stars is not a valid pattern.
            if let Ok(pattern) = parse_pattern(&text.replace("**", "*").replace("**", "*")) {
                prop_assert!(pattern.matches(&identity) && matches_some_identity(&pattern));
            }
        }

        #[test]
        fn no_identity_matches_a_pattern_that_is_refused(
            text in "[ab@#*?.:-]{0,8}",
            identities in proptest::collection::vec(identity(), 64),
        ) {
            if let Ok(pattern) = parse_pattern(&text) {
                let matches = identities.iter().any(|identity| pattern.matches(identity));
                prop_assert!(!matches || matches_some_identity(&pattern));
            }
        }
    }
}
