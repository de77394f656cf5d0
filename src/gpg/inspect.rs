//! Reads a certificate as gpg sees it, whatever the clock says: gpg believes nothing of a key that was
//! created after its own time, and would show it without expiry and without capabilities. Who decides
//! something by a certificate is told when the clock contradicts it; who only shows it is not stopped.

use std::ffi::OsString;
use std::time::Instant;

use super::certificate::{Keyring, reading};
use super::{Certificate, Gpg, call, listing};
use crate::clock;
use crate::error::{Error, Result};

/// What makes a listing one that [`listing::parse`] reads in full.
const LISTING: [&str; 4] = ["--with-colons", "--with-keygrip", "--fixed-list-mode", "--check-sigs"];

impl Gpg {
    /// The only certificate of a keyring, its signatures checked, to decide something by it.
    ///
    /// [`Error::Clock`] when its key was created, or has signed it, after what the clock says.
    pub fn inspect_one(&self, keyring: Keyring, deadline: Instant) -> Result<Certificate> {
        let certificate = self.view_one(keyring, deadline)?;
        let what = format!("the certificate of {}", certificate.fingerprint);
        clock::check(&what, certificate.dated())?;
        Ok(certificate)
    }

    /// As [`Gpg::inspect_one`], whatever the clock says: to show it, and to take it out of use.
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

    /// The certificates of a keyring, their signatures checked at the time `at`.
    fn list_checked(
        &self,
        keyring: Keyring,
        at: Option<u64>,
        deadline: Instant,
    ) -> Result<Vec<Certificate>> {
        let mut arguments = reading(keyring);
        arguments.extend(living_at(at));
        arguments.extend(LISTING.map(Into::into));
        let call = call::Call { home: keyring.home, arguments, stdin: b"", deadline };
        let (finished, took) = self.run_silent(call)?;
        let output = call::succeeded(finished, took, "listing a keyring")?.stdout;
        listing::parse(&output).map_err(|why| Error::GpgFailed {
            how: format!("its listing of {} is not understood", keyring.file.display()),
            words: why,
        })
    }
}

/// When gpg believes a certificate that is dated `dated`, if that is not now.
pub fn believable_at(now: u64, dated: u64) -> Option<u64> {
    (dated > now).then(|| dated.saturating_add(1).min(u32::MAX.into()))
}

/// Makes gpg live at the time `at`. With "!" the time stands still, however long gpg takes.
pub(super) fn living_at(at: Option<u64>) -> Option<OsString> {
    at.map(|at| format!("--faked-system-time={at}!").into())
}
