//! Makes trial signatures in staging homes. They show whether a key can sign, and which key gpg chooses.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use crate::call::{GpgCall, Keyring, STATUS};
use crate::error::{Error, Result};
use crate::fingerprint::Fingerprint;
use crate::programs::Gpg;
use crate::status;

/// The text that is signed. It states nothing, so the signature is of no use to anyone.
pub const SAMPLE: &[u8] = b"copr-keygen made this signature to see whether the key signs.\n";

/// A hash algorithm that every key can sign with. A NIST P-384 or P-521 key cannot sign a shorter digest.
pub(crate) const FOR_ANY_KEY: &str = "SHA512";

/// Returns the time that gpg's clock must show to sign with a key that has expired, or was created in the
/// future. Returns `None` if the key can sign now. All times are Unix times.
pub fn time_of_signature(now: u64, created: u64, expires: Option<u64>) -> Option<u64> {
    // A signature takes less than a minute. A key that expires within the next minute might expire meanwhile.
    let expired = expires.filter(|at| *at <= now + 60).map(|at| at.saturating_sub(1));
    expired.or((created > now).then_some(created + 1))
}

/// Which agent makes a signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SigningAgent {
    /// A new agent, which is started for the signature and ends after it.
    Own,
    /// The running agent whose socket is in the home.
    Running,
}

impl Gpg {
    /// Makes a signature with the key in `home` and `passphrase`, and verifies it with the keyring there. With
    /// `apart`, that keyring verifies it instead: for example the one that an old service has used until now.
    /// gpg runs with its clock at `at`. A revoked key cannot be tried.
    pub fn try_signature(
        &self,
        home: &Path,
        passphrase: &[u8],
        fingerprint: &Fingerprint,
        at: Option<u64>,
        apart: Option<Keyring>,
        deadline: Instant,
    ) -> Result<()> {
        let call = |home| doubting(self.call(home, deadline), at);
        let (signature, _) =
            sign(SigningAgent::Own, call(home), passphrase, &format!("{fingerprint}!"))?;
        let verifying = match apart {
            Some(keyring) => call(keyring.home).reading(keyring),
            None => call(home),
        };
        verify(verifying, &signature, fingerprint)?;
        remove(&signature)
    }

    /// As [`Gpg::try_signature`], with the given agent. The keyring in `home` verifies the signature.
    pub fn try_signature_by(
        &self,
        agent: SigningAgent,
        home: &Path,
        passphrase: &[u8],
        fingerprint: &Fingerprint,
        at: Option<u64>,
        deadline: Instant,
    ) -> Result<()> {
        let call = || doubting(self.call(home, deadline), at);
        let (signature, _) = sign(agent, call(), passphrase, &format!("{fingerprint}!"))?;
        verify(call(), &signature, fingerprint)?;
        remove(&signature)
    }

    /// Verifies a detached signature over [`SAMPLE`] that was made elsewhere, with the keyring in `home`.
    pub fn verify_sample(
        &self,
        home: &Path,
        signature: &[u8],
        fingerprint: &Fingerprint,
        deadline: Instant,
    ) -> Result<()> {
        let file = home.join("sample.sig");
        fs::write(&file, signature)
            .map_err(|e| Error::io(format!("writing {}", file.display()), e))?;
        verify(doubting(self.call(home, deadline), None), &file, fingerprint)?;
        remove(&file)
    }

    /// Makes a signature as `user` and verifies it. gpg chooses the key from `keyring` by itself. The secret
    /// keys are in the home of `keyring`, and gpg runs with its clock at `at`. Returns the fingerprint of the
    /// key that signed.
    pub fn sign_as(
        &self,
        keyring: Keyring,
        passphrase: &[u8],
        user: &str,
        at: Option<u64>,
        deadline: Instant,
    ) -> Result<Fingerprint> {
        let call = || doubting(self.call(keyring.home, deadline), at).reading(keyring);
        let (signature, signer) = sign(SigningAgent::Own, call(), passphrase, user)?;
        verify(call(), &signature, &signer)?;
        remove(&signature)?;
        Ok(signer)
    }

    /// Returns the fingerprint of the key that gpg chooses to sign as `user`.
    pub fn who_signs(
        &self,
        home: &Path,
        passphrase: &[u8],
        user: &str,
        at: Option<u64>,
        deadline: Instant,
    ) -> Result<Fingerprint> {
        let call = doubting(self.call(home, deadline), at);
        let (signature, signer) = sign(SigningAgent::Own, call, passphrase, user)?;
        remove(&signature)?;
        Ok(signer)
    }
}

/// Signs [`SAMPLE`] as `user`. Returns the path of the signature, and the fingerprint of the key that made it.
fn sign(
    agent: SigningAgent,
    call: GpgCall,
    passphrase: &[u8],
    user: &str,
) -> Result<(PathBuf, Fingerprint)> {
    let signature = call.home.join("sample.sig");
    let call = call
        .passphrase(passphrase, SAMPLE)
        .words([format!("--digest-algo={FOR_ANY_KEY}")])
        .words(["--local-user", user, "--output"])
        .words([&signature]);
    let finished = match agent {
        SigningAgent::Own => call.words(["--detach-sign"]).run_with_agent()?,
        SigningAgent::Running => call.words([STATUS, "--detach-sign"]).run()?,
    };
    let output = finished.succeeded("making a signature")?;
    let created: Vec<_> = status::lines(&output.stdout, "SIG_CREATED")
        .filter_map(|words| Fingerprint::parse(words.last()?))
        .collect();
    match <[_; 1]>::try_from(created) {
        Ok([signer]) => Ok((signature, signer)),
        Err(_) => {
            let how = "it did not report one signature".into();
            Err(Error::Failed { how, words: output.words })
        }
    }
}

/// Fails unless `signature` is a valid signature over [`SAMPLE`] by the key `fingerprint`.
fn verify(call: GpgCall, signature: &Path, fingerprint: &Fingerprint) -> Result<()> {
    let call = call.input(&[SAMPLE]).words([STATUS, "--verify"]).on(signature).words(["-"]);
    let output = call.run()?.succeeded("verifying a signature")?;
    let mut valid = status::lines(&output.stdout, "VALIDSIG");
    if valid.any(|words| words.first() == Some(&fingerprint.as_str())) {
        return Ok(());
    }
    let how = format!("the signature it made is not one of {fingerprint}");
    Err(Error::Failed { how, words: output.words })
}

/// Makes gpg verify every self-signature itself, with its clock at `at`. A keyring from another host may hold
/// forged results of earlier checks.
fn doubting(call: GpgCall, at: Option<u64>) -> GpgCall {
    call.at(at).words(["--no-sig-cache"])
}

fn remove(signature: &Path) -> Result<()> {
    fs::remove_file(signature)
        .map_err(|e| Error::io(format!("removing {}", signature.display()), e))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_tried_within_their_life() {
        assert_eq!(time_of_signature(1000, 1, None), None);
        assert_eq!(time_of_signature(1000, 1, Some(5000)), None);
        assert_eq!(time_of_signature(1000, 1, Some(900)), Some(899));
        assert_eq!(time_of_signature(1000, 1, Some(1030)), Some(1029));
        assert_eq!(time_of_signature(1000, 1200, None), Some(1201));
    }
}
