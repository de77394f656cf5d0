//! Handles the secret key in a staging home: finds out how it is protected, changes its passphrase, and makes a
//! revocation certificate in advance. Passphrases go through pipes.

use std::fs;
use std::path::Path;
use std::time::Instant;

use zeroize::Zeroizing;

use crate::error::{Error, Result};
use crate::fingerprint::Fingerprint;
use crate::programs::Gpg;
use crate::status::{self, error_code};

/// The number of "Bad passphrase" in libgpg-error.
const BAD_PASSPHRASE: u32 = 11;

/// How the secret key in a file of `private-keys-v1.d/` is protected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protection {
    /// The secret key is in the clear.
    None,
    /// The secret key is encrypted with a passphrase.
    Passphrase,
    /// The key is elsewhere: the file only names a smart card, or the key is sealed to a TPM.
    Card,
}

impl Protection {
    /// Detects the protection from the content of the file. Returns `None` if it is not a secret key
    /// (agent/keyformat.txt of GnuPG).
    pub fn of(file: &[u8]) -> Option<Self> {
        // gpg wraps long lines at any byte, so white space is removed before the search.
        let text: Vec<u8> = file.iter().copied().filter(|b| !b.is_ascii_whitespace()).collect();
        let text = Zeroizing::new(text);
        let holds = |marker: &[u8]| text.windows(marker.len()).any(|bytes| bytes == marker);
        let is_open = || holds(b"(protectionnone)") || holds(b"(10:protection4:none)");
        match () {
            () if holds(b"shadowed-private-key") => Some(Self::Card),
            // A key that was imported with `gpg --import` and not used since is still in OpenPGP format, with
            // the protection that it had there.
            () if holds(b"openpgp-native") && is_open() => Some(Self::None),
            () if holds(b"protected-private-key") => Some(Self::Passphrase),
            () if holds(b"private-key") => Some(Self::None),
            () => None,
        }
    }
}

impl Gpg {
    /// Changes the passphrase of the secret key in `home` to `new`. `old` is the current passphrase, or `None`
    /// if the key has none. gpg asks for an old passphrase only if there is one, and reads the answers in
    /// order. Returns `false` if `old` is wrong.
    pub fn change_passphrase(
        &self,
        home: &Path,
        fingerprint: &Fingerprint,
        old: Option<&[u8]>,
        new: &[u8],
        deadline: Instant,
    ) -> Result<bool> {
        let answers: &[&[u8]] = match old {
            Some(old) => &[old, b"\n", new, b"\n"],
            None => &[new, b"\n"],
        };
        let finished = self
            .call(home, deadline)
            .input(answers)
            .words(["--pinentry-mode=loopback", "--command-fd=0", "--change-passphrase"])
            .words([fingerprint.as_str()])
            .run_with_agent()?;
        // GnuPG 2.2 exits with status 0 even if the passphrase is wrong. Only the status lines tell.
        if status::lines(&finished.stdout, "SUCCESS").any(|words| words[..] == ["keyedit.passwd"]) {
            return finished.succeeded("changing a passphrase").map(|_| true);
        }
        let is_bad = |words: Vec<&str>| match words[..] {
            ["keyedit.passwd", code, ..] => error_code(code) == BAD_PASSPHRASE,
            _ => false,
        };
        if old.is_some() && status::lines(&finished.stdout, "ERROR").any(is_bad) {
            return Ok(false);
        }
        let words = finished.succeeded("changing a passphrase")?.words;
        Err(Error::Failed { how: "the passphrase was not changed".into(), words })
    }

    /// Makes an armored revocation certificate without a reason, like the one that gpg makes with every new
    /// key. `scratch` is a directory for the output of gpg.
    pub fn make_revocation(
        &self,
        home: &Path,
        passphrase: &[u8],
        fingerprint: &Fingerprint,
        scratch: &Path,
        deadline: Instant,
    ) -> Result<Vec<u8>> {
        let file = scratch.join("revocation.asc");
        // The answers to gpg's questions. Create a revocation: yes. Reason: none. Description: none. Is this
        // okay: yes.
        let call = self.call(home, deadline).passphrase(passphrase, b"y\n0\n\ny\n");
        call.words(["--no-batch", "--command-fd=0", "--output"])
            .words([&file])
            .words(["--gen-revoke", fingerprint.as_str()])
            .run_with_agent()?
            .succeeded("making a revocation certificate")?;
        fs::read(&file).map_err(|e| Error::io(format!("reading {}", file.display()), e))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn protection_is_told_in_both_formats_of_the_file() {
        for (file, expected) in [
            (
                &b"Created: 20261122T192927\nKey: (protected-private-key (rsa (n"[..],
                Some(Protection::Passphrase),
            ),
            (b"(21:protected-private-key(3:rsa", Some(Protection::Passphrase)),
            (b"Key: (private-key (ecc", Some(Protection::None)),
            (
                b"Key: (protected-private-key (ecc (protected openpgp-\n native (openpgp-private-key\n \
                  (csum \"3851\")(protection\n  none)))))",
                Some(Protection::None),
            ),
            (
                b"(21:protected-private-key(3:ecc(9:protected14:openpgp-native(10:protection4:none))))",
                Some(Protection::None),
            ),
            (
                b"Key: (protected-private-key (ecc (protected openpgp-native (protection sha1 AES",
                Some(Protection::Passphrase),
            ),
            (b"(11:private-key(3:rsa(1:n", Some(Protection::None)),
            (b"(20:shadowed-private-key(3:rsa", Some(Protection::Card)),
            (b"(10:public-key(3:rsa", None),
            (b"", None),
        ] {
            assert_eq!(Protection::of(file), expected, "{:?}", String::from_utf8_lossy(file));
        }
    }
}
