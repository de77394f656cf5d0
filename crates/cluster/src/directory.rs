//! The names in etcd that hosts share, below one prefix: `keys/<name_email>` is the key of an identity, `sealing`
//! proves the key that passphrases are sealed with, `hosts/<host>` is held by a host that follows, and `prolong` by
//! the one that prolongs.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use keystore::{Agreed, Agreement, Moment, NameEmail, SealingProof};

use crate::client::{Etcd, Put, Stored};
use crate::endpoint::Connection;
use crate::error::{Error, Result};
use crate::lease::{Lease, Taken};
use crate::watch::Watch;

/// How long etcd is waited for. An election takes one to two seconds.
pub const ANSWER_TIME: Duration = Duration::from_secs(5);

/// How long a host or a run of `prolong` counts as alive that has not been heard of.
pub const LEASE_TIME: Duration = Duration::from_secs(15);

/// A member that says nothing for so long is asked anew.
const SILENCE: Duration = Duration::from_secs(4);

/// So many values are read at once.
const VALUES: usize = 100;
/// So many names.
const NAMES: usize = 1000;

/// The shared names.
#[derive(Debug)]
pub struct Directory {
    etcd: Etcd,
    prefix: String,
    proof: SealingProof,
    /// Whether the hosts seal with the same key, once etcd has answered.
    is_proven: AtomicBool,
}

/// A key of an identity, as etcd has it.
#[derive(Debug)]
pub struct SharedKey {
    /// Whose it is; what is no name of an identity, in words, is nobody's.
    pub name_email: std::result::Result<NameEmail, String>,
    /// The value; empty with a name only.
    pub value: Vec<u8>,
    /// Since when.
    pub revision: u64,
}

fn soon() -> Instant {
    Instant::now() + ANSWER_TIME
}

impl Directory {
    /// Those below `prefix`. Nothing is asked yet.
    pub fn new(connection: &Connection, prefix: &str, proof: SealingProof) -> Result<Self> {
        let prefix = prefix.trim_end_matches('/').to_owned();
        Ok(Self { etcd: Etcd::new(connection)?, prefix, proof, is_proven: false.into() })
    }

    /// etcd itself.
    pub fn etcd(&self) -> &Etcd {
        &self.etcd
    }

    fn name(&self, rest: &str) -> Vec<u8> {
        format!("{}/{rest}", self.prefix).into_bytes()
    }

    fn keys(&self) -> Vec<u8> {
        self.name("keys/")
    }

    fn key(&self, name_email: &NameEmail) -> Vec<u8> {
        self.name(&format!("keys/{name_email}"))
    }

    /// The key that a value below `keys/` is.
    pub fn shared(&self, stored: Stored) -> SharedKey {
        let name = stored.name.strip_prefix(&*self.keys()).unwrap_or_default();
        let name = String::from_utf8_lossy(name);
        let name_email = NameEmail::parse(&name).map_err(|_| gpg::text::printable(&name));
        SharedKey { name_email, value: stored.value, revision: stored.revision }
    }

    /// Where in its life this etcd is now.
    pub fn now(&self) -> Result<Moment> {
        let before = self.etcd.status(soon())?;
        // What had an index before has its revision now, on this member too.
        let (cluster, revision) = self.etcd.now(&self.name("sealing"), soon())?;
        let after = self.etcd.status(soon())?;
        let source = format!("{cluster:x}{}", self.prefix);
        // A member says its revision before its index.
        let lead = (before.lead_over(revision), after.lead_over(after.revision));
        Ok(Moment { source, revision, lead })
    }

    /// Gives `take` what counts for each of these identities of which etcd knows.
    pub fn of<E: From<Error>>(
        &self,
        identities: &[NameEmail],
        mut take: impl FnMut(Vec<SharedKey>) -> std::result::Result<(), E>,
    ) -> std::result::Result<(), E> {
        for identities in identities.chunks(VALUES) {
            let names = identities.iter().map(|name_email| self.key(name_email));
            let stored = self.etcd.get_all(&names.collect::<Vec<_>>(), soon())?;
            take(stored.into_iter().map(|one| self.shared(one)).collect())?;
        }
        Ok(())
    }

    /// Gives `take` every name that etcd knows, with a key or with one that was removed, page by page and without the
    /// values. Returns the revision up to which no change is missing in what they say.
    pub fn names<E: From<Error>>(
        &self,
        mut take: impl FnMut(Vec<SharedKey>) -> std::result::Result<(), E>,
    ) -> std::result::Result<u64, E> {
        let prefix = self.keys();
        let (mut last, mut complete) = (None::<Vec<u8>>, None);
        loop {
            let (stored, revision) = self.etcd.page(&prefix, last.as_deref(), NAMES, soon())?;
            // What changes while the pages are read has a later revision than the first of them.
            let complete = *complete.get_or_insert(revision);
            let count = stored.len();
            last = stored.last().map(|stored| stored.name.clone());
            take(stored.into_iter().map(|one| self.shared(one)).collect())?;
            if count < NAMES {
                return Ok(complete);
            }
        }
    }

