//! S-expressions in the two forms that libgcrypt writes: canonical and advanced (RFC 9804). Secret key files
//! consist of them.

use gpg::hex;
use zeroize::Zeroizing;

/// The maximum depth of nested lists. A secret key file has six levels.
const DEPTH_MAX: usize = 16;
/// The maximum number of elements of a list. A secret key has about ten.
const ELEMENTS_MAX: usize = 64;

/// A string of bytes or a list. Strings are overwritten with zeros when they are dropped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sexp {
    /// A string of bytes.
    Atom(Zeroizing<Vec<u8>>),
    /// A list.
    List(Vec<Self>),
}

impl Sexp {
    /// Parses `text`, which must hold exactly one expression; white space may follow. Returns `None` if it does
    /// not.
    pub fn parse(text: &[u8]) -> Option<Self> {
        let (found, rest) = Self::parse_beginning(text)?;
        rest.trim_ascii().is_empty().then_some(found)
    }

    /// Parses the expression at the beginning of `text`. Returns it and the rest of `text`.
    pub fn parse_beginning(text: &[u8]) -> Option<(Self, &[u8])> {
        let mut reader = Reader { rest: text };
        let found = reader.expression(0)?;
        Some((found, reader.rest))
    }

    /// Returns the elements of a list, or `None` for a string.
    pub fn list(&self) -> Option<&[Self]> {
        match self {
            Self::List(elements) => Some(elements),
            Self::Atom(_) => None,
        }
    }

    /// Returns the bytes of a string, or `None` for a list.
    pub fn atom(&self) -> Option<&[u8]> {
        match self {
            Self::Atom(bytes) => Some(bytes),
            Self::List(_) => None,
        }
    }

    /// Returns the string that a list begins with.
    pub fn name(&self) -> Option<&[u8]> {
        self.list()?.first()?.atom()
    }

    /// Returns the first element that is a list beginning with `name`.
    pub fn find(&self, name: &str) -> Option<&Self> {
        self.list()?.iter().find(|element| element.name() == Some(name.as_bytes()))
    }

    /// Returns the string in the element `(name string)`.
    pub fn value(&self, name: &str) -> Option<&[u8]> {
        match self.find(name)?.list()? {
            [_, value] => value.atom(),
            _ => None,
        }
    }

    /// Appends the canonical form of the expression to `to`.
    pub fn write_canonical(&self, to: &mut Vec<u8>) {
        match self {
            Self::Atom(bytes) => {
                to.extend_from_slice(bytes.len().to_string().as_bytes());
                to.push(b':');
                to.extend_from_slice(bytes);
            }
            Self::List(elements) => {
                to.push(b'(');
                elements.iter().for_each(|element| element.write_canonical(to));
                to.push(b')');
            }
        }
    }
}

