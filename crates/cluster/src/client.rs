//! Reads and changes values in etcd. Every read is linearizable: it sees every change that etcd has
//! acknowledged to anyone before it.

use std::time::Instant;

use serde_json::{Value, json};

use crate::endpoint::Connection;
use crate::error::{Error, Result};
use crate::gateway::{Gateway, bytes, bytes_of, number_of};

/// A connection to etcd, through any of its members.
#[derive(Debug)]
pub struct Etcd {
    pub(crate) gateway: Gateway,
}

/// A name in etcd and its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// The name (in etcd's terms, the key).
    pub name: Vec<u8>,
    /// The value; empty if only names were read.
    pub value: Vec<u8>,
    /// The revision of etcd at which the value was last changed.
    pub revision: u64,
    /// The ID of the lease that the value is attached to; 0 for none.
    pub lease: u64,
}

/// The result of an attempt to change a value.
#[derive(Debug, PartialEq, Eq)]
pub enum Put {
    /// The value was written.
    Done,
    /// The value had another revision than expected, so nothing was written. This is what it is now.
    Lost(Option<Stored>),
}

impl Etcd {
    /// Prepares to talk to these endpoints, without sending anything yet.
    pub fn new(connection: &Connection) -> Result<Self> {
        Ok(Self { gateway: Gateway::new(connection)? })
    }

    /// Reads the value of a name, if there is one.
    pub fn get(&self, name: &[u8], deadline: Instant) -> Result<Option<Stored>> {
        let answer = self.gateway.call("/v3/kv/range", &json!({ "key": bytes(name) }), deadline)?;
        Ok(stored(&answer["kvs"])?.pop())
    }

    /// Reads the values of those names that exist. At most 128 names are allowed, which is etcd's default limit
    /// for one request.
    pub fn get_all(&self, names: &[Vec<u8>], deadline: Instant) -> Result<Vec<Stored>> {
        let ranges = names.iter().map(|name| json!({ "request_range": { "key": bytes(name) } }));
        let request = json!({ "success": ranges.collect::<Vec<_>>() });
        let answer = self.gateway.call("/v3/kv/txn", &request, deadline)?;
        let responses = answer["responses"].as_array().into_iter().flatten();
        let found: Result<Vec<_>> =
            responses.map(|response| stored(&response["response_range"]["kvs"])).collect();
        Ok(found?.into_iter().flatten().collect())
    }

    /// Returns the ID of the cluster and the revision of etcd. A cluster that was restored from a snapshot may
    /// have another ID.
    pub fn now(&self, name: &[u8], deadline: Instant) -> Result<(u64, u64)> {
        let request = json!({ "key": bytes(name), "count_only": true });
        let answer = self.gateway.call("/v3/kv/range", &request, deadline)?;
        Ok((cluster(&answer), revision(&answer)))
    }

    /// Returns at most `limit` names that begin with `prefix` and follow `after`, in ascending order, and the
    /// revision of etcd.
    ///
    /// The order is etcd's default. If a request asks for an order or a revision, etcd reads all values before
    /// it applies the limit (`clientv3.WithSort`).
    pub fn page(
        &self,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
        deadline: Instant,
    ) -> Result<(Vec<Stored>, u64)> {
        let start = match after {
            Some(after) => [after, &[0]].concat(),
            None => prefix.to_vec(),
        };
        let request = json!({
            "key": bytes(&start),
            "range_end": bytes(&end_of(prefix)),
            "limit": limit.to_string(),
            "keys_only": true,
        });
        let answer = self.gateway.call("/v3/kv/range", &request, deadline)?;
        Ok((stored(&answer["kvs"])?, revision(&answer)))
    }

    /// Writes a value if the current one has the revision `over`. Zero means that there must be none.
    ///
    /// If the answer of a member gets lost, another member is asked again. So a value that is there already may
    /// be our own.
    pub fn put(
        &self,
        name: &[u8],
        over: u64,
        value: &[u8],
        lease: Option<u64>,
        deadline: Instant,
    ) -> Result<Put> {
        let key = bytes(name);
        let mut put = json!({ "key": key, "value": bytes(value) });
        if let Some(lease) = lease {
            put["lease"] = lease.to_string().into();
        }
        let request = json!({
            "compare": [{
                "key": key, "target": "MOD", "result": "EQUAL", "mod_revision": over.to_string(),
            }],
            "success": [{ "request_put": put }],
            "failure": [{ "request_range": { "key": key } }],
        });
        let answer = self.gateway.call("/v3/kv/txn", &request, deadline)?;
        if answer["succeeded"].as_bool() == Some(true) {
            return Ok(Put::Done);
        }
        Ok(Put::Lost(stored(&answer["responses"][0]["response_range"]["kvs"])?.pop()))
    }
}

/// Returns the first name after all names that begin with `prefix`.
pub(crate) fn end_of(prefix: &[u8]) -> Vec<u8> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < 0xff {
            end.push(last + 1);
            return end;
        }
    }
    vec![0] // etcd reads this as: up to the last name
}

/// Returns the ID of the cluster that gave an answer.
fn cluster(answer: &Value) -> u64 {
    number_of(&answer["header"]["cluster_id"])
}

/// Returns the revision of etcd when it gave an answer.
fn revision(answer: &Value) -> u64 {
    number_of(&answer["header"]["revision"])
}

fn stored(values: &Value) -> Result<Vec<Stored>> {
    values.as_array().map_or(Ok(Vec::new()), |values| values.iter().map(one).collect())
}

pub(crate) fn one(value: &Value) -> Result<Stored> {
    let stored = Stored {
        name: bytes_of(&value["key"])?,
        value: bytes_of(&value["value"])?,
        revision: number_of(&value["mod_revision"]),
        lease: number_of(&value["lease"]),
    };
    match stored.name.is_empty() {
        true => Err(Error::Unreachable("an answer is not what etcd answers: no name".into())),
        false => Ok(stored),
    }
}

#[cfg(test)]
mod tests {
    use super::end_of;

    #[test]
    fn a_range_ends_behind_its_prefix() {
        assert_eq!(end_of(b"/a/"), b"/a0");
        assert_eq!(end_of(b"a\xff"), b"b");
        assert_eq!(end_of(b"\xff"), b"\0");
    }
}
