//! Which path answers what.

use std::time::Instant;

use gpg::Fingerprint;
use keystore::{NameEmail, Outcome};
use tiny_http::Method;

use super::auth::Pass;
use super::error::{Error, Result};
use super::request::Head;
use super::response::Answer;
use super::{Service, gen_key, keys, metrics, ready};

/// Methods of what is only looked at.
const READS: &str = "GET, HEAD";
/// Methods of what makes keys.
const MAKES: &str = "POST";
/// Every method that some path has.
const ALL: &str = "GET, HEAD, POST";

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
    if head.method == Method::Options {
        return Ok(Answer::options(methods(&head.path)));
    }
    let only_reads = || match head.method {
        Method::Get | Method::Head => Ok(()),
        _ => Err(Error::MethodNotAllowed { allow: READS }),
    };
    match head.path.as_str() {
        "/ping" => only_reads().map(|()| Answer::text(200, "pong\n")),
        "/ready" => only_reads().map(|()| ready::answer(service)),
        "/gen_key" if head.method == Method::Post => {
            gen_key(service, body, pass, subject, deadline)
        }
        "/gen_key" => Err(Error::MethodNotAllowed { allow: MAKES }),
        "/keys" => only_reads().and_then(|()| keys::list(service, query, pass)),
        "/metrics" => only_reads().map(|()| metrics::answer(service)),
        path => {
            let resource = path.strip_prefix("/keys/").and_then(keys::resource);
            let resource = resource.ok_or(Error::NotFound)?;
            only_reads().and_then(|()| keys::one(service, resource, query, pass, subject, deadline))
        }
    }
}

/// The methods of a path besides OPTIONS, which is answered everywhere: load balancers ask it for `/` or
/// `*`. Whether there is a key is not looked at.
fn methods(path: &str) -> Option<&'static str> {
    match path {
        "/ping" | "/ready" | "/keys" | "/metrics" => Some(READS),
        "/gen_key" => Some(MAKES),
        "*" => Some(ALL),
        path => path.strip_prefix("/keys/").and_then(keys::resource).map(|_| READS),
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
    subject.name_email = Some(request.name_email().clone());
    pass.check(request.name_email())?;
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
