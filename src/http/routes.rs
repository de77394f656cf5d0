//! Which path answers what.

use std::time::Instant;

use tiny_http::Method;

use super::auth::Pass;
use super::request::Head;
use super::response::Answer;
use super::{Service, gen_key, keys, metrics, ready};
use crate::error::{Error, Result};
use crate::gpg::Fingerprint;
use crate::identity::NameEmail;
use crate::keys::Outcome;

/// What a request was about, for the log.
#[derive(Debug, Default)]
pub struct Subject {
    pub name_email: Option<NameEmail>,
    pub fingerprint: Option<Fingerprint>,
}

/// Answers a request of a client with this `pass` before `deadline`; tells `subject` what it is about as
/// soon as that is known.
pub fn answer<'a>(
    service: &'a Service,
    head: &Head,
    body: &[u8],
    pass: &Pass,
    subject: &mut Subject,
    deadline: Instant,
) -> Result<Answer<'a>> {
    let query = head.query.as_deref();
    let only_reads = || match head.method {
        Method::Get | Method::Head => Ok(()),
        _ => Err(Error::MethodNotAllowed { allow: "GET, HEAD" }),
    };
    match head.path.as_str() {
        "/ping" => only_reads().map(|()| Answer::text(200, "pong\n")),
        "/ready" => only_reads().map(|()| ready::answer(service)),
        "/gen_key" if head.method == Method::Post => {
            gen_key(service, body, pass, subject, deadline)
        }
        "/gen_key" => Err(Error::MethodNotAllowed { allow: "POST" }),
        "/keys" => only_reads().and_then(|()| keys::list(service, query, pass)),
        "/metrics" => only_reads().map(|()| metrics::answer(service)),
        path => {
            let resource = path.strip_prefix("/keys/").and_then(keys::resource);
            let resource = resource.ok_or(Error::NotFound)?;
            only_reads().and_then(|()| keys::one(service, resource, query, pass, subject, deadline))
        }
    }
}

fn gen_key(
    service: &Service,
    body: &[u8],
    pass: &Pass,
    subject: &mut Subject,
    deadline: Instant,
) -> Result<Answer<'static>> {
    let started = Instant::now();
    let request = gen_key::parse(body, service.key_length, service.lifetime)?;
    subject.name_email = Some(request.user_id.name_email().clone());
    pass.check(request.user_id.name_email())?;
    let (status, record) = match service.store.ensure_key(&request, deadline)? {
        Outcome::Made(record) => {
            service.counters.made(started.elapsed());
            (201, record)
        }
        Outcome::Existed(record) => (200, record),
    };
    subject.fingerprint = Some(record.fingerprint);
    Ok(Answer::text(status, ""))
}
