//! The one function that makes a key, whoever asks for it.

use std::time::Instant;

use nix::sys::statvfs::statvfs;

use super::home;
use super::record::KeyRecord;
use super::staging::Publication;
use super::{Store, passphrase};
use crate::clock;
use crate::error::{Error, Result};
use crate::identity::NameEmail;
use crate::key_request::KeyRequest;

/// Below this a key is not begun: gpg on a full disk leaves more to clean up than it makes.
const FREE_BYTES_MIN: u64 = 256 * 1024;
const FREE_INODES_MIN: u64 = 32;

/// What became of a request for a key.
#[derive(Debug)]
pub enum Outcome {
    /// The key was made for this request and is on the disk.
    Made(KeyRecord),
    /// It existed; nothing about it was changed.
    Existed(KeyRecord),
}

impl Store {
    /// Makes sure that the key of an identity exists and that obs-signd sees it.
    ///
    /// Fails with [`Error::Busy`] when no gpg job gets free in time, with [`Error::GpgTimedOut`]
    /// at `deadline`. Whatever fails, there is no key of this identity then, or a whole one.
    pub fn ensure_key(&self, request: &KeyRequest, deadline: Instant) -> Result<Outcome> {
        let name_email = request.user_id.name_email();
        if let Some(existed) = self.find_linked(name_email)? {
            return Ok(existed);
        }
        let patience = deadline.min(Instant::now() + self.queue_timeout);
        let _turn = self.turns.take(name_email, patience)?;
        if let Some(existed) = self.find_linked(name_email)? {
            return Ok(existed);
        }
        let _permit = self.permits.take(patience)?;
        self.make(request, deadline)
    }

    /// The key if it exists, its links repaired.
    fn find_linked(&self, name_email: &NameEmail) -> Result<Option<Outcome>> {
        Ok(self.relink(name_email)?.map(Outcome::Existed))
    }

    fn make(&self, request: &KeyRequest, deadline: Instant) -> Result<Outcome> {
        let name_email = request.user_id.name_email();
        if self.staging.has_leftovers() {
            self.clear_staging();
        }
        self.check_space()?;
        let created = clock::now()?;
        let expires = request
            .lifetime
            .expiry(created)
            .map_err(|reason| Error::Field { field: "expire", reason })?;

        let staged = self.staging.create()?;
        let phrase = staged.path().join(home::PASSPHRASE);
        passphrase::create(&phrase)?;
        let key = self
            .gpg
            .generate(staged.path(), &phrase, request, created, deadline)
            // The agent of GnuPG 2.2 calls a disk that got full meanwhile an unknown error.
            .or_else(|error| self.check_space().and(Err(error)))?;
        let record = KeyRecord {
            fingerprint: key.fingerprint,
            keygrip: key.keygrip,
            algorithm: request.length.to_string(),
            created,
            expires,
            changed: created,
        };
        record.write(staged.path())?;
        home::remove_leftovers(staged.path())?;
        home::check_complete(staged.path(), &record).map_err(|error| Error::GpgFailed {
            how: "what it left is not a whole key".into(),
            words: error.to_string(),
        })?;
        match staged.publish(&self.homes, &self.signd, name_email, &record.keygrip)? {
            Publication::Done => {
                self.relink(name_email)?;
                Ok(Outcome::Made(record))
            }
            Publication::Lost => self.find_linked(name_email)?.ok_or_else(|| Error::DamagedHome {
                path: self.homes.path(name_email),
                reason: "was there when a new key was to be published, and is gone now".into(),
            }),
        }
    }

    pub(super) fn check_space(&self) -> Result<()> {
        let found = statvfs(self.homes.directory()).map_err(|e| {
            Error::io(format!("looking at {}", self.homes.directory().display()), e.into())
        })?;
        let bytes = found.blocks_available().saturating_mul(found.fragment_size());
        // File systems without a table of inodes say that they have none at all.
        let few_inodes = found.files() > 0 && found.files_available() < FREE_INODES_MIN;
        if bytes < FREE_BYTES_MIN || few_inodes {
            return Err(Error::NoSpace(format!(
                "{bytes} bytes and {} inodes are free",
                found.files_available()
            )));
        }
        Ok(())
    }
}
