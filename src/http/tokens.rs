//! The tokens of clients, one per line: `NAME TOKEN SCOPES [PATTERN]`. Only their hashes are kept in memory.
//! Errors give the number of a line, but never any of its content.

use std::fmt::Write as _;

use base64ct::{Base64UrlUnpadded, Encoding};
use glob::Pattern;
use gpg::hex;
use rand::TryRng;
use rand::rngs::SysRng;
use sha2::{Digest, Sha256};
use subtle::{ConditionallySelectable, ConstantTimeEq};
use zeroize::Zeroizing;

use crate::error::{Error, Result};
use crate::pattern::parse_pattern;

/// The name of the systemd credential that holds the tokens.
pub const CREDENTIAL: &str = "tokens";

/// The maximum length of a name. A token is always longer, so one that stands in the wrong column is never
/// logged as a name.
const NAME_MAX: usize = 31;
/// The minimum length of a token. A random character is worth six bits.
const TOKEN_MIN: usize = 32;
const TOKEN_MAX: usize = 256;
/// The minimum number of different characters in a token. A placeholder has fewer; a random token never does.
const DIFFERENT_MIN: usize = 8;

/// A permission that a token gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// To have keys made.
    Generate,
    /// To look at keys and metrics.
    Read,
}

impl Scope {
    /// Returns the scope as it is written in the file.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Generate => "generate",
            Self::Read => "read",
        }
    }
}

/// A non-empty set of scopes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scopes(Vec<Scope>);

impl Scopes {
    /// Whether `scope` is in the set.
    pub fn hold(&self, scope: Scope) -> bool {
        self.0.contains(&scope)
    }
}

impl std::str::FromStr for Scopes {
    type Err = &'static str;

    fn from_str(text: &str) -> std::result::Result<Self, Self::Err> {
        let mut scopes = Vec::new();
        for word in text.split(',') {
            let known = [Scope::Generate, Scope::Read].into_iter().find(|s| s.as_str() == word);
            match known {
                Some(scope) if !scopes.contains(&scope) => scopes.push(scope),
                _ => return Err("the scopes must be generate, read, or generate,read"),
            }
        }
        Ok(Self(scopes))
    }
}

/// A token as it is kept in memory.
#[derive(Debug)]
pub struct ClientToken {
    /// The name of the token in the log.
    pub name: String,
    /// The scopes of the token.
    pub scopes: Scopes,
    /// The identities for which the token is valid, or `None` for all of them.
    pub pattern: Option<Pattern>,
    hash: [u8; 32],
}

/// All tokens; there is at least one.
#[derive(Debug)]
pub struct Tokens(Vec<ClientToken>);

impl Tokens {
    /// Parses the contents of a token file. The error is one sentence that quotes nothing from it.
    pub fn parse(text: &[u8]) -> std::result::Result<Self, String> {
        let mut tokens: Vec<(usize, ClientToken)> = Vec::new();
        // Some editors write a byte order mark, and end lines as Windows does.
        let text = text.strip_prefix("\u{feff}".as_bytes()).unwrap_or(text);
        for (number, line) in (1..).zip(text.split(|byte| *byte == b'\n')) {
            let refuse = |why: &str| Err(format!("line {number}: {why}"));
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            let Ok(line) = std::str::from_utf8(line) else { return refuse("is not UTF-8") };
            if line.contains(['\r', '\u{feff}']) {
                return refuse("holds a carriage return or byte order mark, which cannot be seen");
            }
            let line = line.trim_matches([' ', '\t']);
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let token = match parse_line(line) {
                Ok(token) => token,
                Err(why) => return refuse(why),
            };
            if let Some((other, _)) = tokens.iter().find(|(_, known)| known.hash == token.hash) {
                return refuse(&format!("has the same token as line {other}"));
            }
            tokens.push((number, token));
        }
        if tokens.is_empty() {
            return Err("holds no token; remove it altogether if there are to be none".into());
        }
        Ok(Self(tokens.into_iter().map(|(_, token)| token).collect()))
    }

