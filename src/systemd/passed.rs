//! Finds the file that systemd passes to a service as a credential. Reads the files of the unit, because
//! `systemctl show` does not print credentials.

use std::path::{Path, PathBuf};

/// The directories, in order, in which systemd looks for a credential whose source is not an absolute path
/// (systemd.exec(5)). Before version 254, systemd looked for an unencrypted credential only in those without
/// `.encrypted`.
const STORES: [&str; 8] = [
    "etc/credstore.encrypted",
    "run/credstore.encrypted",
    "usr/local/lib/credstore.encrypted",
    "usr/lib/credstore.encrypted",
    "etc/credstore",
    "run/credstore",
    "usr/local/lib/credstore",
    "usr/lib/credstore",
];

/// What systemd passes to a unit as a given credential.
#[derive(Debug, PartialEq, Eq)]
pub enum Passed {
    Nothing,
    /// The contents of this file, which is not encrypted.
    File(PathBuf),
    /// The decrypted contents of this file.
    Decrypted(PathBuf),
    /// The contents of this encrypted file as they are, because the unit says `LoadCredential=`.
    StillEncrypted(PathBuf),
    /// A file that is not encrypted, although the unit says `LoadCredentialEncrypted=`.
    NotEncrypted(PathBuf),
}

/// Finds what the unit with the given `files` receives as `credential`. Searches the directories that systemd
/// searches, below `root`.
pub fn passed(files: &str, credential: &str, root: &Path) -> Passed {
    let mut last = None;
    for (name, value) in files.lines().filter_map(|line| line.split_once('=')) {
        match (name.trim(), value.trim()) {
            ("LoadCredential" | "LoadCredentialEncrypted", "") => last = None,
            (name @ ("LoadCredential" | "LoadCredentialEncrypted"), value) => {
                // Without a source, the name of the credential is also the source.
                let (id, source) = value.split_once(':').unwrap_or((value, value));
                if id == credential {
                    last = Some((name == "LoadCredentialEncrypted", source));
                }
            }
            _ => {}
        }
    }
    let Some((decrypts, source)) = last else { return Passed::Nothing };
    let (path, is_encrypted) = match Path::new(source) {
        path if path.is_absolute() => (path.to_owned(), decrypts),
        name => match STORES.iter().map(|store| root.join(store)).find(|s| s.join(name).exists()) {
            Some(store) => (store.join(name), store.extension().is_some()),
            None => return Passed::Nothing,
        },
    };
    match (decrypts, is_encrypted) {
        (false, false) => Passed::File(path),
        (true, true) => Passed::Decrypted(path),
        (false, true) => Passed::StillEncrypted(path),
        (true, false) => Passed::NotEncrypted(path),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_last_word_of_the_unit_counts() {
        let root = tempfile::tempdir().unwrap();
        let encrypted = root.path().join("etc/credstore.encrypted");
        let clear = root.path().join("usr/lib/credstore");
        for (store, name) in [(&encrypted, "sealed"), (&clear, "clear"), (&encrypted, "both")] {
            std::fs::create_dir_all(store).unwrap();
            std::fs::write(store.join(name), "x").unwrap();
        }
        std::fs::write(clear.join("both"), "x").unwrap();
        let path = "LoadCredential=tokens:/etc/tokens\n";
        let sealed = "LoadCredentialEncrypted=tokens:/etc/sealed\n";
        let name = "LoadCredential = tokens:no.such.name\nLoadCredential=other:/x\n";
        let named = |directive: &str, name: &str| format!("{directive}=tokens:{name}\n");
        let (plain, decrypting) = ("LoadCredential", "LoadCredentialEncrypted");
        let absolute = |path: &str| PathBuf::from(path);
        for (files, expected) in [
            (String::new(), Passed::Nothing),
            (name.into(), Passed::Nothing),
            (named(decrypting, "no.such.name"), Passed::Nothing),
            ("LoadCredentialEncrypted=tokens\n".into(), Passed::Nothing),
            (format!("{name}{path}"), Passed::File(absolute("/etc/tokens"))),
            (format!("{path}{sealed}"), Passed::Decrypted(absolute("/etc/sealed"))),
            (format!("{sealed}{path}"), Passed::File(absolute("/etc/tokens"))),
            (format!("{path}LoadCredential=\n"), Passed::Nothing),
            (format!("{path}#LoadCredential=\n"), Passed::File(absolute("/etc/tokens"))),
            (named(plain, "clear"), Passed::File(clear.join("clear"))),
            (named(decrypting, "sealed"), Passed::Decrypted(encrypted.join("sealed"))),
            (named(plain, "sealed"), Passed::StillEncrypted(encrypted.join("sealed"))),
            (named(plain, "both"), Passed::StillEncrypted(encrypted.join("both"))),
            (named(decrypting, "clear"), Passed::NotEncrypted(clear.join("clear"))),
        ] {
            assert_eq!(passed(&files, "tokens", root.path()), expected, "{files}");
        }
    }
}
