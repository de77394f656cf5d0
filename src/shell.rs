//! Words of command lines that people are to copy.

/// A word for the shell, to be copied into a command line.
pub fn quote(text: &str) -> String {
    let is_safe = |c: char| c.is_ascii_alphanumeric() || "@%+=:,./_-".contains(c);
    if !text.is_empty() && text.chars().all(is_safe) {
        return text.into();
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}