    /// Returns the number of tokens.
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// Returns the token that a client presents, or `None` if it is not valid. The time taken does not depend
    /// on which token matches, or whether any does.
    pub fn find(&self, presented: &[u8]) -> Option<&ClientToken> {
        let hash = Sha256::digest(presented);
        let mut found = u32::MAX;
        for (index, token) in (0..).zip(&self.0) {
            found.conditional_assign(&index, token.hash.ct_eq(&hash));
        }
        // The length of a token stored as its hash is known only now.
        let fits = (TOKEN_MIN..=TOKEN_MAX).contains(&presented.len());
        self.0.get(usize::try_from(found).ok()?).filter(|_| fits)
    }
}

fn parse_line(line: &str) -> std::result::Result<ClientToken, &'static str> {
    let words: Vec<&str> = line.split([' ', '\t']).filter(|word| !word.is_empty()).collect();
    let (name, token, scopes, pattern) = match words[..] {
        [name, token, scopes] => (name, token, scopes, None),
        [name, token, scopes, pattern] => (name, token, scopes, Some(pattern)),
        _ => return Err("must be NAME TOKEN SCOPES [PATTERN], with spaces between"),
    };
    Ok(ClientToken {
        name: parse_name(name)?,
        hash: parse_token(token)?,
        scopes: scopes.parse()?,
        pattern: pattern.map(parse_pattern).transpose()?,
    })
}

/// Parses the name of a token.
pub fn parse_name(text: &str) -> std::result::Result<String, &'static str> {
    let fits = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    if text.len() > NAME_MAX || text.is_empty() || !text.chars().all(fits) {
        return Err("the name must be 1 to 31 letters, digits, '.', '_' and '-'");
    }
    Ok(text.into())
}

/// Parses a token, written in the clear or as `sha256:` and its hash. Returns the hash.
fn parse_token(text: &str) -> std::result::Result<[u8; 32], &'static str> {
    if let Some(digits) = text.strip_prefix("sha256:") {
        let decoded =
            hex::decode(digits.as_bytes()).and_then(|bytes| bytes.as_slice().try_into().ok());
        let hash: [u8; 32] = decoded.ok_or("after sha256: there must be 64 hexadecimal digits")?;
        // This is what sha256sum prints if the variable that should hold the token is not set.
        if [&b""[..], b"\n"].iter().any(|nothing| hash == *Sha256::digest(nothing)) {
            return Err("the hash is that of no token at all; copr-keygen token makes one");
        }
        return Ok(hash);
    }
    // These are the unreserved characters of RFC 3986 (2.3), because a token may travel in a URL.
    let fits = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.~".contains(byte);
    let mut different = Zeroizing::new(text.as_bytes().to_vec());
    if !different.iter().all(fits) {
        return Err("the token may hold only letters, digits, '-', '_', '.' and '~'");
    }
    if text.len() < TOKEN_MIN {
        return Err("the token is shorter than 32 characters; copr-keygen token makes one");
    }
    if text.len() > TOKEN_MAX {
        return Err("the token is longer than 256 characters; copr-keygen token makes one");
    }
    different.sort_unstable();
    different.dedup();
    if different.len() < DIFFERENT_MIN {
        return Err("the token can be guessed; copr-keygen token makes one");
    }
    Ok(Sha256::digest(text).into())
}

