//! Encrypts a stream to certificates. gpg reads the stream from a pipe, so the cleartext never reaches a disk.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use crate::error::{Error, FullDisk, Result};
use crate::feed::Feed;
use crate::listing;
use crate::programs::{Gpg, check_program};

/// How long gpg may go without reading a byte. Its output may cross a slow network, so this is longer than the
/// setting `gpg_timeout`.
const PATIENCE: Duration = Duration::from_secs(600);

/// A running gpg that encrypts the bytes written to it. Dropping it kills gpg before the end of the message, so
/// nobody can take the truncated output for a whole message.
pub struct Encryption(Feed);

impl Gpg {
    /// Starts to encrypt to the certificates in the files `recipients`, one in each. `home` is a staging home.
    /// gpg writes the message to `to`.
    pub fn encrypt(&self, home: &Path, recipients: &[PathBuf], to: Stdio) -> Result<Encryption> {
        check_program(&self.gpg, "gpg")?;
        let mut call = self.long_call(home, Instant::now()).words([
            "--no-options",
            "--no-encrypt-to",
            "--no-armor",
        ]);
        for recipient in recipients {
            call = call.words(["--recipient-file".into(), recipient.as_os_str().to_owned()]);
        }
        call.words(["--output", "-", "--encrypt"]).start(to, PATIENCE).map(Encryption)
    }

    /// Checks that `file` holds one certificate that can be encrypted to, and no secret key. The inner `Err` is
    /// the reason why not.
    pub fn check_recipient(
        &self,
        home: &Path,
        file: &Path,
        deadline: Instant,
    ) -> Result<std::result::Result<(), String>> {
        // gpg looks up an expired key in the trust database and fails if there is none. With this trust model,
        // it creates one in its home.
        let options = ["--no-options", "--trust-model=pgp", "--with-colons", "--show-keys"];
        let shown = self.call(home, deadline).words(options).on(file).run()?;
        // gpg fails if the file holds no certificate at all.
        match shown.succeeded("looking at a certificate") {
            Ok(output) => Ok(judge(&output.stdout)),
            Err(Error::Failed { words, .. }) => {
                Ok(Err(format!("gpg does not take it for a certificate: {words}")))
            }
            Err(e) => Err(e),
        }
    }
}

/// Judges the listing of a file that should hold the certificate of a recipient. `Err` says what is wrong.
fn judge(listing: &[u8]) -> std::result::Result<(), String> {
    let text = String::from_utf8_lossy(listing);
    let lines = listing::lines(&text);
    if lines.iter().any(|line| matches!(line.kind(), "sec" | "ssb")) {
        return Err(
            "holds a secret key, which must never be on this host; export the certificate \
                    alone, with gpg --export"
                .into(),
        );
    }
    let keys: Vec<_> = lines.iter().filter(|line| line.kind() == "pub").collect();
    match keys[..] {
        // Capital letters are the capabilities that the certificate as a whole still has.
        [key] if key.field(12).contains('E') => Ok(()),
        [_] => {
            Err("cannot be encrypted to: it has expired, is revoked, or has no key for that".into())
        }
        _ => Err(format!("holds {} certificates instead of one", keys.len())),
    }
}

impl Encryption {
    /// Whether a write to gpg has failed; [`Encryption::finish`] returns the reason.
    pub fn is_broken(&self) -> bool {
        self.0.is_broken()
    }

    /// Ends the message and waits for gpg. After an error, the output is not a whole message.
    /// [`Error::NoSpace`] names the output by `doing`.
    pub fn finish(self, doing: &str) -> Result<()> {
        let finished = self.0.finish().map_err(|e| Error::io("waiting for gpg", e))?;
        finished.succeeded_on(FullDisk::Named, doing).map(drop)
    }
}

impl Write for Encryption {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
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
