//! Makes trial signatures in homes of staging, to find out whether a key can sign, and which key gpg takes.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use crate::call::{GpgCall, Keyring, STATUS};
use crate::error::{Error, Result};
use crate::fingerprint::Fingerprint;
use crate::programs::Gpg;
use crate::status;

/// The text that is signed. It states nothing, so that the signature is of no use.
pub const SAMPLE: &[u8] = b"copr-keygen made this signature to see whether the key signs.\n";

/// A hash algorithm with which every key can sign. One of NIST P-384 or P-521 cannot sign a shorter digest.
pub(crate) const FOR_ANY_KEY: &str = "SHA512";

/// The time that gpg needs to sign with a key which has expired, or was created later than now; `None` when it
/// can sign now. All are Unix times.
pub fn time_of_signature(now: u64, created: u64, expires: Option<u64>) -> Option<u64> {
    // A minute is more than the signature may take.
    let expired = expires.filter(|at| *at <= now + 60).map(|at| at.saturating_sub(1));
    expired.or((created > now).then_some(created + 1))
}

/// Which agent makes a signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SigningAgent {
    /// One that is started for it, and gone afterwards.
    Own,
    /// The one whose socket is in the home.
    Running,
}

impl Gpg {
    /// Makes a signature with the key in `home` and `passphrase`, and verifies it with the keyring there. With
    /// `apart`, the keyring of another home verifies it, as one that was there before. gpg works at the time `at`.
    /// A revoked key cannot be tried.
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

    /// As [`Gpg::try_signature`], by this agent. The keyring in `home` alone verifies the signature.
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

    /// Verifies a detached signature over [`SAMPLE`] that somebody else made, with the keyring in `home` alone.
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

    /// Makes a signature as `user`, whose key gpg finds in `keyring` by itself, and verifies it. The secret keys
    /// are in the home of `keyring`, and gpg works at the time `at`. Returns the fingerprint of the key that
    /// signed.
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

    /// The fingerprint of the key that gpg takes to sign as `user`.
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

/// Has gpg sign the sample as `user`; returns the file with the signature, and the fingerprint of its key.
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

/// Fails unless the signature is a good one of `fingerprint`.
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

/// Has gpg verify every self-signature itself. A keyring from another host may claim that they have been verified.
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
