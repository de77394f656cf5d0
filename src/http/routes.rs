//! Which path answers what.

use std::time::Instant;

use tiny_http::Method;

use super::request::Head;
use super::response::Answer;
use super::{Service, gen_key};
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

/// Answers a request before `deadline`; tells `subject` what it is about as soon as that is known.
pub fn answer(
    service: &Service,
    head: &Head,
    body: &[u8],
    subject: &mut Subject,
    deadline: Instant,
) -> Result<Answer> {
    match (head.path.as_str(), &head.method) {
        ("/ping", Method::Get | Method::Head) => Ok(Answer::text(200, "pong\n")),
        ("/ping", _) => Err(Error::MethodNotAllowed { allow: "GET, HEAD" }),
        ("/gen_key", Method::Post) => gen_key(service, body, subject, deadline),
        ("/gen_key", _) => Err(Error::MethodNotAllowed { allow: "POST" }),
        _ => Err(Error::NotFound),
    }
}

fn gen_key(
    service: &Service,
    body: &[u8],
    subject: &mut Subject,
    deadline: Instant,
) -> Result<Answer> {
    let request = gen_key::parse(body, service.key_length, service.lifetime)?;
    subject.name_email = Some(request.user_id.name_email().clone());
    let (status, record) = match service.store.ensure_key(&request, deadline)? {
        Outcome::Made(record) => (201, record),
        Outcome::Existed(record) => (200, record),
    };
    subject.fingerprint = Some(record.fingerprint);
    Ok(Answer::text(status, ""))
}
