//! Parses the variable parts of a request target: percent-encoded names and query parameters. Nothing decoded
//! here is used as a file path; a name must first become a `NameEmail`.

use gpg::hex;
use gpg::text::printable_start;
use keystore::NameEmail;

use super::error::{Error, Result};

/// The maximum number of characters of an unknown parameter that its error quotes.
const NAME_MAX: usize = 100;

/// Parses a path segment as an identity. Any character may be percent-encoded. Those that RFC 3986 (3.3) does
/// not allow in a segment must be: `#` is `%23`.
pub fn name_email(segment: &str) -> Result<NameEmail> {
    let name = decode(segment)?;
    if !name.contains('#') {
        return Err(Error::Malformed(
            "name_email: has no '#', which is written %23 in a path: \
             /keys/user%23project@copr.example.org"
                .into(),
        ));
    }
    Ok(NameEmail::parse(&name)?)
}

fn decode(segment: &str) -> Result<String> {
    let refused = |why: &str| Error::Malformed(format!("name_email in the path: {why}"));
    let mut bytes = Vec::with_capacity(segment.len());
    let mut encoded = segment.bytes();
    while let Some(byte) = encoded.next() {
        bytes.push(match byte {
            b'%' => {
                let digits = encoded.next().zip(encoded.next());
                digits
                    .and_then(|(high, low)| hex::byte(high, low))
                    .ok_or_else(|| refused("'%' must be followed by two hexadecimal digits"))?
            }
            plain if is_path_character(plain) => plain,
            _ => return Err(refused("holds a character that must be percent-encoded")),
        });
    }
    String::from_utf8(bytes).map_err(|_| refused("is not UTF-8"))
}

/// Whether `byte` may stand in a path segment without being encoded: `pchar` of RFC 3986 except the percent
/// sign.
fn is_path_character(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@".contains(&byte)
}

/// Returns the values of `parameters` in a query, in the given order. Each may occur once and must be a whole
/// number in digits. Other parameters are errors.
pub fn numbers<const N: usize>(
    query: Option<&str>,
    parameters: [&'static str; N],
) -> Result<[Option<u64>; N]> {
    let mut found = [None; N];
    let pieces = query.unwrap_or_default().split('&');
    for piece in pieces.filter(|_| query.is_some_and(|query| !query.is_empty())) {
        let (name, value) = piece.split_once('=').unwrap_or((piece, ""));
        let Some(index) = parameters.iter().position(|known| *known == name) else {
            let known = if N == 0 { "none".into() } else { parameters.join(" and ") };
            let name = printable_start(name, NAME_MAX);
            return Err(Error::Malformed(format!(
                "there is no parameter '{name}'; this path takes {known}"
            )));
        };
        let refuse = |reason: &str| Err(Error::field(parameters[index], reason));
        if found[index].is_some() {
            return refuse("may be there only once");
        }
        // `parse` alone would also accept a leading sign.
        let digits = !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit());
        match value.parse() {
            Ok(number) if digits => found[index] = Some(number),
            _ => return refuse("must be a Unix time: a whole number in digits"),
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAMES: [&str; 2] = ["changed_since", "expires_before"];

    fn said<T>(result: Result<T>) -> String {
        result.err().map(|e| e.to_string()).unwrap_or_default()
    }

    #[test]
    fn names_are_decoded_once() {
        for (segment, expected) in [
            ("user%23project@copr.example.org", "user#project@copr.example.org"),
            ("%40group%23project%40copr.example.org", "@group#project@copr.example.org"),
            ("%75%73%65%72%23b%40%63", "user#b@c"),
            ("j%C3%bcrgen%23gr%c3%b6%C3%9fe@copr", "jürgen#größe@copr"),
        ] {
            assert_eq!(name_email(segment).ok().as_ref().map(NameEmail::as_str), Some(expected));
        }
        for bad in [
            "",
            "user",
            "user#project@c",
            "user%2523project@c",
            "user%23project@c%",
            "user%23project@c%4",
            "user%2",
            "user%",
            "user%zz%23project@c",
            "user%+2%23project@c",
            "user%23project@c%00",
            "user%00%23project@c",
            "user%23project@c%0a",
            "user%23project@c%ff",
            "j%c3%23project@c",
            "%c0%ae%c0%ae%23project@c",
            "%ed%a0%80%23project@c",
            "jürgen%23project@c",
            "user%23pro%2fject@c",
            "%2e%2e%2fuser%23project@c",
            "..%2f..%2fetc%2fpasswd%23@",
            "%2e%2e",
            "..",
            "user%23project@c.lock",
            "-user%23project@c",
            "user%23project@c\"",
            "user%23project@c\\",
            "user+%23project@c",
            "user%20%23project@c",
        ] {
            let error = name_email(bad).err();
            assert!(error.is_some_and(|e| e.http_status() == 400), "{bad}");
        }
        assert!(said(name_email("user")).contains("%23"));
    }

    #[test]
    fn parameters_are_numbers_and_there_once() {
        for (query, expected) in [
            (None, [None, None]),
            (Some(""), [None, None]),
            (Some("changed_since=0"), [Some(0), None]),
            (Some("expires_before=18446744073709551615"), [None, Some(u64::MAX)]),
            (Some("expires_before=7&changed_since=0012"), [Some(12), Some(7)]),
        ] {
            assert_eq!(numbers(query, NAMES).ok(), Some(expected), "{query:?}");
        }
        let number = "changed_since: must be a Unix time";
        for (query, expected) in [
            ("changed_since=", number),
            ("changed_since", number),
            ("changed_since=+1", number),
            ("changed_since=-1", number),
            ("changed_since=1.5", number),
            ("changed_since=0x1", number),
            ("changed_since=%31", number),
            ("changed_since=1=2", number),
            ("changed_since=٣", number),
            ("changed_since=18446744073709551616", number),
            ("changed_since=1&changed_since=1", "changed_since: may be there only once"),
            ("expires_before=1&changed_since=2&expires_before=3", "expires_before: may be"),
            ("since=1", "no parameter 'since'; this path takes changed_since and expires_before"),
            ("changed_since=1&", "no parameter ''"),
            ("&changed_since=1", "no parameter ''"),
            ("=1", "no parameter ''"),
            ("Changed_since=1", "no parameter 'Changed_since'"),
            ("changed%5fsince=1", "no parameter 'changed%5fsince'"),
            ("\u{202e}=1", "no parameter '\\u{202e}'"),
        ] {
            let message = said(numbers(Some(query), NAMES));
            assert!(message.contains(expected), "{query} gave {message:?}");
        }
        assert!(said(numbers(Some("x=1"), [])).contains("'x'; this path takes none"));
    }
}
