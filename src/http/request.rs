//! Reads one HTTP/1 request from an untrusted client. Its size and time are bounded. A request is refused if
//! two parsers could disagree on where it ends.

use std::io::{self, Read, Write};
use std::time::{Duration, Instant};

use tiny_http::{HTTPVersion, Method};
use zeroize::Zeroizing;

use super::error::Error;
use crate::server::Connection;
use crate::systemd::credentials::Secret;

/// The maximum size of the request line and the headers, in bytes.
const HEAD_MAX: usize = 16 * 1024;
/// The initial capacity of the buffer, in bytes. Nearly every head fits, with a small body.
const HEAD_COMMON: usize = 2048;
/// The maximum number of headers.
const HEADERS_MAX: usize = 64;
/// How long the client may take to send the head.
const HEAD_TIME: Duration = Duration::from_secs(5);
/// The maximum size of the body, in bytes.
const BODY_MAX: usize = 64 * 1024;
/// How long the client may take to send the head and the body together.
const REQUEST_TIME: Duration = Duration::from_secs(10);

/// A connection that a request arrives on, with reads and writes that end at a deadline.
pub trait Wire {
    /// Returns a reader and writer whose calls fail with a timeout once `deadline` has passed.
    fn until(&self, deadline: Instant) -> impl Read + Write;
}

impl Wire for Connection {
    fn until(&self, deadline: Instant) -> impl Read + Write {
        Connection::until(self, deadline)
    }
}

/// A complete request.
#[derive(Debug)]
pub struct Request {
    /// The request line and the headers.
    pub head: Head,
    /// The body, of the announced length.
    pub body: Vec<u8>,
}

/// The request line, and the headers that matter.
#[derive(Debug)]
pub struct Head {
    /// The method.
    pub method: Method,
    /// The path of the target, up to the first `?`, as it was sent.
    pub path: String,
    /// The query, which follows that `?`, as it was sent.
    pub query: Option<String>,
    /// The HTTP version of the client.
    pub version: HTTPVersion,
    /// The value of the `Authorization` header.
    pub authorization: Option<Secret>,
    content_length: usize,
    expects_continue: bool,
}

/// The reason why no request could be read.
#[derive(Debug)]
pub enum NoRequest {
    /// The client left, or the connection was cut off.
    Gone,
    /// The request is refused. Contains the head if it could be read.
    Refused(Error, Option<Box<Head>>),
}

/// Reads a request that began to arrive at `started`. Reads its body only if `admit` accepts the head.
pub fn read(
    stream: &impl Wire,
    started: Instant,
    admit: impl FnOnce(&mut Head) -> Result<(), Error>,
) -> Result<Request, NoRequest> {
    // The head may contain a token, so the buffer is wiped when dropped.
    let mut buffer = Zeroizing::new(Vec::with_capacity(HEAD_COMMON));
    let (mut head, head_length) = read_head(stream, started + HEAD_TIME, &mut buffer)?;
    let mut body = buffer.split_off(head_length);
    drop(buffer);
    body.truncate(head.content_length);
    if let Err(error) = admit(&mut head) {
        return Err(NoRequest::Refused(error, Some(head.into())));
    }
    match read_body(stream, started + REQUEST_TIME, &head, body) {
        Ok(body) => Ok(Request { head, body }),
        Err(NoRequest::Refused(error, _)) => Err(NoRequest::Refused(error, Some(head.into()))),
        Err(unread) => Err(unread),
    }
}

fn read_head(
    stream: &impl Wire,
    deadline: Instant,
    buffer: &mut Zeroizing<Vec<u8>>,
) -> Result<(Head, usize), NoRequest> {
    let (mut empty_lines, mut parsed) = (0, 0);
    let mut chunk = Zeroizing::new([0; 4096]);
    loop {
        let room = chunk.len().min(HEAD_MAX + 1 - buffer.len());
        let count = read_some(stream, deadline, HEAD_TIME, &mut chunk[..room])?;
        let fresh = &chunk[..count];
        if empty_lines == buffer.len() {
            empty_lines += fresh.iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
        }
        if buffer.len() + count > buffer.capacity() {
            // Do not let the vector grow by itself: that would leave a copy in memory.
            let mut larger = Zeroizing::new(Vec::with_capacity(HEAD_MAX + 1));
            larger.extend_from_slice(buffer);
            *buffer = larger;
        }
        buffer.extend_from_slice(fresh);
        // Parsing again after every byte would take quadratic time.
        let has_line = fresh.contains(&b'\n') && empty_lines < buffer.len();
        if !has_line && buffer.len() < 2 * parsed && buffer.len() <= HEAD_MAX {
            continue;
        }
        parsed = buffer.len();
        match parse_head(buffer) {
            Ok(Some(parsed)) => return Ok(parsed),
            Ok(None) if buffer.len() <= HEAD_MAX => {}
            Ok(None) => return Err(NoRequest::Refused(head_too_large(), None)),
            Err(error) => return Err(NoRequest::Refused(error, None)),
        }
    }
}

