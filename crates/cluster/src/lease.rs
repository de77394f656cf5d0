//! Names that belong to a process as long as it lives. etcd deletes the value once its lease has not been
//! renewed for a while.

use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::client::{Etcd, Put, Stored};
use crate::error::{Error, Result};
use crate::gateway::number_of;

/// How often a lease is renewed.
pub const KEEP: Duration = Duration::from_secs(4);

/// How long to try to end a lease that is no longer needed.
const END_TIME: Duration = Duration::from_secs(2);

/// A lease of a name. Dropping it ends the lease.
#[derive(Debug)]
pub struct Lease<'a> {
    etcd: &'a Etcd,
    id: u64,
    name: Vec<u8>,
}

/// The result of an attempt to take a name.
#[derive(Debug)]
pub enum Taken<'a> {
    /// The name is ours as long as the lease is renewed.
    Ours(Lease<'a>),
    /// Another process has the name; this is its value.
    Others(Stored),
}

impl Etcd {
    /// Takes a name by writing `value`, which tells who has it. The name is ours for `time`, and for longer if
    /// the lease is renewed. A name with the same value belongs to an earlier process of our own, and is taken
    /// over.
    pub fn take(
        &self,
        name: &[u8],
        value: &[u8],
        time: Duration,
        deadline: Instant,
    ) -> Result<Taken<'_>> {
        let request = json!({ "TTL": time.as_secs().to_string() });
        let answer = self.gateway.call("/v3/lease/grant", &request, deadline)?;
        let id = number_of(&answer["ID"]);
        if id == 0 {
            return Err(Error::Refused("it grants no lease".into()));
        }
        let lease = Lease { etcd: self, id, name: name.to_vec() };
        let mut over = 0;
        loop {
            match self.put(name, over, value, Some(id), deadline)? {
                Put::Done => return Ok(Taken::Ours(lease)),
                Put::Lost(Some(now)) if now.value == value => over = now.revision,
                Put::Lost(Some(now)) => return Ok(Taken::Others(now)),
                Put::Lost(None) => over = 0,
            }
        }
    }
}

impl Lease<'_> {
    /// Does `work` and renews the lease meanwhile. The work goes on even if the lease has expired: the lease
    /// saves others the same work, and no decision depends on it.
    pub fn keep_while<T>(&self, work: impl FnOnce() -> T) -> T {
        let (done, is_done) = mpsc::channel::<()>();
        thread::scope(|scope| {
            scope.spawn(move || {
                while is_done.recv_timeout(KEEP) == Err(RecvTimeoutError::Timeout) {
                    if let Err(e) = self.keep(Instant::now() + KEEP) {
                        log::warn!("keeping the lease of this run: {e}");
                    }
                }
            });
            let result = work();
            drop(done);
            result
        })
    }

    /// Whether the lease still has its name. Another process with the same value may have taken it over.
    pub fn has_name(&self, deadline: Instant) -> Result<bool> {
        let now = self.etcd.get(&self.name, deadline)?;
        Ok(now.is_some_and(|now| now.lease == self.id))
    }

    /// Renews the lease for its full time. Returns `false` if it has expired already.
    pub fn keep(&self, deadline: Instant) -> Result<bool> {
        let request = json!({ "ID": self.id.to_string() });
        let answer = self.etcd.gateway.call("/v3/lease/keepalive", &request, deadline)?;
        Ok(number_of(&answer["result"]["TTL"]) > 0)
    }
}

impl Drop for Lease<'_> {
    fn drop(&mut self) {
        let request = json!({ "ID": self.id.to_string() });
        let deadline = Instant::now() + END_TIME;
        // If this fails, the lease expires by itself.
        let _ = self.etcd.gateway.call("/v3/lease/revoke", &request, deadline);
    }
}
