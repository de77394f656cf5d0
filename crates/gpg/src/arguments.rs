//! Reads a gpg command line as obs-signd and operators write it: finds the users (`-u`, the
//! positional ones) and keeps the rest as it is. Only options in the tables below are understood,
//! because what an option means for the word behind it must be known.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

/// What a command line asks for.
#[derive(Debug, PartialEq, Eq)]
pub enum Call {
    /// About gpg itself (`--version`): there is no user in it.
    AboutGpg,
    /// Reads public keys.
    Read {
        /// All options, the command among them.
        options: Vec<OsString>,
        /// Whose keys; none for all.
        users: Vec<OsString>,
    },
    /// Signs.
    Sign {
        /// All options, the command among them, less the user.
        options: Vec<OsString>,
        /// Whose key.
        user: OsString,
        /// What follows the options.
        files: Vec<OsString>,
    },
}

/// Commands that read public keys.
const READING: [&str; 12] = [
    "--export",
    "--locate-key",
    "--locate-keys",
    "--list-key",
    "--list-keys",
    "--list-public-keys",
    "--list-secret-keys",
    "--list-sigs",
    "--check-sigs",
    "--fingerprint",
    "-k",
    "-K",
];

/// Commands that sign.
const SIGNING: [&str; 6] = ["--sign", "--detach-sign", "--clearsign", "--clear-sign", "-s", "-b"];

/// Commands about gpg itself.
const ABOUT: [&str; 5] = ["--version", "--help", "-h", "--warranty", "--dump-options"];

/// Options without a value.
const FLAGS: [&str; 22] = [
    "--armor",
    "--no-armor",
    "-a",
    "--batch",
    "--no-batch",
    "--no-tty",
    "--yes",
    "--quiet",
    "-q",
    "--verbose",
    "-v",
    "--no-verbose",
    "--no-secmem-warning",
    "--ignore-time-conflict",
    "--force-v3-sigs",
    "--files-are-digests",
    "--with-colons",
    "--with-fingerprint",
    "--with-keygrip",
    "--with-secret",
    "--with-sig-list",
    "--fixed-list-mode",
];

/// Options with a value, as `--option=value` or in the next word.
const VALUED: [&str; 12] = [
    "--digest-algo",
    "--pinentry-mode",
    "--passphrase-fd",
    "--status-fd",
    "--logger-fd",
    "--keyid-format",
    "--list-options",
    "--export-options",
    "--faked-system-time",
    "--output",
    "-o",
    "--comment",
];

/// Options whose value is the user.
const USER: [&str; 2] = ["--local-user", "-u"];

/// Reads `arguments`, which do not contain the program's name. `Err` is a sentence.
pub fn parse(arguments: &[OsString]) -> Result<Call, String> {
    // signd asks for a public key without `--` before the user, who may look like an option.
    if let [export, armor, user] = arguments {
        if export == "--export" && armor == "-a" {
            let options = vec![export.clone(), armor.clone()];
            return Ok(Call::Read { options, users: vec![user.clone()] });
        }
    }
    let mut found = Found::default();
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

fn takes_value(option: &str) -> bool {
    VALUED.contains(&option) || USER.contains(&option)
}

#[derive(Default)]
struct Found {
    options: Vec<OsString>,
    users: Vec<OsString>,
    rest: Vec<OsString>,
    about: bool,
    reading: bool,
    signing: bool,
}

impl Found {
    fn long_option<'a>(
        &mut self,
        word: &OsStr,
        words: &mut impl Iterator<Item = &'a OsString>,
    ) -> Result<(), String> {
        let (name, value) = match word.as_bytes().iter().position(|b| *b == b'=') {
            Some(at) => {
                let (name, value) = word.as_bytes().split_at(at);
                (OsStr::from_bytes(name), Some(OsStr::from_bytes(&value[1..])))
            }
            None => (word, None),
        };
        let name = name.to_str().unwrap_or_default();
        if value.is_some() && !takes_value(name) {
            return Err(format!("option {word:?} is not known here"));
        }
        self.option(name, word)?;
        match value {
            Some(value) if USER.contains(&name) => self.users.push(value.into()),
            Some(_) => self.options.push(word.into()),
            None if takes_value(name) => self.next_value(name, words)?,
            None => {}
        }
        Ok(())
    }

    /// A cluster of one-letter options, like `-sbo`. Only the last one can have a value.
    fn short_options<'a>(
        &mut self,
        word: &OsStr,
        words: &mut impl Iterator<Item = &'a OsString>,
    ) -> Result<(), String> {
        let letters = word.to_str().ok_or_else(|| format!("option {word:?} is not known here"))?;
        for (at, letter) in letters.char_indices().skip(1) {
            let name = format!("-{letter}");
            self.option(&name, word)?;
            if takes_value(&name) {
                match &letters[at + letter.len_utf8()..] {
                    "" => self.next_value(&name, words)?,
                    attached => self.value(&name, attached.into()),
                }
                return Ok(());
            }
        }
        Ok(())
    }

    /// Takes note of the option `name`, found in `word`; one with a value is kept by the caller.
    fn option(&mut self, name: &str, word: &OsStr) -> Result<(), String> {
        self.about |= ABOUT.contains(&name);
        self.reading |= READING.contains(&name);
        self.signing |= SIGNING.contains(&name);
        if takes_value(name) {
            return Ok(());
        }
        let tables = [&ABOUT[..], &READING[..], &SIGNING[..], &FLAGS[..]];
        if !tables.iter().any(|table| table.contains(&name)) {
            return Err(format!("option {word:?} is not known here"));
        }
        self.options.push(name.into());
        Ok(())
    }

    /// Keeps the value of the option `name`, which is the next word.
    fn next_value<'a>(
        &mut self,
        name: &str,
        words: &mut impl Iterator<Item = &'a OsString>,
    ) -> Result<(), String> {
        let value = words.next().ok_or_else(|| format!("option {name:?} needs a value"))?.clone();
        self.value(name, value);
        Ok(())
    }

    fn value(&mut self, name: &str, value: OsString) {
        if USER.contains(&name) {
            self.users.push(value);
        } else {
            self.options.extend([name.into(), value]);
        }
    }

    fn into_call(mut self) -> Result<Call, String> {
        match (self.about, self.reading, self.signing) {
            // gpg itself would see a command, or the word before "--version", first.
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
