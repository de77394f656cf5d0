//! `/etc/sign.conf`, the configuration of obs-signd, as signd reads it: lines of words, the first of
//! which names the setting. Only what concerns us.

use std::io;
use std::path::{Path, PathBuf};

/// Longer than any sign.conf.
const SIZE_MAX: u64 = 1 << 20;

/// The port of signd when none is named.
const PORT: u16 = 5167;

/// What sign.conf says.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct SignConf {
    pub phrases: Option<PathBuf>,
    pub gpg: Option<PathBuf>,
    pub gnupghome: Option<PathBuf>,
    pub pidfile: Option<PathBuf>,
    pub tmpdir: Option<PathBuf>,
    pub server: Option<String>,
    pub allow: Vec<String>,
    /// Where signd listens. `Err` is what stands in place of a number.
    pub port: Option<Result<u16, String>>,
}

impl SignConf {
    pub fn read(path: &Path) -> io::Result<Self> {
        use std::io::Read;
        use std::os::unix::fs::OpenOptionsExt;
        let file = std::fs::File::options().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
        if !file.metadata()?.is_file() {
            return Err(io::Error::other("it is not a regular file"));
        }
        let mut text = Vec::new();
        file.take(SIZE_MAX).read_to_end(&mut text)?;
        Ok(Self::parse(&String::from_utf8_lossy(&text)))
    }

    fn parse(text: &str) -> Self {
        let mut conf = Self::default();
        let (mut port, mut proxy_port) = (None, None);
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let mut words = line.split_ascii_whitespace();
            let Some(name) = words.next() else { continue };
            if name == "allow:" {
                conf.allow.extend(words.map(str::to_owned));
                continue;
            }
            let value = words.next();
            let path = value.map(PathBuf::from);
            let number = value.map(|text| text.parse().map_err(|_| text.to_owned()));
            match name {
                "phrases:" => conf.phrases = path,
                "gpg:" => conf.gpg = path,
                "gnupghome:" => conf.gnupghome = path,
                "pidfile:" => conf.pidfile = path,
                "tmpdir:" => conf.tmpdir = path,
                "server:" => conf.server = value.map(str::to_owned),
                "port:" => port = number,
                "proxyport:" => proxy_port = number,
                _ => {}
            }
        }
        // signd listens at the proxy port, which is the port unless it is named.
        conf.port = proxy_port.or(port);
        conf
    }

    /// The port, or what stands in its place.
    pub fn port(&self) -> Result<u16, &str> {
        match &self.port {
            None => Ok(PORT),
            Some(Ok(port)) => Ok(*port),
            Some(Err(text)) => Err(text),
        }
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
        assert_eq!(conf.phrases.as_deref(), Some(Path::new("/var/lib/b")));
        assert_eq!(conf.gpg.as_deref(), Some(Path::new("/usr/bin/gpg-copr")));
        assert_eq!(conf.allow, ["127.0.0.1", "192.0.2.20", "192.0.2.21"]);
        assert_eq!((conf.gnupghome.as_deref(), conf.port()), (None, Ok(1)));
        assert_eq!(SignConf::parse("").port(), Ok(5167));
        assert_eq!(SignConf::parse("proxyport: 9\nport: 1").port(), Ok(9));
        assert_eq!(SignConf::parse("port: x").port(), Err("x"));
    }

    #[test]
    fn the_documented_one_has_all_it_takes() {
        let conf = SignConf::parse(include_str!("../../../docs/sign.conf"));
        assert_eq!(conf.phrases.as_deref(), Some(Path::new("/var/lib/copr-keygen/phrases")));
        assert_eq!(conf.gnupghome.as_deref(), Some(Path::new("/var/lib/copr-keygen/gnupg")));
        assert!(conf.gpg.is_some() && !conf.allow.is_empty() && conf.server.is_none());
    }
}
