//! Reads keys without changing anything: one key, or every key that matches a filter.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use gpg::{Certificate, Gpg, Keyring};
use serde::Serialize;

use crate::error::{Error, Result};
use crate::home::Homes;
use crate::home::record::{KeyRecord, as_text};
use crate::identity::NameEmail;
use crate::layout::GNUPG;
use crate::make::gpg_read_limit::{GpgRead, GpgReadLimit};
use crate::parallel::map_ahead;

/// The time limit for gpg to show one certificate.
const LOOK_TIME: Duration = Duration::from_secs(10);

/// A key of this host: its identity and its cached facts. In JSON both are fields of one object, and times are
/// Unix times.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Key {
    /// The identity that owns the key.
    #[serde(serialize_with = "as_text")]
    pub name_email: NameEmail,
    /// The facts about the key that are known without gpg.
    #[serde(flatten)]
    pub record: KeyRecord,
}

/// One step of a listing.
#[derive(Debug)]
pub enum Listed {
    /// A key that matches the filter.
    Key(Key),
    /// A key that does not match, or a home that was removed after the directory was read.
    PassedOver,
    /// The identity of a home whose key cannot be read, and the error.
    Unreadable(NameEmail, Error),
}

/// A selection of keys. The default selects all keys.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// A shell pattern that the name of the identity must match.
    pub pattern: Option<glob::Pattern>,
    /// Selects keys that expire before this Unix time, including those that have expired already.
    pub expires_before: Option<u64>,
    /// Selects keys whose certificate last changed at this Unix time or later.
    pub changed_since: Option<u64>,
}

impl Filter {
    /// Whether a key of this name can match. The record is not considered.
    fn takes_name(&self, name_email: &NameEmail) -> bool {
        self.pattern.as_ref().is_none_or(|pattern| pattern.matches(name_email.as_str()))
    }

    /// Whether a key with this record matches. The name is not considered.
    pub fn takes(&self, record: &KeyRecord) -> bool {
        self.expires_before.is_none_or(|before| record.expires.is_some_and(|at| at < before))
            && self.changed_since.is_none_or(|since| record.changed >= since)
    }
}

/// Read-only access to the keys of this host.
#[derive(Clone, Debug)]
pub struct Catalog {
    homes: Homes,
    gpg: Gpg,
    /// The GnuPG home that is passed to gpg when it reads a keyring.
    agent_home: PathBuf,
    /// The limit on concurrent gpg runs. `None` means that there is no limit.
    reads: Option<Arc<GpgReadLimit>>,
    /// The time by which the client needs its answer.
    deadline: Option<Instant>,
}

impl Catalog {
    /// Opens the keys of the state directory `root`.
    pub fn new(root: &Path, gpg: Gpg) -> Self {
        let agent_home = root.join(GNUPG);
        Self { homes: Homes::new(root), gpg, agent_home, reads: None, deadline: None }
    }

    /// Returns a catalog of the same keys that asks `reads` for permission before each gpg run.
    pub(crate) fn under(&self, reads: &Arc<GpgReadLimit>) -> Self {
        Self { reads: Some(Arc::clone(reads)), ..self.clone() }
    }

    /// Returns a catalog of the same keys for a client that waits no longer than `deadline`.
    pub fn until(&self, deadline: Instant) -> Self {
        Self { deadline: Some(deadline), ..self.clone() }
    }

    /// The published homes.
    pub fn homes(&self) -> &Homes {
        &self.homes
    }

    /// Returns the key of an identity. Fails with [`Error::NoKey`] if it has no key.
    pub fn find(&self, name_email: &NameEmail) -> Result<Key> {
        let found = self.homes.find(name_email)?;
        let record = found.ok_or_else(|| Error::NoKey(name_email.clone()))?;
        let record = self.complete(name_email, record)?;
        Ok(Key { name_email: name_email.clone(), record })
    }

    /// Returns all keys that match `filter`, in directory order. The content of `key.json` is used without
    /// verification. A key that cannot be read yields an error, and the iteration goes on with the next key.
    pub fn keys(&self, filter: Filter) -> Result<impl Iterator<Item = Result<Key>>> {
        Ok(self.listing(filter)?.filter_map(|listed| match listed {
            Ok(Listed::Key(key)) => Some(Ok(key)),
            Ok(Listed::PassedOver) => None,
            Ok(Listed::Unreadable(_, error)) | Err(error) => Some(Err(error)),
        }))
    }

