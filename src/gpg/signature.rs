//! Makes a signature for the only purpose of finding out whether a key can.

use std::path::Path;
use std::time::Instant;

use super::call::{self, Call};
use super::{Certificate, Gpg};
use crate::error::{Error, Result};

/// What is signed.
const DATA: &[u8] = b"copr-keygen tries whether this key can sign\n";

impl Gpg {
    /// Makes a signature with the key of `certificate` in `home`, which is in staging, and verifies
    /// it with the keyring there. A key that had expired signs as of its last second. A key that is
    /// revoked cannot be tried.
    pub fn try_signature(
        &self,
        home: &Path,
        passphrase_file: &Path,
        certificate: &Certificate,
        now: u64,
        deadline: Instant,
    ) -> Result<()> {
        let fingerprint = certificate.fingerprint.as_str();
        let signature = home.join("signature");
        // A keyring from elsewhere may claim that its self-signatures have been verified.
        let mut arguments = vec!["--no-sig-cache".into()];
        if let Some(expired) = certificate.expires.filter(|at| *at <= now) {
            arguments.push(format!("--faked-system-time={}!", expired.saturating_sub(1)).into());
        }
        let verify_arguments = arguments.clone();
        arguments.extend(["--pinentry-mode=loopback".into(), "--passphrase-file".into()]);
        arguments.extend([passphrase_file.into(), "--digest-algo=SHA256".into()]);
        arguments.extend(["--local-user".into(), format!("{fingerprint}!").into()]);
        arguments.extend(["--output".into(), signature.clone().into(), "--detach-sign".into()]);
        let (finished, took) =
            self.run_with_agent(Call { home, arguments, stdin: DATA, deadline })?;
        call::succeeded(finished, took, "trying a key")?;

        let mut arguments = verify_arguments;
        arguments.extend(["--verify".into(), "--".into(), signature.into(), "-".into()]);
        let (finished, took) = self.run(Call { home, arguments, stdin: DATA, deadline })?;
        let output = call::succeeded(finished, took, "trying a key")?;
        let valid = format!("[GNUPG:] VALIDSIG {fingerprint} ");
        if !String::from_utf8_lossy(&output.stdout).contains(&valid) {
            return Err(Error::GpgFailed {
                how: "the signature it made is not of this key".into(),
                words: output.words,
            });
        }
        Ok(())
    }
}
