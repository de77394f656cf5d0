//! Reads a certificate as gpg sees it, even if the clock is wrong. gpg lists a key that was created in the
//! future without its expiry and capabilities. So gpg's clock is set to the date of the key. A certificate that
//! contradicts the clock may be displayed, but no decision is based on it.

use std::fs::File;
use std::io::{self, Seek};
use std::path::Path;
use std::time::Instant;

use nix::sys::memfd::{MFdFlags, memfd_create};

use crate::call::{GpgCall, Keyring, LISTING};
use crate::clock;
use crate::error::{Error, Result};
use crate::listing::{self, Certificate};
use crate::process::{End, Finished};
use crate::programs::Gpg;

impl Gpg {
    /// Returns the certificates that gpg finds for the user ID `user`, without signatures, in the order of the
    /// keyring. To sign as `user`, gpg takes the first one whose secret key it has. The result is empty if gpg
    /// finds none or fails.
    pub fn found_as(&self, keyring: Keyring, user: &str, deadline: Instant) -> Vec<Certificate> {
        let call = self.call(keyring.home, deadline).reading(keyring).words(LISTING);
        let listed = call.words(["--list-keys"]).on(user).run();
        listed.and_then(|finished| listed_certificates(keyring, finished)).unwrap_or_default()
    }

    /// Returns the only certificate of a keyring, with verified signatures, for a decision. Fails with
    /// [`Error::Clock`] if the certificate is dated ahead of the clock.
    pub fn inspect_one(&self, keyring: Keyring, deadline: Instant) -> Result<Certificate> {
        let certificate = self.view_one(keyring, deadline)?;
        let what = format!("the certificate of {}", certificate.fingerprint);
        clock::check(&what, certificate.dated())?;
        Ok(certificate)
    }

    /// As [`Gpg::inspect_one`], but accepts a certificate that is dated ahead of the clock. Use it to display a
    /// certificate or to revoke it.
    pub fn view_one(&self, keyring: Keyring, deadline: Instant) -> Result<Certificate> {
        let found = self.list_checked(keyring, None, deadline)?;
        let dated = found.iter().map(Certificate::dated_at_most).max().unwrap_or_default();
        let found = match believable_at(clock::now()?, dated) {
            None => found,
            at => self.list_checked(keyring, at, deadline)?,
        };
        let count = found.len();
        <[_; 1]>::try_from(found).map(|[one]| one).map_err(|_| Error::DamagedHome {
            path: keyring.file.into(),
            reason: format!("holds {count} certificates instead of one"),
        })
    }

    /// Returns the certificates of a keyring, with the signatures verified as of the time `at`.
    fn list_checked(
        &self,
        keyring: Keyring,
        at: Option<u64>,
        deadline: Instant,
    ) -> Result<Vec<Certificate>> {
        let call = || self.call(keyring.home, deadline).reading(keyring).at(at);
        let list = |command| call().words(LISTING).words([command]).run();
        let checked = list("--check-sigs")?;
        // GnuPG 2.2.40 frees the unknown issuer of a signature twice, and the C library aborts it.
        if let Some(End::Killed(_)) = checked.end {
            let own = own_signatures(keyring, call)?;
            let mut all = listed_certificates(keyring, list("--list-sigs")?)?;
            all.iter_mut().for_each(|certificate| certificate.take_verdicts(&own));
            return Ok(all);
        }
        listed_certificates(keyring, checked)
    }
}

/// Returns the certificates of a keyring without the signatures of other keys. gpg can leave these out only
/// while it imports. So gpg exports the keyring and imports the result, with the option to show it and store
/// nothing.
fn own_signatures<'a>(
    keyring: Keyring,
    call: impl Fn() -> GpgCall<'a>,
) -> Result<Vec<Certificate>> {
    let failed = |e: io::Error| Error::io("handing a certificate to gpg", e);
    let memory = memfd_create("certificate", MFdFlags::MFD_CLOEXEC);
    let mut memory = File::from(memory.map_err(|errno| failed(errno.into()))?);
    let export = call().words(["--no-armor", "--export"]);
    let exported = export.stdout_to(memory.try_clone().map_err(failed)?).run()?;
    exported.succeeded("exporting a certificate")?;
    memory.rewind().map_err(failed)?;
    let options = ["--with-sig-check", "--import-options=show-only,self-sigs-only"];
    let show = call().words(LISTING).words(options).words(["--import"]);
    listed_certificates(keyring, show.stdin_from(memory).run()?)
}

/// Returns the time that gpg's clock must show for gpg to accept a certificate dated `dated`, or `None` if
/// `now` is late enough.
pub fn believable_at(now: u64, dated: u64) -> Option<u64> {
    (dated > now).then(|| dated.saturating_add(1).min(u32::MAX.into()))
}

fn listed_certificates(keyring: Keyring, finished: Finished) -> Result<Vec<Certificate>> {
    parse_listing(keyring.file, &finished.succeeded("listing a keyring")?.stdout)
}

/// Parses gpg's listing of `file`.
pub(crate) fn parse_listing(file: &Path, listing: &[u8]) -> Result<Vec<Certificate>> {
    listing::parse(listing).map_err(|words| Error::Failed {
        how: format!("its listing of {} is not understood", file.display()),
        words,
    })
}