    /// Watches the keys from a revision on.
    pub fn watch(&self, from: u64) -> Result<Watch> {
        self.etcd.watch(&self.keys(), from, SILENCE, soon())
    }

    /// Fails when the other hosts seal passphrases with another key. `false` when no host has told yet.
    pub fn compare_sealing(&self) -> keystore::Result<bool> {
        let Some(now) = self.etcd.get(&self.name("sealing"), soon())? else { return Ok(false) };
        self.proof.compare(&String::from_utf8_lossy(&now.value))?;
        self.is_proven.store(true, Ordering::Relaxed);
        Ok(true)
    }

    /// As [`Directory::compare_sealing`]; the first host tells.
    pub fn prove(&self) -> keystore::Result<()> {
        if self.is_proven.load(Ordering::Relaxed) || self.compare_sealing()? {
            return Ok(());
        }
        let (keys, _) = self.etcd.page(&self.keys(), None, 1, soon())?;
        // Another host may have told, and made a key, meanwhile.
        if !keys.is_empty() && !self.compare_sealing()? {
            return Err(Error::Refused(format!(
                "it has keys below {}/keys and does not tell with which passphrase-key they are sealed; on a host \
                 that has these keys: `copr-keygen follow --seed`",
                self.prefix
            ))
            .into());
        }
        self.tell_sealing()
    }

    /// Tells the other hosts with which key this one seals, unless they have told. Fails when it is another one.
    pub fn tell_sealing(&self) -> keystore::Result<()> {
        let ours = self.proof.check_value().as_bytes();
        self.etcd.put(&self.name("sealing"), 0, ours, None, soon())?;
        match self.compare_sealing()? {
            true => Ok(()),
            false => Err(Error::Unreachable("it forgets what it is told".into()).into()),
        }
    }

    /// Takes the name of this host, by a number that nobody else has. `None` when another host has it, or one
    /// that is gone had it a moment ago.
    pub fn take_host(&self, host: &str, number: &str) -> Result<Option<Lease<'_>>> {
        let name = self.name(&format!("hosts/{host}"));
        match self.etcd.take(&name, number.as_bytes(), LEASE_TIME, soon())? {
            Taken::Ours(lease) => Ok(Some(lease)),
            Taken::Others(_) => Ok(None),
        }
    }

    /// The hosts that follow at the moment.
    pub fn hosts(&self) -> Result<Vec<String>> {
        let prefix = self.name("hosts/");
        let (stored, _) = self.etcd.page(&prefix, None, NAMES, soon())?;
        let name = |stored: Stored| {
            let name = stored.name.strip_prefix(&*prefix)?;
            Some(gpg::text::printable(&String::from_utf8_lossy(name)))
        };
        Ok(stored.into_iter().filter_map(name).collect())
    }

    /// Takes the turn to prolong. `Err` in the result is the host that has it.
    pub fn take_turn(&self, host: &str) -> Result<std::result::Result<Lease<'_>, String>> {
        let name = self.name("prolong");
        Ok(match self.etcd.take(&name, host.as_bytes(), LEASE_TIME, soon())? {
            Taken::Ours(lease) => Ok(lease),
            Taken::Others(now) => Err(gpg::text::printable(&String::from_utf8_lossy(&now.value))),
        })
    }
}

impl Agreement for Directory {
    fn answers(&self) -> keystore::Result<()> {
        self.prove()?;
        self.etcd.now(&self.name("sealing"), soon())?;
        Ok(self.etcd.status(soon())?.check()?)
    }

    fn look(&self, name_email: &NameEmail) -> keystore::Result<Agreed> {
        self.prove()?;
        let stored = self.etcd.get(&self.key(name_email), soon())?;
        Ok(agreed(stored))
    }

    fn put(
        &self,
        name_email: &NameEmail,
        over: u64,
        value: &[u8],
    ) -> keystore::Result<Option<Agreed>> {
        self.prove()?;
        Ok(match self.etcd.put(&self.key(name_email), over, value, None, soon())? {
            Put::Done => None,
            // The answer to our own change was lost on the way.
            Put::Lost(Some(now)) if now.value == value => None,
            Put::Lost(now) => Some(agreed(now)),
        })
    }
}

fn agreed(stored: Option<Stored>) -> Agreed {
    let revision = stored.as_ref().map_or(0, |stored| stored.revision);
    Agreed { revision, value: stored.map(|stored| stored.value) }
}
