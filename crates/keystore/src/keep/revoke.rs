//! Makes the revoked certificate of a key, in staging. It is not published: that would end the key for good,
//! and only the operator may decide that.

use std::time::Instant;

use gpg::{Keyring, believable_at, clock};

use crate::Store;
use crate::error::{Error, Result};
use crate::files::durable::write_new;
use crate::files::small_files::read_file;
use crate::home::record::KeyRecord;
use crate::home::staging::StagedHome;
use crate::identity::NameEmail;
use crate::layout::{PUBRING, REVOCATIONS, revocation_file};
use crate::make::limits::KEY_TIME;

/// The size limit in bytes, larger than any certificate that copr-keygen made.
const FILE_MAX: u64 = 4 * 1024 * 1024;

impl Store {
    /// Returns the armored certificate of a key together with its revocation. gpg works in `staged`.
    pub(crate) fn revoked_certificate(
        &self,
        staged: &StagedHome,
        name_email: &NameEmail,
        record: &KeyRecord,
    ) -> Result<Vec<u8>> {
        let deadline = Instant::now() + KEY_TIME;
        let home = self.homes.path(name_email);
        let pubring = staged.path().join(PUBRING);
        let revocation = staged.scratch().join("revocation");
        let source = home.join(REVOCATIONS).join(revocation_file(&record.fingerprint));
        write_new(&pubring, &read_file(&home.join(PUBRING), FILE_MAX)?)?;
        write_new(&revocation, &armed(&read_file(&source, FILE_MAX)?))?;

        // Revocation must work even for a key that was made while the clock was ahead: that is a key to get rid
        // of.
        let keyring = Keyring { home: staged.path(), file: &pubring };
        let dated = self.gpg.view_one(keyring, deadline)?.dated();
        let at = believable_at(clock::now()?, dated);
        let unusable = |why: String| Error::damaged(&source, why);
        match self.gpg.import_revocation(staged.path(), &revocation, at, deadline) {
            Err(gpg::Error::Failed { words, .. }) => {
                self.check_space()?;
                return Err(unusable(format!("is no revocation certificate: {words}")));
            }
            imported => imported?,
        }
        let certificate = self.gpg.view_one(keyring, deadline)?;
        if certificate.fingerprint != record.fingerprint || !certificate.revoked {
            return Err(unusable(format!("does not revoke {}", record.fingerprint)));
        }
        Ok(self.gpg.export(keyring, &record.fingerprint, true, deadline)?)
    }
}

/// Returns a stored revocation certificate in the form that gpg can import. gpg stores it with a colon before
/// the armor header line, so that nobody imports it by accident.
fn armed(stored: &[u8]) -> Vec<u8> {
    let safety = b":-----BEGIN PGP";
    let is_safety = |line: &[u8]| line.starts_with(safety);
    let lines: Vec<_> = stored
        .split(|byte| *byte == b'\n')
        .map(|line| if is_safety(line) { &line[1..] } else { line })
        .collect();
    lines.join(&b'\n')
}

#[cfg(test)]
mod tests {
    use super::armed;

    #[test]
    fn only_the_colon_of_gpg_goes() {
        let stored = b"To avoid accidents:\n:-----BEGIN PGP PUBLIC KEY BLOCK-----\nComment: a\n\n";
        let expected = b"To avoid accidents:\n-----BEGIN PGP PUBLIC KEY BLOCK-----\nComment: a\n\n";
        assert_eq!(armed(stored), expected);
        assert_eq!(armed(expected), expected);
        assert_eq!(armed(b""), b"");
    }
}
