//! Waits for changes of values in etcd.

use std::io::{BufRead, BufReader};
use std::time::{Duration, Instant};

use gpg::text::printable_start;
use serde_json::{Value, json};
use ureq::BodyReader;

use crate::client::{Etcd, Stored, end_of, one};
use crate::error::{Error, Result, WORDS_MAX};
use crate::gateway::{bytes, failure, number_of};

/// The maximum length of a line in bytes. No line of a watch is that long: etcd splits an answer that is longer
/// than a request may be (1.5 MiB).
const LINE_MAX: usize = 16 << 20;

/// How long the rest of a line may take once its first bytes have arrived.
const LINE_TIME: Duration = Duration::from_secs(5);

/// A change of a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// The value was created, or changed to this.
    Put(Stored),
    /// The value was deleted.
    Deleted(Stored),
}

/// A stream of the changes to all values whose names begin with the same prefix.
pub struct Watch {
    lines: BufReader<BodyReader<'static>>,
}

impl Etcd {
    /// Starts to watch the names that begin with `prefix`, from the revision `from` on. The watch ends if the
    /// member sends nothing for `silence`. So callers start a new watch again and again.
    pub fn watch(
        &self,
        prefix: &[u8],
        from: u64,
        silence: Duration,
        deadline: Instant,
    ) -> Result<Watch> {
        let request = json!({ "create_request": {
            "key": bytes(prefix),
            "range_end": bytes(&end_of(prefix)),
            "start_revision": from.to_string(),
            "fragment": true,
        }});
        let body = self.gateway.stream("/v3/watch", &request, silence, deadline)?;
        Ok(Watch { lines: BufReader::new(body.into_reader()) })
    }
}

impl Watch {
    /// Waits for the next changes. Returns `None` if the member has been silent for too long, or has ended the
    /// stream.
    ///
    /// Only the changes tell how far the watch has come: the revision in the header of an answer is the current
    /// one of etcd. If the watch has to catch up, etcd first sends that it has begun, and then the changes of
    /// 1,000 revisions at a time.
    pub fn wait(&mut self) -> Result<Option<Vec<Change>>> {
        let (mut line, mut begun) = (Vec::new(), None);
        loop {
            let Ok(arrived @ [_, ..]) = self.lines.fill_buf() else { return Ok(None) };
            let end = arrived.iter().position(|byte| *byte == b'\n');
            let length = end.map_or(arrived.len(), |end| end + 1);
            line.extend_from_slice(&arrived[..length]);
            self.lines.consume(length);
            if end.is_some() {
                return changes(&line).map(Some);
            }
            if line.len() > LINE_MAX {
                return Err(Error::Refused("it tells changes in a line without an end".into()));
            }
            if begun.get_or_insert_with(Instant::now).elapsed() > LINE_TIME {
                return Ok(None);
            }
        }
    }
}

/// Parses the changes in a line.
fn changes(line: &[u8]) -> Result<Vec<Change>> {
    let object = serde_json::from_slice::<Value>(line)
        .map_err(|_| Error::Unreachable("it tells changes in what is no JSON".into()))?;
    let result = &object["result"];
    if !object["error"].is_null() {
        return Err(failure(500, &object["error"]));
    }
    let compacted = number_of(&result["compact_revision"]);
    if compacted > 0 {
        return Err(Error::Compacted(compacted));
    }
    if result["canceled"].as_bool() == Some(true) {
        let why = result["cancel_reason"].as_str().unwrap_or("it does not say why");
        let why = printable_start(why, WORDS_MAX);
        return Err(Error::Unreachable(format!("it has ended the watch: {why}")));
    }
    let events = result["events"].as_array().map_or(&[][..], Vec::as_slice);
    events.iter().map(change).collect()
}

impl Change {
    /// Returns the revision of etcd at which the change was made.
    pub fn revision(&self) -> u64 {
        let (Self::Put(stored) | Self::Deleted(stored)) = self;
        stored.revision
    }
}

fn change(event: &Value) -> Result<Change> {
    let stored = one(&event["kv"])?;
    Ok(match event["type"].as_str() {
        Some("DELETE") => Change::Deleted(stored),
        _ => Change::Put(stored),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_watch_has_come_as_far_as_its_changes() {
        let newest = |line: &str| {
            changes(line.as_bytes()).map(|told| told.iter().map(Change::revision).max())
        };
        let begun = r#"{"result":{"header":{"revision":"2501"},"created":true}}"#;
        assert_eq!(newest(begun), Ok(None));
        let some = r#"{"result":{"header":{"revision":"2501"},"events":[
            {"kv":{"key":"ay8w","mod_revision":"1000","value":"eA=="}},
            {"type":"DELETE","kv":{"key":"ay8x","mod_revision":"1001"}}]}}"#;
        assert_eq!(newest(some), Ok(Some(1001)));
        let compacted = r#"{"result":{"header":{},"canceled":true,"compact_revision":"7"}}"#;
        assert_eq!(newest(compacted), Err(Error::Compacted(7)));
        let ended = r#"{"result":{"canceled":true,"cancel_reason":"no more"}}"#;
        for (line, words) in [(ended, "ended the watch: no more"), ("{", "no JSON")] {
            let why = newest(line).err().map(|e| e.to_string()).unwrap_or_default();
            assert!(why.contains(words), "{why}");
        }
    }
}
