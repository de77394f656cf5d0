//! Tries a key out: a signature that gpg makes and verifies, in a home of staging.

use std::path::Path;
use std::time::Instant;

use super::call::{self, Call};
use super::{Fingerprint, Gpg};
use crate::error::{Error, Result};

/// What is signed. It says nothing, so that the signature is of no use to anybody.
const TEXT: &[u8] = b"copr-keygen check: this signature was made to try a key out.\n";

impl Gpg {
    /// Signs with the key in `home`, which is in staging and holds its keyring and secret key, and
    /// verifies the signature. `at` (Unix time) is the time gpg is told: within the life of the key,
    /// so that an expired key can be tried as well.
    pub fn trial_signature(
        &self,
        home: &Path,
        passphrase_file: &Path,
        fingerprint: &Fingerprint,
        at: u64,
        deadline: Instant,
    ) -> Result<()> {
        let signature = home.join("trial.sig");
        // With "!" the time stands still, however long it takes.
        let time = format!("--faked-system-time={at}!");
        let (finished, took) = self.run_with_agent(Call {
            home,
            arguments: vec![
                "--pinentry-mode=loopback".into(),
                "--passphrase-file".into(),
                passphrase_file.into(),
                time.clone().into(),
                "--digest-algo=SHA256".into(),
                "--local-user".into(),
                format!("{fingerprint}!").into(),
                "--output".into(),
                signature.clone().into(),
                "--detach-sign".into(),
            ],
            stdin: TEXT,
            deadline,
        })?;
        call::succeeded(finished, took, "making a trial signature")?;

        let (finished, took) = self.run(Call {
            home,
            arguments: vec![
                time.into(),
                "--verify".into(),
                "--".into(),
                signature.into(),
                "-".into(),
            ],
            stdin: TEXT,
            deadline,
        })?;
        let output = call::succeeded(finished, took, "verifying a trial signature")?;
        let valid = format!("[GNUPG:] VALIDSIG {fingerprint} ");
        if !String::from_utf8_lossy(&output.stdout).lines().any(|line| line.starts_with(&valid)) {
            return Err(Error::GpgFailed {
                how: format!("its signature is not one of {fingerprint}"),
                words: output.words,
            });
        }
        Ok(())
    }
}
