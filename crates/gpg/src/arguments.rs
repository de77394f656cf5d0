//! Parses a gpg command line as obs-signd and operators write it. The parser finds the user IDs (`-u` and
//! positional arguments) and keeps everything else as it is. It accepts only the options in the tables below.
//! With an unknown option, the parser could not tell whether the next argument is the option's value.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

/// What a command line asks gpg to do.
#[derive(Debug, PartialEq, Eq)]
pub enum Call {
    /// Prints something about gpg itself (`--version`) and names no user.
    AboutGpg,
    /// Reads public keys.
    Read {
        /// All options, including the command.
        options: Vec<OsString>,
        /// The users whose keys are read; empty for all keys.
        users: Vec<OsString>,
    },
    /// Makes a signature.
    Sign {
        /// All options, including the command but not `-u`.
        options: Vec<OsString>,
        /// The user whose key signs.
        user: OsString,
        /// The positional arguments: the files to sign.
        files: Vec<OsString>,
    },
}

/// Commands that read public keys.
const READING: &str = "--export --locate-key --locate-keys --list-key --list-keys \
    --list-public-keys --list-secret-keys --list-sigs --check-sigs --fingerprint -k -K";

/// Commands that sign.
const SIGNING: &str = "--sign --detach-sign --clearsign --clear-sign -s -b";

/// Commands about gpg itself.
const ABOUT: &str = "--version --help -h --warranty --dump-options";

/// Options without a value.
const FLAGS: &str = "--armor --no-armor -a --batch --no-batch --no-tty --yes --quiet -q --verbose -v \
    --no-verbose --no-secmem-warning --ignore-time-conflict --force-v3-sigs --files-are-digests \
    --with-colons --with-fingerprint --with-keygrip --with-secret --with-sig-list --fixed-list-mode";

/// Options with a value, as `--option=value` or in the next word.
const VALUED: &str = "--digest-algo --pinentry-mode --passphrase-fd --status-fd --logger-fd \
    --keyid-format --list-options --export-options --faked-system-time --output -o --comment";

/// Options whose value is a user.
const USER: &str = "--local-user -u";

/// Parses `arguments`, which do not include the program's name. `Err` is a sentence for the user.
pub fn parse(arguments: &[OsString]) -> Result<Call, String> {
    // signd exports a public key without `--` before the user, so a user that looks like an option must be
    // taken as one.
    if let [export, armor, user] = arguments {
        if export == "--export" && armor == "-a" {
            let options = vec![export.clone(), armor.clone()];
            return Ok(Call::Read { options, users: vec![user.clone()] });
        }
    }
    let mut found = Words::default();
    let mut words = arguments.iter();
    while let Some(word) = words.next() {
        if word == "--" {
            found.rest.extend(words.by_ref().cloned());
        } else if word == "-" || !word.as_bytes().starts_with(b"-") {
            found.rest.push(word.clone());
        } else if word.as_bytes().starts_with(b"--") {
            found.long_option(word, &mut words)?;
        } else {
            found.short_options(word, &mut words)?;
        }
    }
    found.into_call()
}

fn is_in(table: &str, name: &str) -> bool {
    table.split_whitespace().any(|one| one == name)
}

fn takes_value(name: &str) -> bool {
    is_in(VALUED, name) || is_in(USER, name)
}

fn unknown(word: &OsStr) -> String {
    format!("option {word:?} is not known here")
}

/// The arguments of a command line, sorted by kind.
#[derive(Default)]
struct Words {
    options: Vec<OsString>,
    users: Vec<OsString>,
    rest: Vec<OsString>,
    about: bool,
    reading: bool,
    signing: bool,
}

