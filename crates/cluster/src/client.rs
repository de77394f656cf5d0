//! Reads and changes values. Every read is linearizable: it sees every change that anybody was told of before.

use std::time::Instant;

use serde_json::{Value, json};

use crate::endpoint::Connection;
use crate::error::{Error, Result};
use crate::gateway::{Gateway, bytes, bytes_of, number_of};

/// etcd, by any of its members.
#[derive(Debug)]
pub struct Etcd {
    pub(crate) gateway: Gateway,
}

/// A value of etcd.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// Its name.
    pub name: Vec<u8>,
    /// The value; empty in a page of names.
    pub value: Vec<u8>,
    /// The revision of etcd at which it was last changed.
    pub revision: u64,
    /// The lease that it is held by; 0 for none.
    pub lease: u64,
}

/// How a change of a value ended.
#[derive(Debug, PartialEq, Eq)]
pub enum Put {
    /// The value is what it was to be.
    Done,
    /// It was changed by somebody else before; what it is now.
    Lost(Option<Stored>),
}

impl Etcd {
    /// etcd at these endpoints. Nothing is asked yet.
    pub fn new(connection: &Connection) -> Result<Self> {
        Ok(Self { gateway: Gateway::new(connection)? })
    }

    /// A value.
    pub fn get(&self, name: &[u8], deadline: Instant) -> Result<Option<Stored>> {
        let answer = self.gateway.call("/v3/kv/range", &json!({ "key": bytes(name) }), deadline)?;
        Ok(stored(&answer["kvs"])?.pop())
    }

    /// Those of the values that there are. At most 128, which etcd allows in one request unless it is told otherwise.
    pub fn get_all(&self, names: &[Vec<u8>], deadline: Instant) -> Result<Vec<Stored>> {
        let ranges = names.iter().map(|name| json!({ "request_range": { "key": bytes(name) } }));
        let request = json!({ "success": ranges.collect::<Vec<_>>() });
        let answer = self.gateway.call("/v3/kv/txn", &request, deadline)?;
        let responses = answer["responses"].as_array().into_iter().flatten();
        let found: Result<Vec<_>> =
            responses.map(|response| stored(&response["response_range"]["kvs"])).collect();
        Ok(found?.into_iter().flatten().collect())
    }

    /// The number of the cluster, which a restored one has anew, and its revision.
    pub fn now(&self, name: &[u8], deadline: Instant) -> Result<(u64, u64)> {
        let request = json!({ "key": bytes(name), "count_only": true });
        let answer = self.gateway.call("/v3/kv/range", &request, deadline)?;
        Ok((cluster(&answer), revision(&answer)))
    }

    /// At most `limit` names that begin with `prefix`, those behind `after`, in their order; and the revision of etcd.
    ///
    /// Names come in order by themselves. For an order or a revision that is asked for, etcd reads every value there
    /// is before it counts (`clientv3.WithSort`).
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

    /// Puts a value in place of the one of the revision `over`, or where none is for 0. When the answer of a member
    /// is lost on the way, another one is asked again: a value that is there already may be our own.
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

/// The first name behind all that begin with `prefix`.
pub(crate) fn end_of(prefix: &[u8]) -> Vec<u8> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < 0xff {
            end.push(last + 1);
            return end;
        }
    }
    vec![0] // all there are
}

/// The number of the cluster that an answer is of.
fn cluster(answer: &Value) -> u64 {
    number_of(&answer["header"]["cluster_id"])
}

/// The revision of etcd that an answer is of.
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
