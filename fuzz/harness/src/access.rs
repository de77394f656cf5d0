//! Authentication: the file of tokens, and the token that a client presents.

use copr_keygen::http::auth;
use copr_keygen::http::tokens::Tokens;

use super::accepted;

/// A word longer than this may be a token, or a token with a mistake in it.
const WORD_MAX: usize = 20;

/// Parses a file of tokens. An error message must not quote a token.
pub fn tokens(data: &[u8]) {
    let words = String::from_utf8_lossy(data);
    let long = words.split(|c: char| !c.is_ascii_alphanumeric()).filter(|w| w.len() > WORD_MAX);
    match Tokens::parse(data) {
        Err(why) => {
            for word in long {
                assert!(!why.contains(word), "{why}");
            }
            accepted(Err::<(), _>(why));
        }
        Ok(tokens) => {
            assert!(tokens.count() > 0);
            assert!(tokens.find(b"").is_none() && tokens.find(data).is_none());
            // A token that stands in the file in the clear is found. `sha256:HASH` stands for another token,
            // so that text itself is not found. (It would be if another line had the hash of this very text.)
            let words = words.strip_prefix('\u{feff}').unwrap_or(&words);
            let lines = words.lines().map(str::trim).filter(|line| !line.starts_with('#'));
            for token in
                lines.filter_map(|line| line.split([' ', '\t']).filter(|w| !w.is_empty()).nth(1))
            {
                assert_eq!(tokens.find(token.as_bytes()).is_some(), !token.starts_with("sha256:"));
            }
        }
    }
}

/// Parses the value of an `Authorization` header.
pub fn authorization(data: &[u8]) {
    if let Some(token) = auth::presented(data) {
        assert!(token.len() < data.len());
        let is_bearer = data.get(..7).is_some_and(|it| it.eq_ignore_ascii_case(b"bearer "));
        let is_basic = data.get(..6).is_some_and(|it| it.eq_ignore_ascii_case(b"basic "));
        assert!(is_bearer || is_basic);
        assert!(
            !is_bearer
                || data.ends_with(&token)
                || data.last().is_some_and(u8::is_ascii_whitespace)
        );
    }
}
