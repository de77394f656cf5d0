//! The one function that makes a key, for HTTP and for the command line.

pub(crate) mod assemble;
pub(crate) mod gpg_read_limit;
pub(crate) mod identity_locks;
pub(crate) mod job_queue;
pub(crate) mod limits;
pub(crate) mod pool;
pub(crate) mod pool_filling;

use std::sync::atomic::Ordering;
use std::time::Instant;

use gpg::{Keygrip, clock};

use crate::Store;
use crate::error::{Error, Result};
use crate::home::finishing;
use crate::home::record::KeyRecord;
use crate::identity::NameEmail;
use crate::key_request::KeyRequest;
use crate::secrets::passphrase::Passphrases;
use crate::state::free_space::Space;
use crate::state::lost_keys;
use crate::view::publish::Publication;

/// The outcome of a request for a key.
#[derive(Debug)]
pub enum Outcome {
    /// The key was made for this request and is on the disk.
    Made(KeyRecord),
    /// The key existed, and nothing about it was changed.
    Existed(KeyRecord),
}

impl Store {
    /// Makes sure that the key of an identity exists and that obs-signd sees it.
    ///
    /// Fails with [`gpg::Error::Busy`] if no gpg job gets free in time, and with [`gpg::Error::TimedOut`] at
    /// `deadline`. After any failure, the identity has either no key or a whole one.
    pub fn ensure_key(&self, request: &KeyRequest, deadline: Instant) -> Result<Outcome> {
        let name_email = request.name_email();
        if let Some(existed) = self.find_linked(name_email)? {
            return Ok(existed);
        }
        let patience = deadline.min(Instant::now() + self.queue_timeout);
        let _lock = self.makers.take(name_email, patience)?;
        if let Some(existed) = self.find_linked(name_email)? {
            return Ok(existed);
        }
        let _job = self.jobs.take(patience)?;
        if self.looks_first(request) && self.find_elsewhere(name_email)? {
            if let Some(existed) = self.find_linked(name_email)? {
                return Ok(existed);
            }
        }
        self.make(request, deadline)
    }

    /// Returns the key if it exists. Its links are repaired then, and all of it is on the disk.
    fn find_linked(&self, name_email: &NameEmail) -> Result<Option<Outcome>> {
        Ok(self.relink(name_email)?.map(Outcome::Existed))
    }

    /// Whether to ask the other hosts for their key before a key is made here, and not only whether the new
    /// key counts. Asking takes a while. It saves work if the other hosts have a key that this host has not
    /// heard of, or if they do not answer.
    fn looks_first(&self, request: &KeyRequest) -> bool {
        let is_ready = || self.pool.count(request.parameters().length).is_ok_and(|count| count > 0);
        !(self.is_up_to_date.load(Ordering::Relaxed) && is_ready())
    }

    fn make(&self, request: &KeyRequest, deadline: Instant) -> Result<Outcome> {
        let name_email = request.name_email();
        if self.staging.has_leftovers() {
            self.clear_staging();
        }
        self.check_host()?;
        self.signd.check_is_ours()?;
        self.signd.check_phrase_is_free(name_email)?;
        let has_home = || Ok::<_, Error>(self.homes.path(name_email).exists());
        let link = |phrases| lost_keys::link_of(phrases, name_email, has_home);
        if self.signd.phrase_links().map(link).transpose()?.flatten().is_some() {
            log::warn!(
                "{name_email}: a new key is made, although a link says that there was one: its home is missing. If that \
                 is somewhere, remove the new key and put it back"
            );
        }
        self.check_space()?;
        let created = clock::believed()?;
        let parameters = request.parameters();
        let expires = parameters
            .lifetime
            .expiry(created)
            .map_err(|reason| Error::Gpg(gpg::Error::Field { field: "expire", reason }))?;

        // Fail here if passphrases cannot be written, before gpg has worked for nothing.
        self.passphrases.form()?;
        let staged = self.staging.create()?;
        let generate = |keygrip: Option<&Keygrip>| {
            let home = staged.path();
            let phrase = match keygrip {
                Some(keygrip) => self.passphrases.renew(home, keygrip, staged.scratch())?,
                None => Passphrases::fresh()?,
            };
            let key = self.gpg.generate(home, &phrase, parameters, keygrip, created, deadline)?;
            if keygrip.is_none() {
                self.passphrases.write(home, &key.keygrip, &phrase)?;
            }
            Ok(key)
        };
        let ready = self.pool.claim(parameters.length, &staged)?;
        let key = match (generate(ready.as_ref()), &ready) {
            (
                Err(error @ Error::Gpg(gpg::Error::Failed { .. } | gpg::Error::DamagedHome { .. })),
                Some(keygrip),
            ) if self.check_space().is_ok() => {
                log::warn!("key {keygrip} of the pool was discarded: {error}");
                staged.empty()?;
                generate(None)
            }
            (Err(Error::Gpg(error)), None) if error.is_spoiled_key() => {
                log::warn!("key of {name_email}: {error}; another one is made");
                staged.empty()?;
                generate(None)
            }
            (result, _) => result,
        }
        // If the disk has become full meanwhile, the agent of GnuPG 2.2 reports an unknown error.
        .or_else(|error| self.check_space().and(Err(error)))?;
        let record = KeyRecord {
            fingerprint: key.fingerprint,
            keygrip: key.keygrip,
            algorithm: parameters.length.to_string(),
            created,
            expires,
            changed: created,
        };
        finishing::finish_made(staged.path(), &record)?;
        match self.publish(staged, name_email, &record.keygrip)? {
            Publication::Done => {
                self.relink(name_email)?;
                Ok(Outcome::Made(record))
            }
            Publication::Lost => match self.find_linked(name_email)? {
                // The other hosts have accepted this key, and the process that follows them on this host has
                // already published it.
                Some(Outcome::Existed(ours)) if ours.fingerprint == record.fingerprint => {
                    Ok(Outcome::Made(ours))
                }
                Some(outcome) => Ok(outcome),
                // Another key was published meanwhile and removed again. The next request gets a key.
                None => Err(Error::busy(format!("the key of {name_email} comes and goes"))),
            },
        }
    }

    pub(crate) fn check_space(&self) -> Result<()> {
        match Space::of(self.homes.directory())? {
            space if space.is_enough() => Ok(()),
            space => Err(Error::state_full(space.to_string())),
        }
    }
}
