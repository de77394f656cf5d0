//! Exports, merges, prolongs and revokes certificates. Everything except the export happens in staging homes.

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
    /// Exports a certificate with all its signatures, binary or armored.
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

    /// Merges the certificates in `file` into the keyring of the staging home `home`. Returns the fingerprints
    /// that gpg found in the file. gpg runs with the clock at `at`, because it does not import a key that was
    /// created in the future.
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

    /// Merges the revocation in `file` into the keyring of the staging home `home`, with gpg's clock at `at`.
    ///
    /// gpg clears the owner trust of a revoked key, and fails if there is no trust database. So this run may
    /// create one.
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

    /// Gives the key in the staging home `home` a new expiry (Unix time). In the keyring, the new
    /// self-signatures replace the newest old ones.
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
