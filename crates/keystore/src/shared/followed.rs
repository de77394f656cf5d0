//! `cluster.json`: how far this host has followed what all hosts share, and a number that no other host has. A cache:
//! without it everything is compared anew.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::files::durable::replace_json;
use crate::files::lock::{DirectoryLock, hold};
use crate::files::small_files::beginning_of;
use crate::layout::CLUSTER;
use crate::secrets::passphrase::Passphrases;

/// Longer than any.
const FILE_MAX: u64 = 4096;

/// A moment in the life of an etcd.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Moment {
    /// Which etcd, and below which prefix.
    pub source: String,
    /// Its revision.
    pub revision: u64,
    /// By how much its Raft index is ahead of its revision: at least, and at most. It never falls, since what adds to
    /// the revision adds to the index; but with a snapshot, the revision is restored and the index begins anew.
    pub lead: (i64, i64),
}

/// How far this host has followed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Followed {
    /// A number that no other host has.
    pub number: String,
    /// Which etcd, and below which prefix.
    pub source: String,
    /// The revision up to which every change is here.
    pub revision: u64,
    /// By how much the Raft index was ahead of the revision at least; see [`Moment::lead`].
    pub lead: i64,
    /// When that was written (Unix time).
    pub time: u64,
    /// Keys that could not be taken over.
    pub refused: usize,
}

impl Followed {
    /// Of a host that has not followed yet.
    pub fn fresh() -> Result<Self> {
        let number = Passphrases::fresh()?;
        let number = String::from_utf8_lossy(&number[..32]).into_owned();
        Ok(Self { number, source: String::new(), revision: 0, lead: 0, time: 0, refused: 0 })
    }

    /// Held by the one process of this host that follows. [`Error::Settings`] when there is another one.
    pub fn hold(root: &Path) -> Result<DirectoryLock> {
        hold(root, || {
            Error::Settings(
                "another `copr-keygen follow` of this host runs: stop it, or let it be".into(),
            )
        })
    }

    /// Whether it tells of more than there was in this etcd at that moment: of another etcd, or before a snapshot of it
    /// was restored.
    pub fn is_ahead_of(&self, now: &Moment) -> bool {
        now.source != self.source || now.revision < self.revision || now.lead.1 < self.lead
    }

    /// Reads it; `None` when there is none that is understood.
    pub fn read(root: &Path) -> Option<Self> {
        let text = beginning_of(&root.join(CLUSTER), FILE_MAX).ok()??;
        serde_json::from_slice(&text).ok()
    }

    /// Puts it into the state directory `root`, durably; `scratch` is an empty directory of staging.
    pub fn write(&self, root: &Path, scratch: &Path) -> Result<()> {
        replace_json(self, &scratch.join(CLUSTER), &root.join(CLUSTER))
    }
}
