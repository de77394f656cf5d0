//! Looking at keys without touching them: one, or all that a filter lets through.

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

/// How long gpg may take to show one certificate.
const LOOK_TIME: Duration = Duration::from_secs(10);

/// A key of this host: whose it is, and what is known of it. In JSON all that is one object, and times are Unix
/// times.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Key {
    /// Whose it is.
    #[serde(serialize_with = "as_text")]
    pub name_email: NameEmail,
    /// What is known of it.
    #[serde(flatten)]
    pub record: KeyRecord,
}

/// What a listing has come to.
#[derive(Debug)]
pub enum Listed {
    /// A key that the filter lets through.
    Key(Key),
    /// Another key, or a home that has gone since the directory was read.
    PassedOver,
    /// A home whose key cannot be read, and why.
    Unreadable(NameEmail, Error),
}

/// Which keys are meant. The default is all.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Shell pattern of the name.
    pub pattern: Option<glob::Pattern>,
    /// Keys that expire before this Unix time, those that have expired already among them.
    pub expires_before: Option<u64>,
    /// Keys whose certificate became what it is at this Unix time or later.
    pub changed_since: Option<u64>,
}

impl Filter {
    /// Whether it lets a key of this name through, whatever its record.
    fn takes_name(&self, name_email: &NameEmail) -> bool {
        self.pattern.as_ref().is_none_or(|pattern| pattern.matches(name_email.as_str()))
    }

    /// Whether it lets a key with this record through, whatever its name.
    pub fn takes(&self, record: &KeyRecord) -> bool {
        self.expires_before.is_none_or(|before| record.expires.is_some_and(|at| at < before))
            && self.changed_since.is_none_or(|since| record.changed >= since)
    }
}

/// The keys of this host, to look at. Nothing is ever written.
#[derive(Clone, Debug)]
pub struct Catalog {
    homes: Homes,
    gpg: Gpg,
    /// A GnuPG home for gpg to read keyrings with.
    agent_home: PathBuf,
    /// Whom to ask before gpg runs.
    reads: Option<Arc<GpgReadLimit>>,
    /// When an answer is due.
    deadline: Option<Instant>,
}

impl Catalog {
    /// The keys of the state directory `root`.
    pub fn new(root: &Path, gpg: Gpg) -> Self {
        let agent_home = root.join(GNUPG);
        Self { homes: Homes::new(root), gpg, agent_home, reads: None, deadline: None }
    }

    /// The same keys; gpg looks at them when `reads` lets it.
    pub(crate) fn under(&self, reads: &Arc<GpgReadLimit>) -> Self {
        Self { reads: Some(Arc::clone(reads)), ..self.clone() }
    }

    /// The same keys for a client that waits until `deadline` only.
    pub fn until(&self, deadline: Instant) -> Self {
        Self { deadline: Some(deadline), ..self.clone() }
    }

    /// The homes.
    pub fn homes(&self) -> &Homes {
        &self.homes
    }

    /// The key of an identity; [`Error::NoKey`] when there is none.
    pub fn find(&self, name_email: &NameEmail) -> Result<Key> {
        let found = self.homes.find(name_email)?;
        let record = found.ok_or_else(|| Error::NoKey(name_email.clone()))?;
        let record = self.complete(name_email, record)?;
        Ok(Key { name_email: name_email.clone(), record })
    }

    /// All keys that `filter` lets through, in the order of the directory. What `key.json` says is
    /// taken as it is. A key that cannot be read is an error, and the next one comes after it.
    pub fn keys(&self, filter: Filter) -> Result<impl Iterator<Item = Result<Key>>> {
        Ok(self.listing(filter)?.filter_map(|listed| match listed {
            Ok(Listed::Key(key)) => Some(Ok(key)),
            Ok(Listed::PassedOver) => None,
            Ok(Listed::Unreadable(_, error)) | Err(error) => Some(Err(error)),
        }))
    }

    /// As [`Catalog::keys`], home by home, for a caller that says how far it is. An error means that the rest
    /// of the directory is not known.
    pub fn listing(&self, filter: Filter) -> Result<impl Iterator<Item = Result<Listed>>> {
        let by_name = filter.clone();
        let names = self.homes.identities()?;
        let names = names.filter(move |name_email| {
            name_email.as_ref().map_or(true, |name| by_name.takes_name(name))
        });
        // Under a limit, gpg looks at one key after the other: a listing is one request.
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

    /// What is known of the key of an identity, if there is one. What `key.json` says is taken as it is.
    fn look(&self, name_email: &NameEmail) -> Result<Option<KeyRecord>> {
        let record = self.read(name_email)?;
        record.map(|record| self.complete(name_email, record)).transpose()
    }

    /// As [`Catalog::look`], without gpg: what only the certificate says may be missing.
    fn read(&self, name_email: &NameEmail) -> Result<Option<KeyRecord>> {
        match KeyRecord::read(&self.homes.path(name_email)) {
            Some(record) => Ok(Some(record)),
            None => self.homes.find(name_email),
        }
    }

    /// The certificate of an identity as gpg sees it, to decide something by it.
    ///
    /// [`gpg::Error::Clock`] when the clock says less than the certificate.
    pub fn certificate(&self, name_email: &NameEmail) -> Result<Certificate> {
        let file = self.homes.pubring(name_email);
        let _look = self.may_look()?;
        Ok(self.gpg.inspect_one(self.keyring(&file), self.look_time())?)
    }

    /// As [`Catalog::certificate`], to show it whatever the clock says.
    pub fn view(&self, name_email: &NameEmail) -> Result<Certificate> {
        let file = self.homes.pubring(name_email);
        let _look = self.may_look()?;
        Ok(self.gpg.view_one(self.keyring(&file), self.look_time())?)
    }

    /// The armored certificate of a key, with all its signatures.
    pub fn pubkey(&self, key: &Key) -> Result<String> {
        let file = self.homes.pubring(&key.name_email);
        let _look = self.may_look()?;
        let (print, deadline) = (&key.record.fingerprint, self.look_time());
        let armored = self.gpg.export(self.keyring(&file), print, true, deadline)?;
        String::from_utf8(armored)
            .map_err(|e| Error::io(format!("exporting {}", file.display()), io::Error::other(e)))
    }

    /// Asks gpg for what the record does not know.
    fn complete(&self, name_email: &NameEmail, mut record: KeyRecord) -> Result<KeyRecord> {
        if record.created == 0 {
            record.learn(&self.view(name_email)?);
        }
        Ok(record)
    }

    fn may_look(&self) -> Result<Option<GpgRead<'_>>> {
        self.reads.as_deref().map(|reads| reads.take(self.deadline)).transpose()
    }

    /// When a gpg that starts now must have looked.
    fn look_time(&self) -> Instant {
        let own = Instant::now() + LOOK_TIME;
        self.deadline.map_or(own, |deadline| deadline.min(own))
    }

    fn keyring<'a>(&'a self, file: &'a Path) -> Keyring<'a> {
        Keyring { home: &self.agent_home, file }
    }
}
