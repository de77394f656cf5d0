//! Signs a digest with a secret key that only gpg-agent can use. This talks to the agent directly: gpg signs
//! files, not digests.

use std::path::Path;
use std::time::Instant;

use zeroize::Zeroizing;

use crate::error::{Error, Result};
use crate::fingerprint::Keygrip;
use crate::hex;
use crate::programs::Gpg;

impl Gpg {
    /// Signs `digest` with the secret key `keygrip` in the staging home `home`, by an agent of its own. `hash`
    /// is the OpenPGP number of the hash algorithm. Returns the signature as an S-expression of libgcrypt.
    pub fn sign_digest(
        &self,
        home: &Path,
        keygrip: &Keygrip,
        passphrase: &[u8],
        hash: u8,
        digest: &[u8],
        deadline: Instant,
    ) -> Result<Vec<u8>> {
        let output = home.join("signature");
        let commands = format!(
            "/nosubst\n/definq PASSPHRASE phrase\nOPTION pinentry-mode=loopback\nSIGKEY {keygrip}\n\
             SETHASH {hash} {}\n/datafile {}\nPKSIGN\n/bye\n",
            *hex::encode(digest),
            output.display()
        );
        // gpg-connect-agent drops spaces at both ends of a value, so every byte is escaped.
        let mut phrase = Zeroizing::new(Vec::with_capacity(4 * passphrase.len()));
        for byte in passphrase {
            phrase.extend_from_slice(b"\\x");
            phrase.extend_from_slice(hex::encode(&[*byte]).as_bytes());
        }
        let call = self.call(home, deadline);
        let finished = call
            .input(&[b"/subst\n/let phrase ${unescape ", &phrase, b"}\n", commands.as_bytes()])
            .talk_to_agent()?;
        let words = finished.succeeded("signing a digest")?;
        let refusal =
            words.stdout.split(|byte| *byte == b'\n').find(|line| line.starts_with(b"ERR "));
        if let Some(refusal) = refusal {
            let how = String::from_utf8_lossy(refusal).into_owned();
            return Err(Error::Failed { how, words: words.words });
        }
        std::fs::read(&output).map_err(|e| Error::io(format!("reading {}", output.display()), e))
    }
}