impl Words {
    fn long_option<'a>(
        &mut self,
        word: &OsStr,
        words: &mut impl Iterator<Item = &'a OsString>,
    ) -> Result<(), String> {
        let bytes = word.as_bytes();
        let Some(at) = bytes.iter().position(|byte| *byte == b'=') else {
            return self.option(word.to_str().unwrap_or_default(), word, || words.next().cloned());
        };
        let name = std::str::from_utf8(&bytes[..at]).unwrap_or_default();
        if is_in(USER, name) {
            self.users.push(OsStr::from_bytes(&bytes[at + 1..]).into());
        } else if is_in(VALUED, name) {
            self.options.push(word.into());
        } else {
            return Err(unknown(word));
        }
        Ok(())
    }

    /// Parses a cluster of one-letter options, like `-sbo`. Only the last letter can be an option with a value.
    fn short_options<'a>(
        &mut self,
        word: &OsStr,
        words: &mut impl Iterator<Item = &'a OsString>,
    ) -> Result<(), String> {
        let letters = word.to_str().ok_or_else(|| unknown(word))?;
        for (at, letter) in letters.char_indices().skip(1) {
            let name = format!("-{letter}");
            let attached = &letters[at + letter.len_utf8()..];
            self.option(&name, word, || match attached {
                "" => words.next().cloned(),
                attached => Some(attached.into()),
            })?;
            if takes_value(&name) {
                break;
            }
        }
        Ok(())
    }

    /// Records the option `name`, which stands in the argument `word`, and its value if it takes one.
    fn option(
        &mut self,
        name: &str,
        word: &OsStr,
        value: impl FnOnce() -> Option<OsString>,
    ) -> Result<(), String> {
        if takes_value(name) {
            let value = value().ok_or_else(|| format!("option {name:?} needs a value"))?;
            match is_in(USER, name) {
                true => self.users.push(value),
                false => self.options.extend([name.into(), value]),
            }
            return Ok(());
        }
        if ![ABOUT, READING, SIGNING, FLAGS].iter().any(|table| is_in(table, name)) {
            return Err(unknown(word));
        }
        self.about |= is_in(ABOUT, name);
        self.reading |= is_in(READING, name);
        self.signing |= is_in(SIGNING, name);
        self.options.push(name.into());
        Ok(())
    }

    fn into_call(mut self) -> Result<Call, String> {
        match (self.about, self.reading, self.signing) {
            // gpg itself acts on a command, or on an argument before `--version`, before it gets to
            // `--version`.
            (true, false, false) if self.users.is_empty() && self.rest.is_empty() => {
                Ok(Call::AboutGpg)
            }
            (false, true, false) => {
                self.users.append(&mut self.rest);
                Ok(Call::Read { options: self.options, users: self.users })
            }
            (false, false, true) => match <[_; 1]>::try_from(self.users) {
                Ok([user]) => Ok(Call::Sign { options: self.options, user, files: self.rest }),
                Err(_) => Err("say whose key is to sign with one -u".into()),
            },
            _ => Err(
                "it neither reads public keys nor signs; for anything else run gpg on the home \
                      of the key"
                    .into(),
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(words: &[&str]) -> Result<Call, String> {
        parse(&words.iter().map(OsString::from).collect::<Vec<_>>())
    }

    fn strings(words: &[&str]) -> Vec<OsString> {
        words.iter().map(OsString::from).collect()
    }

    #[test]
    fn reads_the_calls_of_signd() {
        for probe in ["--pinentry-mode=loopback", "--files-are-digests"] {
            assert_eq!(read(&[probe, "--version"]), Ok(Call::AboutGpg));
        }
        assert_eq!(
            read(&["--export", "-a", "a#b@c"]),
            Ok(Call::Read { options: strings(&["--export", "-a"]), users: strings(&["a#b@c"]) })
        );
        let locate = ["--locate-key", "--with-fingerprint", "--with-keygrip", "--with-colons"];
        let mut words = locate.to_vec();
        words.extend(["--", "a#b@c"]);
        assert_eq!(
            read(&words),
            Ok(Call::Read { options: strings(&locate), users: strings(&["a#b@c"]) })
        );
        let before = "--batch --force-v3-sigs --files-are-digests --digest-algo=SHA256 --no-verbose \
                      --no-armor --no-secmem-warning --ignore-time-conflict \
                      --pinentry-mode=loopback --passphrase-fd=0";
        let call = format!("{before} -u a#b@c -sbo - 0123@00");
        let words: Vec<_> = call.split_whitespace().collect();
        let options = format!("{before} -s -b -o -");
        let options: Vec<_> = options.split_whitespace().collect();
        assert_eq!(
            read(&words),
            Ok(Call::Sign {
                options: strings(&options),
                user: "a#b@c".into(),
                files: strings(&["0123@00"])
            })
        );
    }

    #[test]
    fn a_user_is_never_an_option() {
        for user in ["--version", "-o/tmp/x", "--homedir=/tmp", "a b", "*", "", "--", "-", "--help"]
        {
            let users = strings(&[user]);
            assert!(
                matches!(read(&["--export", "-a", user]), Ok(Call::Read { users: u, .. }) if u == users)
            );
            let locate = ["--locate-key", "--with-colons", "--", user];
            assert!(matches!(read(&locate), Ok(Call::Read { users: u, .. }) if u == users));
            let sign = ["--batch", "-u", user, "-sbo", "-", "x"];
            assert!(matches!(read(&sign), Ok(Call::Sign { user: u, .. }) if u == user));
        }
    }

    #[test]
    fn operators_may_write_it_otherwise() {
        for words in [&["-a", "--export", "x"][..], &["-k", "--", "x"], &["--fingerprint", "x"]] {
            assert!(
                matches!(read(words), Ok(Call::Read { users, .. }) if users == ["x"]),
                "{words:?}"
            );
        }
        assert!(matches!(read(&["--list-keys"]), Ok(Call::Read { users, .. }) if users.is_empty()));
        for words in [
            &["--local-user=x", "-b", "f"][..],
            &["--local-user", "x", "-b", "f"],
            &["-ux", "-b", "f"],
            &["-bu", "x", "f"],
        ] {
            assert!(matches!(read(words), Ok(Call::Sign { user, .. }) if user == "x"), "{words:?}");
        }
    }

    #[test]
    fn refuses_what_it_does_not_know() {
        for words in [
            &[][..],
            &["--homedir", "/tmp", "-k"],
            &["--homedir=/tmp", "-k"],
            &["--delete-secret-keys", "x"],
            &["--import"],
            &["--armor=yes", "-k"],
            &["-kz"],
            &["-b", "f"],
            &["-u", "x", "-u", "y", "-b", "f"],
            &["-b", "-u"],
            &["--export", "-b", "-u", "x"],
            &["--exp", "x"],
            &["-K", "x", "--version"],
            &["x", "--version"],
            &["-u", "x", "-b", "f", "--version"],
        ] {
            assert!(read(words).is_err(), "{words:?}");
        }
    }
}
