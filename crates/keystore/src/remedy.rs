//! Remedies that an operator can type in: command lines of this program, quoted for the shell.

use std::path::Path;

/// The state directory of the package.
pub const STATE: &str = "/var/lib/copr-keygen";

/// A command line of this program about the state directory `state`.
pub fn command(state: &Path, words: &str) -> String {
    if state == Path::new(STATE) {
        return format!("copr-keygen {words}");
    }
    format!("copr-keygen {words} --state-dir {}", quote_path(state))
}

/// A word for the shell, to be copied into a command line.
pub fn quote(text: &str) -> String {
    let is_safe = |c: char| c.is_ascii_alphanumeric() || "@%+=:,./_-".contains(c);
    if !text.is_empty() && text.chars().all(is_safe) {
        return text.into();
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// A path as a word for the shell.
pub fn quote_path(path: &Path) -> String {
    quote(&path.to_string_lossy())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_quoted_for_the_shell() {
        assert_eq!(quote("/var/lib/a@b"), "/var/lib/a@b");
        assert_eq!(quote("a#b"), "'a#b'");
        assert_eq!(quote("it's"), r"'it'\''s'");
        assert_eq!(quote(""), "''");
    }

    #[test]
    fn another_state_is_named() {
        assert_eq!(command(Path::new(STATE), "import"), "copr-keygen import");
        assert_eq!(command(Path::new("/a b"), "import"), "copr-keygen import --state-dir '/a b'");
    }
}
