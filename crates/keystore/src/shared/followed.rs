//! `cluster.json`: how far this host has followed the changes that all hosts share, and a number unique to this
//! host. It is a cache: without it, all keys are compared again.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::files::durable::replace_json;
use crate::files::lock::{DirectoryLock, hold};
use crate::files::small_files::beginning_of;
use crate::layout::CLUSTER;
use crate::secrets::passphrase::Passphrases;

/// The size limit in bytes, larger than any `cluster.json`.
const FILE_MAX: u64 = 4096;

/// The state of an etcd cluster at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Moment {
    /// Identifies the etcd cluster and the prefix of the keys.
    pub source: String,
    /// The revision of etcd.
    pub revision: u64,
    /// A lower and an upper bound of the Raft index minus the revision. This difference never falls while etcd
    /// runs, since every new revision adds to the index too. When a snapshot is restored, the revision is
    /// restored as well, but the index begins anew, so the difference falls.
    pub lead: (i64, i64),
}

/// How far this host has followed the changes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Followed {
    /// A random number that no other host has.
    pub number: String,
    /// Identifies the etcd cluster and the prefix of the keys.
    pub source: String,
    /// The revision up to which this host has taken over every change.
    pub revision: u64,
    /// The lower bound of the Raft index minus the revision; see [`Moment::lead`].
    pub lead: i64,
    /// When this record was written (Unix time).
    pub time: u64,
    /// The number of keys that could not be taken over.
    pub refused: usize,
}

impl Followed {
    /// Creates the record of a host that has not followed yet.
    pub fn fresh() -> Result<Self> {
        let number = Passphrases::fresh()?;
        let number = String::from_utf8_lossy(&number[..32]).into_owned();
        Ok(Self { number, source: String::new(), revision: 0, lead: 0, time: 0, refused: 0 })
    }

    /// Takes the lock that the one following process of this host holds. Fails with [`Error::Settings`] if
    /// another process holds it.
    pub fn hold(root: &Path) -> Result<DirectoryLock> {
        hold(root, || {
            Error::Settings(
                "another `copr-keygen follow` of this host runs: stop it, or let it be".into(),
            )
        })
    }

    /// Whether this record is from another etcd cluster, or from a time before a snapshot of this one was
    /// restored. Then the record has another source, a higher revision or a larger lead than etcd has now.
    pub fn is_ahead_of(&self, now: &Moment) -> bool {
        now.source != self.source || now.revision < self.revision || now.lead.1 < self.lead
    }

    /// Reads the record. Returns `None` if it is missing or cannot be understood.
    pub fn read(root: &Path) -> Option<Self> {
        let text = beginning_of(&root.join(CLUSTER), FILE_MAX).ok()??;
        serde_json::from_slice(&text).ok()
    }

    /// Writes the record to the state directory `root`, durably. `scratch` is an empty directory in staging.
    pub fn write(&self, root: &Path, scratch: &Path) -> Result<()> {
        replace_json(self, &scratch.join(CLUSTER), &root.join(CLUSTER))
    }
}
