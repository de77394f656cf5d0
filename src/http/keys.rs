//! `GET /keys` and the paths below it: the list of keys, one key, its certificate. Changes nothing.

use std::io::{self, Write};

use gpg::text::number;
use keystore::{Filter, Listed};

use super::access_log::Subject;
use super::error::{Error, Result};
use super::response::Answer;
use super::service::RequestContext;
use super::stream::StreamBody;
use super::target;

const JSON: &str = "application/json";
/// The media type of an armored certificate (RFC 3156, 7).
const PGP_KEYS: &str = "application/pgp-keys";

/// The maximum number of unreadable keys that are logged one by one for a list. The others are only counted.
const COMPLAINTS_MAX: u64 = 10;

/// A representation of one key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyPart {
    /// The JSON object.
    Record,
    /// The armored certificate.
    Pubkey,
}

/// Splits a path below `/keys/` into the segment with the identity and the part of the key. Returns `None` if
/// there is no such resource.
pub fn resource(below: &str) -> Option<(&str, KeyPart)> {
    let (segment, part) = match below.split_once('/') {
        None => (below, KeyPart::Record),
        Some((segment, "pubkey")) => (segment, KeyPart::Pubkey),
        Some(_) => return None,
    };
    (!segment.is_empty()).then_some((segment, part))
}

/// Answers with one key or its certificate.
pub fn one(
    context: &RequestContext,
    segment: &str,
    part: KeyPart,
    subject: &mut Subject,
) -> Result<Answer<'static>> {
    let name_email = target::name_email(segment)?;
    let [] = target::numbers(context.head.query.as_deref(), [])?;
    subject.name_email = Some(name_email.clone());
    context.caller.check(&name_email)?;
    let catalog = context.service.catalog.until(context.deadline);
    let key = catalog.find(&name_email)?;
    subject.fingerprint = Some(key.record.fingerprint.clone());
    Ok(match part {
        KeyPart::Pubkey => Answer::whole(200, PGP_KEYS, catalog.pubkey(&key)?),
        KeyPart::Record => {
            let mut text = serde_json::to_string(&key).map_err(|e| not_json(e.into()))?;
            text.push('\n');
            Answer::whole(200, JSON, text)
        }
    })
}

/// Answers with all keys that the client may see, or with those among them that match the query. The answer is
/// a stream: keys are sent while others are still being read.
pub fn list<'s>(context: &RequestContext<'s, '_>) -> Result<Answer<'s>> {
    let (service, query) = (context.service, context.head.query.as_deref());
    let [changed_since, expires_before] =
        target::numbers(query, ["changed_since", "expires_before"])?;
    let filter = Filter { pattern: context.caller.pattern.clone(), changed_since, expires_before };
    let permit = service.streams.enter()?;
    let listing = service.catalog.listing(filter)?;
    Ok(Answer::stream(200, JSON, move |out| {
        let _permit = permit;
        write_array(listing, out)
    }))
}

/// Writes the keys as a JSON array, one per line. After an error the array is left without its end: if the
/// directory cannot be read to the end, nobody knows which keys are missing.
fn write_array(
    listing: impl Iterator<Item = keystore::Result<Listed>>,
    out: &mut StreamBody,
) -> io::Result<()> {
    // Send the first byte now, so that the client knows at once that it gets an answer.
    out.write_all(b"[")?;
    out.flush()?;
    let (mut between, mut unreadable) = ("\n", 0);
    for listed in listing {
        match listed.map_err(io::Error::other)? {
            Listed::Key(key) => {
                out.write_all(between.as_bytes())?;
                serde_json::to_writer(&mut *out, &key)?;
                between = ",\n";
            }
            Listed::PassedOver => {}
            // gpg was busy, and the key could have been read at another time. A client that asks only for
            // changes since its last request would never learn of this key. Break off the list.
            Listed::Unreadable(_, error @ keystore::Error::Gpg(gpg::Error::Busy(_))) => {
                return Err(io::Error::other(error));
            }
            Listed::Unreadable(name_email, error) => {
                unreadable += 1;
                if unreadable <= COMPLAINTS_MAX {
                    log::warn!("key of {name_email}: left out of the list: {error}");
                }
            }
        }
        out.pulse(b"\n")?;
    }
    if unreadable > 0 {
        let (one, many) = ("key could not be read and was", "keys could not be read and were");
        log::warn!("{} left out of a list", number(unreadable, one, many));
    }
    out.write_all(b"\n]\n")
}

fn not_json(e: io::Error) -> Error {
    Error::io("writing JSON", e)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_mean_a_key_or_its_certificate() {
        assert_eq!(resource("a%23b@c"), Some(("a%23b@c", KeyPart::Record)));
        assert_eq!(resource("a%23b@c/pubkey"), Some(("a%23b@c", KeyPart::Pubkey)));
        for nothing in ["", "/", "/pubkey", "a/", "a/b", "a/pubkey/", "a//pubkey", "a/Pubkey"] {
            assert_eq!(resource(nothing), None, "{nothing}");
        }
    }
}
