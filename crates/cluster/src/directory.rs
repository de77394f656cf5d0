//! The names in etcd that hosts share. All are below one prefix:
//!
//! - `keys/<name_email>` is the key of an identity.
//! - `sealing` proves which key the hosts seal passphrases with.
//! - `hosts/<host>` is held by a host that follows.
//! - `prolong` is held by the host that prolongs keys.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use keystore::{Agreed, Agreement, Moment, NameEmail, SealingProof};

use crate::client::{Etcd, Put, Stored};
use crate::endpoint::Connection;
use crate::error::{Error, Result};
use crate::lease::{Lease, Taken};
use crate::watch::Watch;

/// How long to wait for an answer of etcd. An election takes one to two seconds.
pub const ANSWER_TIME: Duration = Duration::from_secs(5);

/// How long a host, or a run of `prolong`, counts as alive without renewing its lease.
pub const LEASE_TIME: Duration = Duration::from_secs(15);

/// How long a member may be silent before a watch is started anew.
const SILENCE: Duration = Duration::from_secs(4);

/// How many values are read with one request.
const VALUES: usize = 100;
/// How many names are read with one request.
const NAMES: usize = 1000;

/// The names in etcd below the prefix of these hosts.
#[derive(Debug)]
pub struct Directory {
    etcd: Etcd,
    prefix: String,
    proof: SealingProof,
    /// Whether etcd has shown that all hosts seal with the same key.
    is_proven: AtomicBool,
}

/// The key of an identity, as stored in etcd.
#[derive(Debug)]
pub struct SharedKey {
    /// The identity that the key belongs to. `Err` is a name that cannot be an identity, in printable form.
    pub name_email: std::result::Result<NameEmail, String>,
    /// The value; empty if only names were read.
    pub value: Vec<u8>,
    /// The revision of etcd at which the value was last changed.
    pub revision: u64,
}

fn soon() -> Instant {
    Instant::now() + ANSWER_TIME
}

impl Directory {
    /// Uses the names below `prefix`, without sending anything yet.
    pub fn new(connection: &Connection, prefix: &str, proof: SealingProof) -> Result<Self> {
        let prefix = prefix.trim_end_matches('/').to_owned();
        Ok(Self { etcd: Etcd::new(connection)?, prefix, proof, is_proven: false.into() })
    }

    /// Returns the connection to etcd.
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

    /// Converts a value below `keys/`.
    pub fn shared(&self, stored: Stored) -> SharedKey {
        let name = stored.name.strip_prefix(&*self.keys()).unwrap_or_default();
        let name = String::from_utf8_lossy(name);
        let name_email = NameEmail::parse(&name).map_err(|_| gpg::text::printable(&name));
        SharedKey { name_email, value: stored.value, revision: stored.revision }
    }

    /// Returns the current point in the history of this etcd.
    pub fn now(&self) -> Result<Moment> {
        let before = self.etcd.status(soon())?;
        // This read sees every change up to the Raft index of the first status, on this member too.
        let (cluster, revision) = self.etcd.now(&self.name("sealing"), soon())?;
        let after = self.etcd.status(soon())?;
        let source = format!("{cluster:x}{}", self.prefix);
        // A member reads its revision before its Raft index, so the second lead can only be too large.
        let lead = (before.lead_over(revision), after.lead_over(after.revision));
        Ok(Moment { source, revision, lead })
    }

    /// Calls `take` with the values that etcd has for these identities, in batches. Identities that etcd does
    /// not know are left out.
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

    /// Calls `take` with all names of identities in etcd, page by page and without their values. They include
    /// the names of removed keys. Returns the revision up to which the pages reflect every change.
    pub fn names<E: From<Error>>(
        &self,
        mut take: impl FnMut(Vec<SharedKey>) -> std::result::Result<(), E>,
    ) -> std::result::Result<u64, E> {
        let prefix = self.keys();
        let (mut last, mut complete) = (None::<Vec<u8>>, None);
        loop {
            let (stored, revision) = self.etcd.page(&prefix, last.as_deref(), NAMES, soon())?;
            // A change that is made while the pages are read has a later revision than the first page.
            let complete = *complete.get_or_insert(revision);
            let count = stored.len();
            last = stored.last().map(|stored| stored.name.clone());
            take(stored.into_iter().map(|one| self.shared(one)).collect())?;
            if count < NAMES {
                return Ok(complete);
            }
        }
    }

    /// Watches the keys for changes from the revision `from` on.
    pub fn watch(&self, from: u64) -> Result<Watch> {
        self.etcd.watch(&self.keys(), from, SILENCE, soon())
    }

    /// Fails if the other hosts seal passphrases with another key. Returns `false` if no host has stored its
    /// proof yet.
    pub fn compare_sealing(&self) -> keystore::Result<bool> {
        let Some(now) = self.etcd.get(&self.name("sealing"), soon())? else { return Ok(false) };
        self.proof.compare(&String::from_utf8_lossy(&now.value))?;
        self.is_proven.store(true, Ordering::Relaxed);
        Ok(true)
    }

    /// As [`Directory::compare_sealing`]. The first host stores its proof.
    pub fn prove(&self) -> keystore::Result<()> {
        if self.is_proven.load(Ordering::Relaxed) || self.compare_sealing()? {
            return Ok(());
        }
        let (keys, _) = self.etcd.page(&self.keys(), None, 1, soon())?;
        // Another host may have stored its proof, and made a key, meanwhile.
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

    /// Stores the proof of the key that this host seals with, unless another host has stored one. Fails if that
    /// is the proof of another key.
    pub fn tell_sealing(&self) -> keystore::Result<()> {
        let ours = self.proof.check_value().as_bytes();
        self.etcd.put(&self.name("sealing"), 0, ours, None, soon())?;
        match self.compare_sealing()? {
            true => Ok(()),
            false => Err(Error::Unreachable("it forgets what it is told".into()).into()),
        }
    }

    /// Takes the name of this host. `number` is a value that no other host has. Returns `None` if another host
    /// has the name, or had it until a moment ago.
    pub fn take_host(&self, host: &str, number: &str) -> Result<Option<Lease<'_>>> {
        let name = self.name(&format!("hosts/{host}"));
        match self.etcd.take(&name, number.as_bytes(), LEASE_TIME, soon())? {
            Taken::Ours(lease) => Ok(Some(lease)),
            Taken::Others(_) => Ok(None),
        }
    }

    /// Returns the names of the hosts that are following.
    pub fn hosts(&self) -> Result<Vec<String>> {
        let prefix = self.name("hosts/");
        let (stored, _) = self.etcd.page(&prefix, None, NAMES, soon())?;
        let name = |stored: Stored| {
            let name = stored.name.strip_prefix(&*prefix)?;
            Some(gpg::text::printable(&String::from_utf8_lossy(name)))
        };
        Ok(stored.into_iter().filter_map(name).collect())
    }

    /// Takes the turn to prolong keys. The inner `Err` is the name of the host that has it.
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
            // This is our own change; the answer to it got lost.
            Put::Lost(Some(now)) if now.value == value => None,
            Put::Lost(now) => Some(agreed(now)),
        })
    }
}

fn agreed(stored: Option<Stored>) -> Agreed {
    let revision = stored.as_ref().map_or(0, |stored| stored.revision);
    Agreed { revision, value: stored.map(|stored| stored.value) }
}
