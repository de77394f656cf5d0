//! Remedies as command lines, quoted for the shell, that an operator can type in.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use gpg::text::printable;

/// The state directory of the package.
pub const STATE: &str = "/var/lib/copr-keygen";

/// Returns a command line of this program for the state directory `state`.
pub fn command(state: &Path, words: &str) -> String {
    if state == Path::new(STATE) {
        return format!("copr-keygen {words}");
    }
    format!("copr-keygen {words} --state-dir {}", quote_path(state))
}

/// Returns a command line that moves `path` to a new directory in the state directory, so that nothing
/// is overwritten.
pub fn keep_aside(state: &Path, path: &Path) -> String {
    let template = quote_path(&state.join("kept.XXXXXX"));
    format!("mv {} \"$(mktemp -d {template})\"", quote_path(path))
}

/// Returns a command line that replaces the symbolic link `path` with the file or directory that it leads to.
pub fn replace_link(path: &Path) -> String {
    let path = quote_path(path);
    format!("T=$(readlink -f {path}) && rm {path} && mv -T \"$T\" {path}")
}

/// Returns a command line that destroys a copy of a secret. A file with a second hard link may be the
/// original, so it is not overwritten: only this name is removed.
pub fn destroy_copy(path: &Path) -> String {
    let is_alone = fs::symlink_metadata(path).is_ok_and(|at| at.is_file() && at.nlink() == 1);
    format!("{} {}", if is_alone { "shred -u" } else { "rm" }, quote_path(path))
}

/// Returns a command line that appends lines to a file. The last line of the file may lack a newline, so it
/// writes one first.
pub fn append(path: &Path, lines: &[String]) -> String {
    let lines: Vec<_> = lines.iter().map(|line| quote(line)).collect();
    format!("printf '%s\\n' '' {} >>{}", lines.join(" "), quote_path(path))
}

/// Quotes `text` as one word for the shell. The word can be copied from a terminal.
pub fn quote(text: &str) -> String {
    let is_safe = |c: char| c.is_ascii_alphanumeric() || "@%+=:,./_-".contains(c);
    if !text.is_empty() && text.chars().all(is_safe) {
        return text.into();
    }
    if printable(text) != text {
        return quote_bytes(text.as_bytes());
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// Quotes a path as one word for the shell.
pub fn quote_path(path: &Path) -> String {
    match path.to_str() {
        Some(text) => quote(text),
        None => quote_bytes(path.as_os_str().as_bytes()),
    }
}

/// Quotes bytes that could not be copied from a terminal. The shell makes them from octal numbers
/// with `printf`.
fn quote_bytes(bytes: &[u8]) -> String {
    let byte = |byte: &u8| match byte {
        b' '..=b'~' if !b"%'\\".contains(byte) => char::from(*byte).to_string(),
        byte => format!("\\{byte:03o}"),
    };
    format!("\"$(printf '{}')\"", bytes.iter().map(byte).collect::<String>())
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
    fn the_shell_reads_every_word_as_it_was() -> std::io::Result<()> {
        let odd = std::ffi::OsStr::from_bytes(b"/a%s\\b'c \"$d\" \xff\x1b[2J\ne");
        let text = "/x\u{202e}y'%d\\n\tz \"$HOME\"";
        for path in [Path::new(odd), Path::new(text), Path::new("/it's $HOME")] {
            let script = format!("printf %s {}", quote_path(path));
            assert_eq!(printable(&script), script);
            let said = std::process::Command::new("sh").arg("-c").arg(script).output()?;
            assert_eq!(said.stdout, path.as_os_str().as_bytes());
        }
        Ok(())
    }

    #[test]
    fn what_is_kept_aside_overwrites_nothing() -> std::io::Result<()> {
        let root = crate::scratch::scratch();
        let path = root.path().join("a b");
        for content in ["one", "two"] {
            std::fs::write(&path, content)?;
            let command = keep_aside(root.path(), &path);
            assert!(std::process::Command::new("sh").arg("-c").arg(command).status()?.success());
        }
        assert_eq!(std::fs::read_dir(&root)?.count(), 2);
        Ok(())
    }

    #[test]
    fn another_state_is_named() {
        assert_eq!(command(Path::new(STATE), "import"), "copr-keygen import");
        assert_eq!(command(Path::new("/a b"), "import"), "copr-keygen import --state-dir '/a b'");
    }
}
