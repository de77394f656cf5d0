//! How the members of etcd are.

use std::time::Duration;

use serde_json::json;

use crate::client::Etcd;
use crate::endpoint::Endpoint;
use crate::error::Result;
use crate::gateway::number_of;

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
}

impl Etcd {
    /// Asks every endpoint how it is.
    pub fn members(&self) -> Vec<(&Endpoint, Result<Member>)> {
        let ask = |endpoint| {
            let path = "/v3/maintenance/status";
            let answer = self.gateway.call_member(endpoint, path, &json!({}), PATIENCE)?;
            Ok(Member {
                version: gpg::text::printable(answer["version"].as_str().unwrap_or_default()),
                cluster: number_of(&answer["header"]["cluster_id"]),
                has_leader: number_of(&answer["leader"]) != 0,
                size: number_of(&answer["dbSize"]),
            })
        };
        self.gateway.endpoints().iter().map(|endpoint| (endpoint, ask(endpoint))).collect()
    }
}
