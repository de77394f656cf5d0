//! Text for people: safe to print on a terminal and in a log, with the right noun for a count, and with units
//! for sizes.

use std::fmt::Display;

/// Whether a character can make text look like other text. Such a character moves the cursor, ends a line, or
/// changes the direction of the text around it.
pub fn is_misleading(c: char) -> bool {
    c.is_control() || matches!(c, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Whether a character has no glyph. Such characters are harmless in a user ID, but a message should show them.
fn is_invisible(c: char) -> bool {
    matches!(c, '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

/// Returns `text` as one line that cannot control a terminal. Misleading and invisible characters become
/// escapes like `\n` or `\u{1b}`; everything else stays as it is.
pub fn printable(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for c in text.chars() {
        match is_misleading(c) || is_invisible(c) {
            true => line.extend(c.escape_default()),
            false => line.push(c),
        }
    }
    line
}

/// As [`printable`], for the first `max` characters of `text`. If there are more, `…` stands for them.
pub fn printable_start(text: &str, max: usize) -> String {
    match text.char_indices().nth(max) {
        Some((end, _)) => printable(&text[..end]) + "…",
        None => printable(text),
    }
}

/// Formats a count with its noun, like `1 key` or `2 keys`.
pub fn number<N: Display + PartialEq + From<u8>>(count: N, one: &str, many: &str) -> String {
    if count == N::from(1) { format!("1 {one}") } else { format!("{count} {many}") }
}

/// Formats a number of keys, like `1 key` or `2 keys`.
pub fn keys<N: Display + PartialEq + From<u8>>(count: N) -> String {
    number(count, "key", "keys")
}

/// Formats a size like `512 bytes` or `1.5 MiB`, with one digit after the point, rounded down.
pub fn size(bytes: u64) -> String {
    let units = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    let Some(power) = bytes.checked_ilog2().map(|bits| bits / 10).filter(|power| *power > 0) else {
        return if bytes == 1 { "1 byte".into() } else { format!("{bytes} bytes") };
    };
    let tenths = (u128::from(bytes) * 10) >> (10 * power);
    format!("{}.{} {}", tenths / 10, tenths % 10, units[power as usize - 1])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminal_gets_one_line_and_nothing_to_obey() {
        for (text, expected) in [
            ("a\x1b[2J\r\n\tb\x07\0\x7f", r"a\u{1b}[2J\r\n\tb\u{7}\u{0}\u{7f}"),
            ("\u{85}\u{9b}31m", r"\u{85}\u{9b}31m"),
            ("\u{2028}\u{202e}\u{2066}\u{2069}", r"\u{2028}\u{202e}\u{2066}\u{2069}"),
            ("\u{61c}\u{200b}\u{200f}\u{2060}\u{feff}", r"\u{61c}\u{200b}\u{200f}\u{2060}\u{feff}"),
        ] {
            assert_eq!(printable(text), expected, "{text:?}");
            assert!(!printable(text).contains(is_misleading), "{text:?}");
        }
        for plain in ["", "Zoë (\"a\\b\") <ü@c> 'x'", "日本語", "e\u{301}"] {
            assert_eq!(printable(plain), plain);
        }
    }

    #[test]
    fn a_long_text_is_cut_between_characters() {
        assert_eq!(printable_start("äöü", 3), "äöü");
        assert_eq!(printable_start("äöüß", 3), "äöü…");
        assert_eq!(printable_start("\n\n", 1), "\\n…");
    }

    #[test]
    fn counts_have_the_right_noun() {
        assert_eq!([0_usize, 1, 2].map(keys), ["0 keys", "1 key", "2 keys"]);
        assert_eq!(number(1_u64, "copy", "copies"), "1 copy");
    }

    #[test]
    fn sizes_have_a_unit() {
        for (bytes, shown) in [
            (0, "0 bytes"),
            (1, "1 byte"),
            (1023, "1023 bytes"),
            (1024, "1.0 KiB"),
            (1_600_000, "1.5 MiB"),
            (u64::MAX, "15.9 EiB"),
        ] {
            assert_eq!(size(bytes), shown);
        }
    }
}
