//! How the members of etcd are.

use std::time::{Duration, Instant, SystemTime};

use serde_json::json;

use crate::client::Etcd;
use crate::endpoint::Endpoint;
use crate::error::Result;
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
    /// By how many seconds its clock is ahead of the one of this host, or else behind it; give or take one.
    pub ahead: i64,
}

fn seconds(time: SystemTime) -> i64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

impl Etcd {
    /// By how much the Raft index of the member that answers is ahead of its revision.
    pub fn lead(&self, deadline: Instant) -> Result<i64> {
        let answer = self.gateway.call(STATUS, &json!({}), deadline)?;
        let number = |field| i64::try_from(number_of(field)).unwrap_or(i64::MAX);
        Ok(number(&answer["raftIndex"]).saturating_sub(number(&answer["header"]["revision"])))
    }

    /// Asks every endpoint how it is.
    pub fn members(&self) -> Vec<(&Endpoint, Result<Member>)> {
        let ask = |endpoint| {
            let (answer, date) =
                self.gateway.call_member_at(endpoint, STATUS, &json!({}), PATIENCE)?;
            Ok(Member {
                version: gpg::text::printable(answer["version"].as_str().unwrap_or_default()),
                cluster: number_of(&answer["header"]["cluster_id"]),
                has_leader: number_of(&answer["leader"]) != 0,
                size: number_of(&answer["dbSize"]),
                ahead: date.map_or(0, |date| seconds(date) - seconds(SystemTime::now())),
            })
        };
        self.gateway.endpoints().iter().map(|endpoint| (endpoint, ask(endpoint))).collect()
    }
}
