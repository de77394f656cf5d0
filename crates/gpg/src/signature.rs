//! Makes signatures for the only purpose of finding out whether a key can, or which key it is that
//! gpg takes. All of it in homes of staging.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use super::call::{self, Call};
use super::certificate::reading;
use super::inspect::living_at;
use super::{Fingerprint, Gpg, Keyring, status};
use crate::error::{Error, Result};

/// What is signed. It says nothing, so that the signature is of no use to anybody.
const SAMPLE: &[u8] = b"copr-keygen made this signature to see whether the key signs.\n";

/// The time gpg must be told for it to sign with a key that has expired, or that is of tomorrow; `None`
/// when now will do. All are Unix times.
pub fn time_of_signature(now: u64, created: u64, expires: Option<u64>) -> Option<u64> {
    // A minute is more than the signature may take.
    let expired = expires.filter(|at| *at <= now + 60).map(|at| at.saturating_sub(1));
    expired.or((created > now).then_some(created + 1))
}

impl Gpg {
    /// Makes a signature with the key in `home` and `passphrase`, and verifies it with the keyring there, or
    /// with `apart`, the keyring of another home: then what was made is held against what was there before.
    /// `at` is what gpg is told in place of the time. A key that is revoked cannot be tried.
    pub fn try_signature(
        &self,
        home: &Path,
        passphrase: &[u8],
        fingerprint: &Fingerprint,
        at: Option<u64>,
        apart: Option<Keyring>,
        deadline: Instant,
    ) -> Result<()> {
        let user = format!("{fingerprint}!");
        let options = doubting(at);
        let (signature, signer) = self.sign(home, &options, passphrase, &user, deadline)?;
        let mut options = options;
        options.extend(apart.map(reading).unwrap_or_default());
        let home = apart.map_or(home, |keyring| keyring.home);
        let words = self.verify(home, &options, &signature, fingerprint, deadline)?;
        if signer != *fingerprint {
            return Err(not_of(fingerprint, words));
        }
        remove(&signature)
    }

    /// Makes a signature as `user`, whose key gpg is to find in `keyring` by itself, and verifies it: the
    /// fingerprint of what it signed with. The secret keys are in the home of `keyring`. `at` is what gpg
    /// is told in place of the time.
    pub fn sign_as(
        &self,
        keyring: Keyring,
        passphrase: &[u8],
        user: &str,
        at: Option<u64>,
        deadline: Instant,
    ) -> Result<Fingerprint> {
        let mut options = reading(keyring);
        options.extend(doubting(at));
        let home = keyring.home;
        let (signature, signer) = self.sign(home, &options, passphrase, user, deadline)?;
        self.verify(home, &options, &signature, &signer, deadline)?;
        remove(&signature)?;
        Ok(signer)
    }

    /// Fails unless the signature is a good one of `fingerprint`; returns what gpg said.
    fn verify(
        &self,
        home: &Path,
        options: &[OsString],
        signature: &Path,
        fingerprint: &Fingerprint,
        deadline: Instant,
    ) -> Result<String> {
        let mut arguments = options.to_vec();
        arguments.extend(["--verify".into(), "--".into(), signature.into(), "-".into()]);
        let (finished, took) = self.run(Call { home, arguments, stdin: SAMPLE, deadline })?;
        let output = call::succeeded(finished, took, "verifying a signature")?;
        let is_its_own = status::lines(&output.stdout, "VALIDSIG")
            .any(|words| words.first() == Some(&fingerprint.as_str()));
        if is_its_own { Ok(output.words) } else { Err(not_of(fingerprint, output.words)) }
    }

    /// The key gpg takes when it is told to sign as `user`: the fingerprint of what it signed with.
    pub fn who_signs(
        &self,
        home: &Path,
        passphrase: &[u8],
        user: &str,
        at: Option<u64>,
        deadline: Instant,
    ) -> Result<Fingerprint> {
        let (signature, signer) = self.sign(home, &doubting(at), passphrase, user, deadline)?;
        remove(&signature)?;
        Ok(signer)
    }

    fn sign(
        &self,
        home: &Path,
        options: &[OsString],
        passphrase: &[u8],
        user: &str,
        deadline: Instant,
    ) -> Result<(PathBuf, Fingerprint)> {
        let signature = home.join("sample.sig");
        let mut arguments = options.to_vec();
        arguments.extend(call::PASSPHRASE_ON_STDIN.map(Into::into));
        arguments.push("--digest-algo=SHA256".into());
        arguments.extend(["--local-user".into(), user.into(), "--output".into()]);
        arguments.extend([signature.clone().into(), "--detach-sign".into()]);
        let stdin = &call::passphrase_and(passphrase, SAMPLE);
        let (finished, took) = self.run_with_agent(Call { home, arguments, stdin, deadline })?;
        let output = call::succeeded(finished, took, "making a signature")?;
        let created: Vec<_> = status::lines(&output.stdout, "SIG_CREATED")
            .filter_map(|words| Fingerprint::parse(words.last()?))
            .collect();
        match <[_; 1]>::try_from(created) {
            Ok([signer]) => Ok((signature, signer)),
            Err(_) => Err(Error::Failed {
                how: "it did not report one signature".into(),
                words: output.words,
            }),
        }
    }
}

/// A keyring from elsewhere may claim that its self-signatures have been verified.
fn doubting(at: Option<u64>) -> Vec<OsString> {
    let mut arguments = vec!["--no-sig-cache".into()];
    arguments.extend(living_at(at));
    arguments
}

fn not_of(fingerprint: &Fingerprint, words: String) -> Error {
    Error::Failed { how: format!("the signature it made is not one of {fingerprint}"), words }
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