/// Returns a line for the token file, with a new token of 255 random bits.
///
/// The token has 43 characters. The first is a letter, so that no program takes a token for an option.
pub fn new_line(
    name: &str,
    scopes: &Scopes,
    pattern: Option<&Pattern>,
) -> Result<Zeroizing<String>> {
    let failed = |e: String| Error::io("making a token", std::io::Error::other(e));
    let mut bits = Zeroizing::new([0_u8; 32]);
    SysRng.try_fill_bytes(&mut *bits).map_err(|e| failed(e.to_string()))?;
    // Clear the highest bit: the first character is then one of the first 32 of the alphabet, all of them
    // letters.
    bits[0] &= 0x7f;
    let mut buffer = Zeroizing::new([0_u8; 43]);
    let token =
        Base64UrlUnpadded::encode(&*bits, &mut *buffer).map_err(|e| failed(e.to_string()))?;
    let words: Vec<_> = scopes.0.iter().map(|scope| scope.as_str()).collect();
    let mut line = Zeroizing::new(String::with_capacity(512));
    // Writing to a String cannot fail.
    let _ = write!(line, "{name} {token} {}", words.join(","));
    if let Some(pattern) = pattern {
        let _ = write!(line, " {pattern}");
    }
    line.push('\n');
    Ok(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: &str = "0123456789abcdefghijklmnopqrstuv";
    const SECOND: &str = "AbCdEfGhIjKlMnOpQrStUvWxYz-_.~0123456789";

    fn said(text: &str) -> String {
        Tokens::parse(text.as_bytes()).err().unwrap_or_else(|| panic!("{text:?} was taken"))
    }

    #[test]
    fn lines_become_tokens() {
        let hash = format!("{:x}", Sha256::digest("stored-as-its-hash-0123456789-abcdef"));
        let text = format!(
            "# made in spring\n\nbackend {FIRST} generate,read\n\t dev\t{SECOND}  generate *#*@dev \n\
             # sha\nstored.1 sha256:{hash} read"
        );
        let tokens = Tokens::parse(text.as_bytes()).unwrap();
        assert_eq!(tokens.count(), 3);
        let backend = tokens.find(FIRST.as_bytes()).unwrap();
        assert_eq!((&*backend.name, &backend.pattern), ("backend", &None));
        assert!(backend.scopes.hold(Scope::Generate) && backend.scopes.hold(Scope::Read));
        let dev = tokens.find(SECOND.as_bytes()).unwrap();
        assert!(dev.scopes.hold(Scope::Generate) && !dev.scopes.hold(Scope::Read));
        assert!(dev.pattern.as_ref().is_some_and(|p| p.matches("a#b@dev") && !p.matches("a#b@c")));
        let stored = tokens.find(b"stored-as-its-hash-0123456789-abcdef").unwrap();
        assert_eq!(stored.name, "stored.1");
        for wrong in ["", &FIRST[1..], &FIRST[..31], &format!("{FIRST}0"), &hash, "backend"] {
            assert!(tokens.find(wrong.as_bytes()).is_none(), "{wrong}");
        }
        // A token that is too short is never accepted, even if the file has its hash.
        let short = format!("s sha256:{:x} read", Sha256::digest("short"));
        assert!(Tokens::parse(short.as_bytes()).unwrap().find(b"short").is_none());
        let shown = format!("{tokens:?}");
        assert!(!shown.contains(FIRST) && !shown.contains(SECOND), "{shown}");
    }

    #[test]
    fn mistakes_are_named_by_line_and_never_quoted() {
        let good = format!("good {FIRST} read");
        let short = &SECOND[..31];
        for (line, expected) in [
            (format!("a {short} read"), "shorter than 32"),
            (format!("a {} read", SECOND.repeat(7)), "longer than 256"),
            (format!("a {} read", "ab".repeat(20)), "can be guessed"),
            (format!("a {SECOND}/ read"), "may hold only"),
            (format!("a {SECOND}é read"), "may hold only"),
            (format!("a {SECOND}\0 read"), "may hold only"),
            (format!("a sha256:{} read", "0".repeat(63)), "64 hexadecimal"),
            (format!("a sha256:{}g read", "0".repeat(63)), "64 hexadecimal"),
            (format!("a sha256:{:x} read", Sha256::digest("")), "no token at all"),
            (format!("a sha256:{:X} read", Sha256::digest("\n")), "no token at all"),
            (format!("a sha256:{}é read", "0".repeat(62)), "64 hexadecimal"),
            (format!("a SHA256:{} read", "0".repeat(64)), "may hold only"),
            (format!("a {SECOND}"), "NAME TOKEN SCOPES"),
            (format!("{SECOND} read"), "NAME TOKEN SCOPES"),
            (format!("a {SECOND} read *#* more"), "NAME TOKEN SCOPES"),
            (format!("{SECOND} a read"), "the name must be"),
            (format!("a/b {SECOND} read"), "the name must be"),
            (format!("\u{feff}a {SECOND} read"), "cannot be seen"),
            (format!("a {SECOND} write"), "the scopes must be"),
            (format!("a {SECOND} read,"), "the scopes must be"),
            (format!("a {SECOND} read,read"), "the scopes must be"),
            (format!("a {SECOND} Read"), "the scopes must be"),
            (format!("a {SECOND}\rread"), "cannot be seen"),
            (format!("a {SECOND} read\r\r"), "cannot be seen"),
            (format!("a {SECOND} read [x"), "the pattern must be"),
            (format!("a {SECOND} read a**b"), "the pattern must be"),
            (format!("a {SECOND} read {}", "x".repeat(201)), "the pattern must be"),
            (format!("a {FIRST} read"), "same token as line 2"),
        ] {
            let message = said(&format!("# comment\n{good}\n\n{line}\n"));
            assert!(message.starts_with("line 4: "), "{line:?}: {message}");
            assert!(message.contains(expected), "{line:?}: {message}");
            assert!(!message.contains(short) && !message.contains(FIRST), "{message}");
            assert!(!message.contains('\n'), "{message}");
        }
        let hash = format!("h sha256:{:x} read", Sha256::digest(FIRST));
        assert!(said(&format!("{good}\n{hash}")).contains("same token as line 1"));
        assert!(Tokens::parse(b"a \xff read").is_err_and(|e| e == "line 1: is not UTF-8"));
        for nothing in ["", "\n\n", "# only\n  # comments"] {
            assert!(said(nothing).contains("holds no token"), "{nothing:?}");
        }
    }

    #[test]
    fn a_client_may_have_two_tokens_while_one_takes_the_place_of_the_other() {
        let text = format!("backend {FIRST} generate\nbackend {SECOND} read\n");
        let tokens = Tokens::parse(text.as_bytes()).unwrap();
        assert_eq!(tokens.count(), 2);
        for (token, scope) in [(FIRST, Scope::Generate), (SECOND, Scope::Read)] {
            let found = tokens.find(token.as_bytes()).unwrap();
            assert_eq!(found.name, "backend");
            assert!(found.scopes.hold(scope) && found.scopes.0.len() == 1);
        }
    }

    #[test]
    fn files_of_windows_editors_are_read() {
        let text = format!("\u{feff}# ours\r\n\r\na {FIRST} read\r\nb {SECOND} read *#*@c\r");
        let tokens = Tokens::parse(text.as_bytes()).unwrap();
        assert_eq!(tokens.count(), 2);
        let pattern = &tokens.find(SECOND.as_bytes()).unwrap().pattern;
        assert_eq!(pattern.as_ref().map(Pattern::as_str), Some("*#*@c"));
    }

    #[test]
    fn a_new_line_is_taken_and_never_the_same() {
        let scopes: Scopes = "read,generate".parse().unwrap();
        let pattern = parse_pattern("@group#*@copr.example.org").unwrap();
        let line = new_line("backend", &scopes, Some(&pattern)).unwrap();
        assert!(line.ends_with(" read,generate @group#*@copr.example.org\n"), "{}", *line);
        let token = line.split(' ').nth(1).unwrap();
        assert_eq!(token.len(), 43);
        let tokens = Tokens::parse(line.as_bytes()).unwrap();
        assert_eq!(tokens.find(token.as_bytes()).unwrap().name, "backend");
        assert_ne!(*line, *new_line("backend", &scopes, Some(&pattern)).unwrap());
    }

    #[test]
    fn a_new_token_begins_with_a_letter() {
        for _ in 0..500 {
            let line = new_line("backend", &Scopes(vec![Scope::Read]), None).unwrap();
            let first = line.split(' ').nth(1).unwrap().chars().next();
            assert!(first.is_some_and(|c| c.is_ascii_alphabetic()), "{first:?}");
        }
    }
}
