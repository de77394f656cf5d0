//! Text from outside, made safe for a terminal and a log: the one escaper of this program.

/// Whether `c` controls how text is displayed instead of being displayed: control characters, line and
/// paragraph separators, and the overrides that make a line read in another order.
pub fn is_control(c: char) -> bool {
    c.is_control() || matches!(c, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// `text` on one line that no terminal obeys: control characters ([`is_control`]) and direction marks are
/// written as escapes, like `\n` or `\u{1b}`. Everything else stays as it is.
pub fn printable(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\u{200e}' | '\u{200f}' => line.extend(c.escape_default()),
            c if is_control(c) => line.extend(c.escape_default()),
            c => line.push(c),
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminal_gets_one_line_and_nothing_to_obey() {
        for (text, expected) in [
            ("", ""),
            ("Zoë (\"a\\b\") <ü@c>", "Zoë (\"a\\b\") <ü@c>"),
            ("a\x1b[2J\r\n\tb\x07\0\x7f", r"a\u{1b}[2J\r\n\tb\u{7}\u{0}\u{7f}"),
            ("\u{85}\u{9b}31m", r"\u{85}\u{9b}31m"),
            (
                "\u{2028}\u{202e}\u{2066}\u{2069}\u{200f}",
                r"\u{2028}\u{202e}\u{2066}\u{2069}\u{200f}",
            ),
        ] {
            assert_eq!(printable(text), expected, "{text:?}");
            assert!(!printable(text).contains(is_control), "{text:?}");
        }
    }
}