    /// Like [`Catalog::keys`], but yields an item for every home, so that the caller can show progress. If an
    /// item is an error, the rest of the directory is unknown.
    pub fn listing(&self, filter: Filter) -> Result<impl Iterator<Item = Result<Listed>>> {
        let by_name = filter.clone();
        let names = self.homes.identities()?;
        let names = names.filter(move |name_email| {
            name_email.as_ref().map_or(true, |name| by_name.takes_name(name))
        });
        // A listing is one request, so under a limit it may run only one gpg at a time. The threads then read
        // files only, and `complete` runs gpg later, key by key.
        let look = |name_email: Result<NameEmail>| {
            let name_email = name_email?;
            let found = match self.reads {
                None => self.look(&name_email),
                Some(_) => self.read(&name_email),
            };
            Ok::<_, Error>((name_email, found))
        };
        Ok(map_ahead(names, look).map(move |looked: Result<_>| {
            let (name_email, found) = looked?;
            let found =
                found.and_then(|record| record.map(|r| self.complete(&name_email, r)).transpose());
            Ok(match found {
                Ok(Some(record)) if filter.takes(&record) => {
                    Listed::Key(Key { name_email, record })
                }
                Ok(_) => Listed::PassedOver,
                Err(error) => Listed::Unreadable(name_email, error),
            })
        }))
    }

    /// Returns the facts about the key of an identity, or `None` if it has no key. The content of `key.json` is
    /// used without verification.
    fn look(&self, name_email: &NameEmail) -> Result<Option<KeyRecord>> {
        let record = self.read(name_email)?;
        record.map(|record| self.complete(name_email, record)).transpose()
    }

    /// Like [`Catalog::look`], but without gpg. The record may lack facts that only the certificate holds.
    fn read(&self, name_email: &NameEmail) -> Result<Option<KeyRecord>> {
        match KeyRecord::read(&self.homes.path(name_email)) {
            Some(record) => Ok(Some(record)),
            None => self.homes.find(name_email),
        }
    }

    /// Returns the certificate of an identity as gpg sees it, for use in a decision.
    ///
    /// Fails with [`gpg::Error::Clock`] if the certificate is dated later than the clock.
    pub fn certificate(&self, name_email: &NameEmail) -> Result<Certificate> {
        let _look = self.may_look()?;
        let deadline = self.look_time();
        let inspect = |file: &Path| Ok(self.gpg.inspect_one(self.keyring(file), deadline)?);
        self.homes.ask_gpg(name_email, inspect)
    }

    /// Like [`Catalog::certificate`], but for display only: it succeeds whatever the clock says.
    pub fn view(&self, name_email: &NameEmail) -> Result<Certificate> {
        let _look = self.may_look()?;
        let deadline = self.look_time();
        let view = |file: &Path| Ok(self.gpg.view_one(self.keyring(file), deadline)?);
        self.homes.ask_gpg(name_email, view)
    }

    /// Returns the armored certificate of a key, with all its signatures.
    pub fn pubkey(&self, key: &Key) -> Result<String> {
        let _look = self.may_look()?;
        let (print, deadline) = (&key.record.fingerprint, self.look_time());
        self.homes.ask_gpg(&key.name_email, |file| {
            let armored = self.gpg.export(self.keyring(file), print, true, deadline)?;
            String::from_utf8(armored).map_err(|e| {
                Error::io(format!("exporting {}", file.display()), io::Error::other(e))
            })
        })
    }

    /// Fills in the facts that the record lacks by asking gpg.
    fn complete(&self, name_email: &NameEmail, mut record: KeyRecord) -> Result<KeyRecord> {
        if record.created == 0 {
            record.learn(&self.view(name_email)?);
        }
        Ok(record)
    }

    fn may_look(&self) -> Result<Option<GpgRead<'_>>> {
        self.reads.as_deref().map(|reads| reads.take(self.deadline)).transpose()
    }

    /// The deadline for a gpg that starts now.
    fn look_time(&self) -> Instant {
        let own = Instant::now() + LOOK_TIME;
        self.deadline.map_or(own, |deadline| deadline.min(own))
    }

    fn keyring<'a>(&'a self, file: &'a Path) -> Keyring<'a> {
        Keyring { home: &self.agent_home, file }
    }
}
