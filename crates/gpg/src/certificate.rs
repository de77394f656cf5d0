//! Exports, merges, prolongs and revokes certificates. All but the export happens in homes of staging.

use std::path::Path;
use std::time::Instant;

use crate::call::{Keyring, STATUS};
use crate::clock;
use crate::error::{Error, Result};
use crate::fingerprint::Fingerprint;
use crate::programs::Gpg;
use crate::signature::FOR_ANY_KEY;
use crate::status::Status;

impl Gpg {
    /// A certificate with all its signatures, binary or armored.
    pub fn export(
        &self,
        keyring: Keyring,
        fingerprint: &Fingerprint,
        armored: bool,
        deadline: Instant,
    ) -> Result<Vec<u8>> {
        let form = if armored { "--armor" } else { "--no-armor" };
        let call = self.call(keyring.home, deadline).reading(keyring).words([form, "--export"]);
        match call.on(fingerprint.as_str()).run()?.succeeded("exporting a certificate")?.stdout {
            empty if empty.is_empty() => Err(Error::DamagedHome {
                path: keyring.file.into(),
                reason: format!("does not hold the certificate of {fingerprint}"),
            }),
            exported => Ok(exported),
        }
    }

    /// Merges the certificates in `file` into the keyring of `home`, which is in staging; returns the
    /// fingerprints that gpg found in the file. gpg works at the time `at`, as it takes no key that was created
    /// later than now.
    pub fn import(
        &self,
        home: &Path,
        file: &Path,
        at: Option<u64>,
        deadline: Instant,
    ) -> Result<Vec<Fingerprint>> {
        let call = self.call(home, deadline).at(at).words([STATUS, "--import"]).on(file);
        let output = call.run()?.succeeded("merging a certificate")?;
        Ok(Status::parse(&output.stdout).imported)
    }

    /// Merges the revocation in `file` into the keyring of `home`, which is in staging, at the time `at`. gpg
    /// clears the owner trust of a revoked key, and fails without a trust database. So this call may make one.
    pub fn import_revocation(
        &self,
        home: &Path,
        file: &Path,
        at: Option<u64>,
        deadline: Instant,
    ) -> Result<()> {
        let call = self.call(home, deadline).at(at);
        let call = call.words([STATUS, "--trust-model=pgp", "--import"]).on(file);
        call.run()?.succeeded("revoking a certificate").map(drop)
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
        self.call(home, deadline)
            .passphrase(passphrase, b"")
            .words([format!("--cert-digest-algo={FOR_ANY_KEY}"), "--quick-set-expire".into()])
            .words([fingerprint.as_str(), &clock::iso_basic(expires)])
            .run_with_agent()?
            .succeeded("prolonging a key")
            .map(drop)
    }
}