fn read_body(
    stream: &impl Wire,
    deadline: Instant,
    head: &Head,
    mut body: Vec<u8>,
) -> Result<Vec<u8>, NoRequest> {
    if head.content_length > BODY_MAX {
        return Err(NoRequest::Refused(Error::BodyTooLarge(BODY_MAX), None));
    }
    if head.expects_continue && body.len() < head.content_length {
        let interim = b"HTTP/1.1 100 Continue\r\n\r\n";
        stream.until(deadline).write_all(interim).map_err(|_| NoRequest::Gone)?;
    }
    while body.len() < head.content_length {
        let mut chunk = [0; 4096];
        let room = chunk.len().min(head.content_length - body.len());
        let count = read_some(stream, deadline, REQUEST_TIME, &mut chunk[..room])?;
        body.extend_from_slice(&chunk[..count]);
    }
    Ok(body)
}

/// Reads at least one byte, waiting for it if necessary.
fn read_some(
    stream: &impl Wire,
    deadline: Instant,
    limit: Duration,
    chunk: &mut [u8],
) -> Result<usize, NoRequest> {
    loop {
        match stream.until(deadline).read(chunk) {
            Ok(0) => return Err(NoRequest::Gone),
            Ok(count) => return Ok(count),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) if e.kind() == io::ErrorKind::TimedOut => {
                return Err(NoRequest::Refused(Error::RequestTimeout(limit), None));
            }
            Err(_) => return Err(NoRequest::Gone),
        }
    }
}

/// Parses the head at the start of `bytes`. Returns it and its length, or `None` if it is incomplete.
fn parse_head(bytes: &[u8]) -> Result<Option<(Head, usize)>, Error> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut parsed = httparse::Request::new(&mut headers);
    let length = match parsed.parse(bytes) {
        Ok(httparse::Status::Complete(length)) if length > HEAD_MAX => return Err(head_too_large()),
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(httparse::Error::TooManyHeaders) => return Err(head_too_large()),
        Err(e) => return Err(Error::Malformed(format!("this is not an HTTP/1 request: {e}"))),
    };
    let (Some(method), Some(target), Some(minor)) = (parsed.method, parsed.path, parsed.version)
    else {
        return Err(Error::Malformed("this is not an HTTP/1 request".into()));
    };
    let Ok(method) = method.parse() else {
        return Err(Error::Malformed("the request method is no token".into()));
    };
    let (path, query) = split(target);
    let mut head = Head {
        method,
        path: path.into(),
        query: query.map(Into::into),
        version: HTTPVersion(1, minor),
        content_length: 0,
        authorization: None,
        expects_continue: false,
    };
    let mut lengths = 0;
    for header in parsed.headers.iter() {
        let is = |name: &str| header.name.eq_ignore_ascii_case(name);
        if is("Transfer-Encoding") {
            return Err(Error::Malformed(
                "Transfer-Encoding is not supported; send the body with a Content-Length".into(),
            ));
        } else if is("Content-Length") {
            lengths += 1;
            head.content_length = parse_content_length(header.value)?;
        } else if is("Authorization") {
            if head.authorization.is_some() {
                return Err(Error::Malformed("there is more than one Authorization".into()));
            }
            head.authorization = Some(Secret::new(header.value.to_vec()));
        } else if is("Expect") {
            // A client of HTTP/1.0 would take `100 Continue` for the answer (RFC 9110, section 10.1.1).
            head.expects_continue |=
                minor > 0 && header.value.eq_ignore_ascii_case(b"100-continue");
        }
    }
    if lengths > 1 {
        return Err(Error::Malformed("there is more than one Content-Length".into()));
    }
    Ok(Some((head, length)))
}

/// Splits a target in origin or absolute form into path and query (RFC 9112, 3.2).
fn split(target: &str) -> (&str, Option<&str>) {
    let resource = match target.split_once("://") {
        Some((scheme, rest))
            if ["http", "https"].iter().any(|s| s.eq_ignore_ascii_case(scheme)) =>
        {
            rest.find(['/', '?', '#']).map_or("/", |end| &rest[end..])
        }
        _ => target,
    };
    match resource.split_once('?') {
        // The path of an absolute target may be empty (RFC 9110, section 4.2.3).
        Some((path, query)) => (if path.is_empty() { "/" } else { path }, Some(query)),
        None => (resource, None),
    }
}

/// Parses digits only (RFC 9110, 8.6). A number that does not fit becomes `usize::MAX`, over any limit.
fn parse_content_length(value: &[u8]) -> Result<usize, Error> {
    if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
        return Err(Error::Malformed("Content-Length is no number".into()));
    }
    let digits = std::str::from_utf8(value).unwrap_or_default();
    Ok(digits.parse().unwrap_or(usize::MAX))
}

fn head_too_large() -> Error {
    Error::HeadTooLarge { bytes: HEAD_MAX, headers: HEADERS_MAX }
}

#[cfg(test)]
mod tests;
