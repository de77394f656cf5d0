//! The status of etcd's members.

use std::time::{Duration, Instant, SystemTime};

use gpg::text::printable_start;
use serde_json::{Value, json};

use crate::client::Etcd;
use crate::endpoint::Endpoint;
use crate::error::{Error, Result, WORDS_MAX};
use crate::gateway::number_of;

/// The path at which a member reports its status.
const STATUS: &str = "/v3/maintenance/status";

/// How long to wait for the status of a member.
const PATIENCE: Duration = Duration::from_secs(2);

/// The status of a member, as it reports it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// The version of its etcd.
    pub version: String,
    /// The ID of its cluster.
    pub cluster: u64,
    /// Whether it knows a leader.
    pub has_leader: bool,
    /// The size of its database in bytes.
    pub size: u64,
    /// The revision of its database.
    pub revision: u64,
    /// Its index in the Raft log.
    pub index: u64,
    /// The errors of the cluster, in etcd's own words; empty if there are none.
    pub errors: Vec<String>,
    /// How many seconds its clock is ahead of the clock of this host; negative if it is behind. It may be off
    /// by one second, and is zero if the time of the member is unknown.
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

    /// Fails if the cluster accepts no more data.
    pub fn check(&self) -> Result<()> {
        match self.errors.iter().any(|error| error.contains("NOSPACE")) {
            true => Err(Error::full("it has raised the alarm NOSPACE")),
            false => Ok(()),
        }
    }

    /// Returns by how much its Raft index is ahead of `revision`.
    pub fn lead_over(&self, revision: u64) -> i64 {
        let number = |number| i64::try_from(number).unwrap_or(i64::MAX);
        number(self.index).saturating_sub(number(revision))
    }
}

impl Etcd {
    /// Returns the status of one member, whichever answers.
    pub fn status(&self, deadline: Instant) -> Result<Member> {
        let answer = self.gateway.call(STATUS, &json!({}), deadline)?;
        Ok(Member::of(&answer, None))
    }

    /// Asks every member for its status.
    pub fn members(&self) -> Vec<(&Endpoint, Result<Member>)> {
        let ask = |endpoint| {
            let (answer, date) =
                self.gateway.call_member_at(endpoint, STATUS, &json!({}), PATIENCE)?;
            Ok(Member::of(&answer, date))
        };
        self.gateway.endpoints().iter().map(|endpoint| (endpoint, ask(endpoint))).collect()
    }
}
