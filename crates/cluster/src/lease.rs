//! A name that belongs to a process as long as it lives: the value goes away when nobody has kept its lease for a
//! while.

use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::client::{Etcd, Put, Stored};
use crate::error::{Error, Result};
use crate::gateway::number_of;

/// How often a lease is kept.
pub const KEEP: Duration = Duration::from_secs(4);

/// How long etcd may be asked for the end of a lease that nobody needs any more.
const END_TIME: Duration = Duration::from_secs(2);

/// A lease, ended when this is dropped.
#[derive(Debug)]
pub struct Lease<'a> {
    etcd: &'a Etcd,
    id: u64,
    name: Vec<u8>,
}

/// How taking a name ended.
#[derive(Debug)]
pub enum Taken<'a> {
    /// It is ours as long as the lease is kept.
    Ours(Lease<'a>),
    /// Somebody else has it.
    Others(Stored),
}

impl Etcd {
    /// Takes a name with a value that tells who has it, for `time` and as long as the lease is kept. A name with
    /// the same value is our own, of a process that was here before, and is taken over.
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
    /// Does `work` and keeps the lease meanwhile. A lease that has ended does not end the work: it saves work, and
    /// decides nothing.
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

    /// Whether its name has not been taken over by another process with the same value.
    pub fn has_name(&self, deadline: Instant) -> Result<bool> {
        let now = self.etcd.get(&self.name, deadline)?;
        Ok(now.is_some_and(|now| now.lease == self.id))
    }

    /// Keeps it for its time again; `false` when it has ended already.
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
        // Else it ends by itself.
        let _ = self.etcd.gateway.call("/v3/lease/revoke", &request, deadline);
    }
}