/// Parses expressions from the front of `rest`.
struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    fn expression(&mut self, depth: usize) -> Option<Sexp> {
        self.rest = self.rest.trim_ascii_start();
        match *self.rest.first()? {
            b'(' if depth < DEPTH_MAX => {
                self.skip(1);
                let mut elements = Vec::new();
                loop {
                    self.rest = self.rest.trim_ascii_start();
                    if *self.rest.first()? == b')' {
                        self.skip(1);
                        return Some(Sexp::List(elements));
                    }
                    if elements.len() == ELEMENTS_MAX {
                        return None;
                    }
                    elements.push(self.expression(depth + 1)?);
                }
            }
            b'#' => {
                self.skip(1);
                let digits = self.up_to(b'#')?;
                // Allocated with room for all digits: a vector that grows leaves copies of the secret behind.
                let mut text = Zeroizing::new(Vec::with_capacity(digits.len()));
                text.extend(digits.iter().filter(|byte| !byte.is_ascii_whitespace()));
                hex::decode(&text).map(Sexp::Atom)
            }
            b'"' => {
                self.skip(1);
                self.quoted()
            }
            b'0'..=b'9' => self.counted(),
            _ => self.token(),
        }
    }

    fn skip(&mut self, count: usize) {
        self.rest = &self.rest[count..];
    }

    /// Takes the bytes before `end`, and skips `end`.
    fn up_to(&mut self, end: u8) -> Option<&'a [u8]> {
        let length = self.rest.iter().position(|byte| *byte == end)?;
        let (found, rest) = self.rest.split_at(length);
        self.rest = &rest[1..];
        Some(found)
    }

    /// Parses `LENGTH:BYTES`.
    fn counted(&mut self) -> Option<Sexp> {
        let digits = self.up_to(b':')?;
        let is_number = digits.iter().all(u8::is_ascii_digit);
        let length: usize = std::str::from_utf8(digits).ok().filter(|_| is_number)?.parse().ok()?;
        let (found, rest) = self.rest.split_at_checked(length)?;
        self.rest = rest;
        Some(Sexp::Atom(Zeroizing::new(found.to_vec())))
    }

    /// Parses a token, a string that is written without quotes or length.
    fn token(&mut self) -> Option<Sexp> {
        let is_part = |byte: u8| byte.is_ascii_alphanumeric() || b"-./_:*+=".contains(&byte);
        let length = self.rest.iter().take_while(|byte| is_part(**byte)).count();
        let (found, rest) = self.rest.split_at(length);
        self.rest = rest;
        (length > 0).then(|| Sexp::Atom(Zeroizing::new(found.to_vec())))
    }

    /// Parses a string up to its closing `"`, with the escapes of C.
    fn quoted(&mut self) -> Option<Sexp> {
        // Allocated with room for the whole string: a vector that grows leaves copies of the secret behind.
        let room = self
            .rest
            .iter()
            .enumerate()
            .find(|(at, byte)| **byte == b'"' && (*at == 0 || self.rest[at - 1] != b'\\'));
        let mut bytes =
            Zeroizing::new(Vec::with_capacity(room.map_or(self.rest.len(), |(at, _)| at)));
        loop {
            match self.byte()? {
                b'"' => return Some(Sexp::Atom(bytes)),
                b'\\' => bytes.extend(self.escaped()?),
                byte => bytes.push(byte),
            }
        }
    }

    /// Parses the rest of an escape and returns the byte that it stands for. An escaped line feed stands for no
    /// byte.
    fn escaped(&mut self) -> Option<Option<u8>> {
        Some(Some(match self.byte()? {
            b'b' => 8,
            b't' => b'\t',
            b'v' => 11,
            b'n' => b'\n',
            b'f' => 12,
            b'r' => b'\r',
            quoted @ (b'"' | b'\'' | b'\\') => quoted,
            b'x' => hex::byte(self.byte()?, self.byte()?)?,
            first @ b'0'..=b'3' => {
                let digits = [first, self.byte()?, self.byte()?];
                let value = |digit: &u8| matches!(digit, b'0'..=b'7').then_some(digit & 7);
                let [high, middle, low] = &digits;
                (value(high)? << 6) | (value(middle)? << 3) | value(low)?
            }
            b'\n' => return Some(None),
            _ => return None,
        }))
    }

    fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(*first)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn canonical(text: &[u8]) -> Option<String> {
        let mut bytes = Vec::new();
        Sexp::parse(text)?.write_canonical(&mut bytes);
        Some(String::from_utf8_lossy(&bytes).into_owned())
    }

    #[test]
    fn both_forms_are_read_and_the_canonical_one_is_written() {
        for (text, expected) in [
            (&b"(3:rsa(1:n2:)()1:e)"[..], "(3:rsa(1:n2:)()1:e)"),
            (b" ( rsa\n (n #6 1\n62# ) ) \n", "(3:rsa(1:n2:ab))"),
            (br#"("NIST P-256" "a\"\x41\102\n")"#, "(10:NIST P-2565:a\"AB\n)"),
            (b"(a\"b\\\nc\")", "(1:a2:bc)"),
            (b"(openpgp-s2k3-ocb-aes\"65536\")", "(20:openpgp-s2k3-ocb-aes5:65536)"),
            (b"0:", "0:"),
        ] {
            assert_eq!(canonical(text).as_deref(), Some(expected), "{text:?}");
        }
    }

    #[test]
    fn anything_else_is_refused() {
        let wide = [b"(".to_vec(), b"\"\"".repeat(ELEMENTS_MAX + 1), b")".to_vec()].concat();
        let deep = [b"(".repeat(DEPTH_MAX + 1), b")".repeat(DEPTH_MAX + 1)].concat();
        for text in [
            &b""[..],
            b"(",
            b")",
            b"(3:rs",
            b"(99999999999999999999:a)",
            b"(1a:b)",
            b"(#6#)",
            b"(#6g#)",
            b"(#61)",
            b"(\"a)",
            b"(\"\\q\")",
            b"(\"\\9\")",
            b"(a)(b)",
            b"(\0)",
            b"{a}",
            &deep,
            &wide,
        ] {
            assert_eq!(Sexp::parse(text), None, "{text:?}");
        }
        assert!(Sexp::parse(&deep[1..deep.len() - 1]).is_some());
    }

    #[test]
    fn elements_are_found_by_name() {
        let Some(sexp) = Sexp::parse(b"(rsa (n 3:abc)(e x y)(p (q)))") else { panic!() };
        assert_eq!(sexp.name(), Some(&b"rsa"[..]));
        assert_eq!(sexp.value("n"), Some(&b"abc"[..]));
        for none in ["e", "p", "rsa", ""] {
            assert_eq!(sexp.value(none), None, "{none}");
        }
    }
}
