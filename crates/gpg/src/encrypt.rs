//! Encrypts a stream to certificates. What is encrypted reaches gpg through a pipe and is never on a
//! disk in the clear.

use std::ffi::OsString;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use super::call::{self, Call, gpg_arguments};
use super::feed::Feed;
use super::{Gpg, is_program};
use crate::error::{Error, Place, Result};

/// How long gpg may take no byte. Its output may go over a network to somebody who is slow, so this
/// is more than the setting `gpg_timeout`.
const PATIENCE: Duration = Duration::from_secs(600);

/// A running encryption; what is written to it is encrypted. Dropped, it is broken off, so that
/// nobody can take what it has written for a whole message.
pub struct Encryption {
    feed: Feed,
    started: Instant,
}

impl Gpg {
    /// Begins to encrypt to the certificates in `recipients`, one in each file. `home` is in staging.
    pub fn encrypt(&self, home: &Path, recipients: &[PathBuf], to: Stdio) -> Result<Encryption> {
        is_program(&self.gpg, "gpg")?;
        let mut arguments = gpg_arguments(home);
        arguments.extend(["--no-options", "--no-encrypt-to", "--no-armor"].map(Into::into));
        for recipient in recipients {
            arguments.extend([OsString::from("--recipient-file"), recipient.into()]);
        }
        arguments.extend(["--output", "-", "--encrypt"].map(Into::into));
        let feed = Feed::start(&self.gpg, &arguments, to, PATIENCE)
            .map_err(|e| Error::io(format!("running {}", self.gpg.display()), e))?;
        Ok(Encryption { feed, started: Instant::now() })
    }

    /// Checks that `file` holds one certificate that can be encrypted to, and no secret key. `Err`
    /// is what is wrong with it.
    pub fn check_recipient(
        &self,
        home: &Path,
        file: &Path,
        deadline: Instant,
    ) -> Result<std::result::Result<(), String>> {
        // gpg asks the trust database about a key that has expired, and fails if there is none; under
        // this model it makes one in its home.
        let arguments = ["--no-options", "--trust-model=pgp", "--with-colons", "--show-keys", "--"];
        let mut arguments: Vec<OsString> = arguments.map(Into::into).into();
        arguments.push(file.into());
        let (finished, took) = self.run_silent(Call { home, arguments, stdin: b"", deadline })?;
        // gpg takes a file without any certificate for a failure.
        let output = match call::succeeded(finished, took, "looking at a certificate") {
            Ok(output) => output,
            Err(Error::Failed { words, .. }) => {
                return Ok(Err(format!("gpg does not take it for a certificate: {words}")));
            }
            Err(e) => return Err(e),
        };
        Ok(judge(&output.stdout))
    }
}

/// What a listing says about a file that is to hold a recipient's certificate.
fn judge(listing: &[u8]) -> std::result::Result<(), String> {
    let listing = String::from_utf8_lossy(listing);
    let fields = |line: &str| line.split(':').map(str::to_owned).collect::<Vec<_>>();
    let lines: Vec<_> = listing.lines().map(fields).collect();
    if lines.iter().any(|line| matches!(line[0].as_str(), "sec" | "ssb")) {
        return Err(
            "holds a secret key, which must never be on this host; export the certificate \
                    alone, with gpg --export"
                .into(),
        );
    }
    let keys: Vec<_> = lines.iter().filter(|line| line[0] == "pub").collect();
    match keys[..] {
        // Capital letters are what the key as a whole can still do.
        [key] if key.get(11).is_some_and(|can| can.contains('E')) => Ok(()),
        [_] => {
            Err("cannot be encrypted to: it has expired, is revoked, or has no key for that".into())
        }
        _ => Err(format!("holds {} certificates instead of one", keys.len())),
    }
}

impl Encryption {
    /// Whether gpg does not take what is written to it; [`Encryption::finish`] tells why.
    pub fn is_broken(&self) -> bool {
        self.feed.is_broken()
    }

    /// Ends the message. An error means that what was written is none; `doing` is for a file system
    /// that was full.
    pub fn finish(self, doing: &str) -> Result<()> {
        let finished = self.feed.finish().map_err(|e| Error::io("waiting for gpg", e))?;
        call::succeeded_at(Place::Named, finished, self.started.elapsed(), doing).map(drop)
    }
}

impl Write for Encryption {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.feed.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::judge;

    #[test]
    fn recipients_are_one_certificate_that_can_be_encrypted_to() {
        let good = "pub:-:2048:1:8247B2C2B0C5EAC9:1795374673:::-:::scESC::::::23::0:\n";
        assert_eq!(judge(good.as_bytes()), Ok(()));
        for (listing, words) in [
            ("".into(), "0 certificates"),
            (format!("{good}{good}"), "2 certificates"),
            (good.replace("scESC", "sc"), "expired"),
            (good.replace("pub", "sec"), "secret key"),
            (format!("{good}ssb:-:"), "secret key"),
            ("pub".into(), "expired"),
        ] {
            assert!(judge(listing.as_bytes()).is_err_and(|why| why.contains(words)), "{listing}");
        }
    }
}
