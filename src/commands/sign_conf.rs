//! `/etc/sign.conf`, the configuration of obs-signd, read as signd reads it: each line is a list of words,
//! the first of which names the setting. Only the settings used here have methods.

use std::collections::HashMap;
use std::io;
use std::path::Path;

use keystore::{Symlinks, beginning, open_regular};

/// The number of bytes that are read at most; none of these files is that long.
const SIZE_MAX: u64 = 1 << 20;

/// The default port of signd.
const PORT: u16 = 5167;

/// Reads a text file that belongs to somebody else. Fails on anything but a regular file, so that a named pipe makes
/// nobody wait.
pub fn read_text(path: &Path) -> io::Result<String> {
    let file = open_regular(path, Symlinks::Followed)?
        .ok_or_else(|| io::Error::other("it is not a regular file"))?;
    Ok(String::from_utf8_lossy(&beginning(file, SIZE_MAX)?).into_owned())
}

/// The words of each setting in sign.conf. The names include their trailing colon.
#[derive(Debug)]
pub struct SignConf(HashMap<String, Vec<String>>);

impl SignConf {
    pub fn read(path: &Path) -> io::Result<Self> {
        read_text(path).map(|text| Self::parse(&text))
    }

    fn parse(text: &str) -> Self {
        let mut settings: HashMap<_, Vec<String>> = HashMap::new();
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let mut words = line.split_ascii_whitespace().map(str::to_owned);
            let Some(name) = words.next() else { continue };
            let adds_up = name == "allow:";
            let known = settings.entry(name).or_default();
            if !adds_up {
                known.clear();
            }
            known.extend(words);
        }
        Self(settings)
    }

    /// Returns the clients that may connect to signd (`allow:`).
    pub fn allow(&self) -> &[String] {
        self.0.get("allow:").map_or(&[], Vec::as_slice)
    }

    /// Returns the first word of a setting.
    pub fn word(&self, name: &str) -> Option<&str> {
        self.0.get(name)?.first().map(String::as_str)
    }

    /// Returns the first word of a setting as a path.
    pub fn path(&self, name: &str) -> Option<&Path> {
        self.word(name).map(Path::new)
    }

    /// Returns the port at which signd listens: `proxyport:`, which defaults to `port:`. `Err` holds a word
    /// that is not a port number.
    pub fn port(&self) -> Result<u16, &str> {
        let word = self.word("proxyport:").or_else(|| self.word("port:"));
        word.map_or(Ok(PORT), |word| word.parse().map_err(|_| word))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_read_as_signd_reads_it() {
        let conf = SignConf::parse(
            "# phrases: /no\n\nallow: 127.0.0.1 192.0.2.20\nallow:  192.0.2.21\n\
             phrases:\t/var/lib/a  junk\n  gpg: /usr/bin/gpg-copr\nphrases: /var/lib/b\nport: 1\n\
             unknown: x\ngnupghome:\n",
        );
        assert_eq!(conf.path("phrases:"), Some(Path::new("/var/lib/b")));
        assert_eq!(conf.path("gpg:"), Some(Path::new("/usr/bin/gpg-copr")));
        assert_eq!(conf.allow(), ["127.0.0.1", "192.0.2.20", "192.0.2.21"]);
        assert_eq!((conf.path("gnupghome:"), conf.port()), (None, Ok(1)));
        assert_eq!(SignConf::parse("").port(), Ok(5167));
        assert_eq!(SignConf::parse("proxyport: 9\nport: 1").port(), Ok(9));
        assert_eq!(SignConf::parse("port: x").port(), Err("x"));
    }

    #[test]
    fn the_documented_one_has_all_it_takes() {
        let conf = SignConf::parse(include_str!("../../docs/sign.conf"));
        assert_eq!(conf.path("phrases:"), Some(Path::new("/var/lib/copr-keygen/phrases")));
        assert_eq!(conf.path("gnupghome:"), Some(Path::new("/var/lib/copr-keygen/gnupg")));
        assert!(conf.path("gpg:").is_some() && !conf.allow().is_empty());
        assert!(conf.word("server:").is_none());
    }
}
