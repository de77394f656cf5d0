//! Reads a certificate as gpg sees it, whatever the clock says: gpg believes nothing of a key that was
//! created after its own time, and would show it without expiry and without capabilities. Who decides
//! something by a certificate is told when the clock contradicts it; who only shows it is not stopped.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Seek};
use std::time::Instant;

use nix::sys::memfd::{MFdFlags, memfd_create};

use super::certificate::{Keyring, reading};
use super::{Certificate, Gpg, call, listing};
use crate::clock;
use crate::error::{Error, Result};
use crate::process::{self, End, Finished, Job};

/// What makes a listing one that [`listing::parse`] reads in full.
const LISTING: [&str; 3] = ["--with-colons", "--with-keygrip", "--fixed-list-mode"];

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
        let list = |command: &str| {
            let mut arguments = reading(keyring);
            arguments.extend(living_at(at));
            arguments.extend(LISTING.iter().chain([&command]).map(Into::into));
            self.run_silent(call::Call { home: keyring.home, arguments, stdin: b"", deadline })
        };
        let (finished, took) = list("--check-sigs")?;
        // GnuPG 2.2.40 frees the unknown issuer of a signature twice, and the C library ends it.
        if let Some(End::Killed(_)) = finished.end {
            let own = self.list_own_signatures(keyring, at, deadline)?;
            let (finished, took) = list("--list-sigs")?;
            let mut all = parse(keyring, finished, took)?;
            all.iter_mut().for_each(|certificate| certificate.take_verdicts(&own));
            return Ok(all);
        }
        parse(keyring, finished, took)
    }

    /// The certificates of a keyring without signatures by others. gpg can leave these out only when it
    /// imports, so it gets its own export and is told to show what it would take.
    fn list_own_signatures(
        &self,
        keyring: Keyring,
        at: Option<u64>,
        deadline: Instant,
    ) -> Result<Vec<Certificate>> {
        let failed = |e: io::Error| Error::io("handing a certificate to gpg", e);
        let memory = memfd_create("certificate", MFdFlags::MFD_CLOEXEC);
        let mut certificate = File::from(memory.map_err(|errno| failed(errno.into()))?);
        let job = |arguments: Vec<OsString>| {
            let mut all = call::gpg_arguments(keyring.home);
            all.extend(reading(keyring));
            all.extend(living_at(at));
            all.extend(arguments);
            let deadline = deadline.min(Instant::now() + self.timeout);
            Job { program: &self.gpg, arguments: all, stdin: b"", deadline, background: None }
        };
        let started = Instant::now();
        let export = job(["--no-armor", "--export"].map(Into::into).into());
        let exported = process::run_into(&export, certificate.try_clone().map_err(failed)?);
        call::succeeded(exported.map_err(failed)?, started.elapsed(), "exporting a certificate")?;
        certificate.rewind().map_err(failed)?;
        let mut arguments: Vec<OsString> = LISTING.map(Into::into).into();
        arguments.push("--with-sig-check".into());
        arguments.extend(["--import-options=show-only,self-sigs-only", "--import"].map(Into::into));
        let shown = process::run_on(&job(arguments), certificate).map_err(failed)?;
        parse(keyring, shown, started.elapsed())
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

fn parse(
    keyring: Keyring,
    finished: Finished,
    took: std::time::Duration,
) -> Result<Vec<Certificate>> {
    let output = call::succeeded(finished, took, "listing a keyring")?.stdout;
    listing::parse(&output).map_err(|why| Error::Failed {
        how: format!("its listing of {} is not understood", keyring.file.display()),
        words: why,
    })
}
