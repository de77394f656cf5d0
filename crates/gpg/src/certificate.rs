//! What is done with certificates: export, merge, give a new expiry, revoke. All of it in homes of
//! staging, but for the export.

use std::ffi::OsString;
use std::path::Path;
use std::time::Instant;

use super::call::{self, Call};
use super::inspect::living_at;
use super::{Certificate, Fingerprint, Gpg, listing};
use crate::error::{Error, Result};

/// Where a certificate is read from.
#[derive(Clone, Copy, Debug)]
pub struct Keyring<'a> {
    /// A GnuPG home; nothing is written there.
    pub home: &'a Path,
    /// The file with the public keys.
    pub file: &'a Path,
}

impl Gpg {
    /// The certificates gpg finds under `user`, without signatures, in the order of the keyring: to sign as
    /// `user`, it takes the first whose secret key it has. None when there is none, or gpg says why not.
    pub fn found_as(&self, keyring: Keyring, user: &str, deadline: Instant) -> Vec<Certificate> {
        let mut arguments = reading(keyring);
        arguments
            .extend(["--with-colons", "--with-keygrip", "--fixed-list-mode"].map(OsString::from));
        arguments.extend(["--list-keys", "--", user].map(Into::into));
        let output = self.read(keyring, arguments, deadline, "finding a key");
        output.ok().and_then(|output| listing::parse(&output).ok()).unwrap_or_default()
    }

    /// A certificate with all its signatures, binary or armored.
    pub fn export(
        &self,
        keyring: Keyring,
        fingerprint: &Fingerprint,
        armored: bool,
        deadline: Instant,
    ) -> Result<Vec<u8>> {
        let mut arguments = reading(keyring);
        arguments.push(if armored { "--armor" } else { "--no-armor" }.into());
        arguments.extend(["--export".into(), "--".into(), fingerprint.as_str().into()]);
        match self.read(keyring, arguments, deadline, "exporting a certificate")? {
            empty if empty.is_empty() => Err(Error::DamagedHome {
                path: keyring.file.into(),
                reason: format!("does not hold the certificate of {fingerprint}"),
            }),
            exported => Ok(exported),
        }
    }

    /// Merges the certificates in `file` into the keyring of `home`, which is in staging; returns the
    /// fingerprints gpg found in it. `at` is what gpg is told in place of the time: it takes no key of
    /// tomorrow.
    pub fn import(
        &self,
        home: &Path,
        file: &Path,
        at: Option<u64>,
        deadline: Instant,
    ) -> Result<Vec<Fingerprint>> {
        let mut arguments: Vec<OsString> = living_at(at).into_iter().collect();
        arguments.extend(["--import".into(), "--".into(), file.into()]);
        let (finished, took) = self.run(Call { home, arguments, stdin: b"", deadline })?;
        let output = call::succeeded(finished, took, "merging a certificate")?;
        Ok(super::status::Status::parse(&output.stdout).imported)
    }

    /// Merges the revocation in `file` into the keyring of `home`, which is in staging. gpg forgets
    /// the owner trust of a key that is revoked, and fails when there is no trust database for that;
    /// this is the one call that may make one. `at` is what gpg is told in place of the time.
    pub fn import_revocation(
        &self,
        home: &Path,
        file: &Path,
        at: Option<u64>,
        deadline: Instant,
    ) -> Result<()> {
        let mut arguments: Vec<OsString> = living_at(at).into_iter().collect();
        arguments.extend(["--trust-model=pgp".into(), "--import".into(), "--".into(), file.into()]);
        let (finished, took) = self.run(Call { home, arguments, stdin: b"", deadline })?;
        call::succeeded(finished, took, "revoking a certificate").map(drop)
    }

    /// Gives the key in `home`, which is in staging, a new expiry (Unix time). gpg puts the new
    /// self-signatures in place of the newest old ones.
    pub fn set_expiry(
        &self,
        home: &Path,
        passphrase: &[u8],
        fingerprint: &Fingerprint,
        expires: u64,
        deadline: Instant,
    ) -> Result<()> {
        let mut arguments: Vec<OsString> = call::PASSPHRASE_ON_STDIN.map(Into::into).into();
        arguments.extend(["--cert-digest-algo=SHA256", "--quick-set-expire"].map(Into::into));
        arguments.extend([fingerprint.as_str().into(), crate::clock::iso_basic(expires).into()]);
        let stdin = &call::passphrase_and(passphrase, b"");
        let (finished, took) = self.run_with_agent(Call { home, arguments, stdin, deadline })?;
        call::succeeded(finished, took, "prolonging a key").map(drop)
    }

    /// Reads a keyring that is not to be changed, and prints no status lines.
    fn read(
        &self,
        keyring: Keyring,
        arguments: Vec<OsString>,
        deadline: Instant,
        doing: &str,
    ) -> Result<Vec<u8>> {
        let call = Call { home: keyring.home, arguments, stdin: b"", deadline };
        let (finished, took) = self.run_silent(call)?;
        Ok(call::succeeded(finished, took, doing)?.stdout)
    }
}

/// Options under which gpg leaves no trace where it reads, and does not believe what a keyring says
/// of signatures it has verified before.
pub(super) fn reading(keyring: Keyring) -> Vec<OsString> {
    vec![
        "--no-options".into(),
        "--lock-never".into(),
        "--no-sig-cache".into(),
        "--no-default-keyring".into(),
        "--keyring".into(),
        keyring.file.into(),
    ]
}
