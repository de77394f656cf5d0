//! How the members of etcd are.

use std::time::{Duration, Instant, SystemTime};

use gpg::text::printable_start;
use serde_json::{Value, json};

use crate::client::Etcd;
use crate::endpoint::Endpoint;
use crate::error::{Error, Result, WORDS_MAX};
use crate::gateway::number_of;

/// Where a member says how it is.
const STATUS: &str = "/v3/maintenance/status";

/// How long a member is waited for.
const PATIENCE: Duration = Duration::from_secs(2);

/// What a member says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// The version of its etcd.
    pub version: String,
    /// The number of its cluster.
    pub cluster: u64,
    /// Whether it knows a leader.
    pub has_leader: bool,
    /// The bytes of its database.
    pub size: u64,
    /// Its revision.
    pub revision: u64,
    /// Its index in the log of Raft.
    pub index: u64,
    /// What is wrong with the cluster, in its own words; empty when nothing is.
    pub errors: Vec<String>,
    /// By how many seconds its clock is ahead of the one of this host, or else behind it; give or take one.
    pub ahead: i64,
}

fn seconds(time: SystemTime) -> i64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

impl Member {
    fn of(answer: &Value, date: Option<SystemTime>) -> Self {
        let words = |value: &Value| printable_start(value.as_str().unwrap_or_default(), WORDS_MAX);
        let errors = answer["errors"].as_array().into_iter().flatten();
        Self {
            version: words(&answer["version"]),
            cluster: number_of(&answer["header"]["cluster_id"]),
            has_leader: number_of(&answer["leader"]) != 0,
            size: number_of(&answer["dbSize"]),
            revision: number_of(&answer["header"]["revision"]),
            index: number_of(&answer["raftIndex"]),
            errors: errors.map(words).collect(),
            ahead: date.map_or(0, |date| seconds(date) - seconds(SystemTime::now())),
        }
    }

    /// Fails when the cluster takes nothing more.
    pub fn check(&self) -> Result<()> {
        match self.errors.iter().any(|error| error.contains("NOSPACE")) {
            true => Err(Error::full("it has raised the alarm NOSPACE")),
            false => Ok(()),
        }
    }

    /// By how much its index is ahead of a revision.
    pub fn lead_over(&self, revision: u64) -> i64 {
        let number = |number| i64::try_from(number).unwrap_or(i64::MAX);
        number(self.index).saturating_sub(number(revision))
    }
}

impl Etcd {
    /// How the member is that answers.
    pub fn status(&self, deadline: Instant) -> Result<Member> {
        let answer = self.gateway.call(STATUS, &json!({}), deadline)?;
        Ok(Member::of(&answer, None))
    }

    /// Asks every endpoint how it is.
    pub fn members(&self) -> Vec<(&Endpoint, Result<Member>)> {
        let ask = |endpoint| {
            let (answer, date) =
                self.gateway.call_member_at(endpoint, STATUS, &json!({}), PATIENCE)?;
            Ok(Member::of(&answer, date))
        };
        self.gateway.endpoints().iter().map(|endpoint| (endpoint, ask(endpoint))).collect()
    }
}
