//! HTTP requests: the head and body, in whatever pieces they arrive, and the meaning of the target.

use std::cell::RefCell;
use std::fmt::Write as _;
use std::io::{self, Read, Write};
use std::time::{Duration, Instant};

use copr_keygen::http::request::{self, NoRequest, Request, Wire};
use copr_keygen::http::{keys, target};
use keystore::identity::NameEmail;

use super::accepted;

/// The most bytes that the service may read for one request: both limits of `http/request.rs`, and the one
/// byte that shows that a head is too long.
const READ_MAX: usize = 16 * 1024 + 1 + 64 * 1024;

/// A client that sends `bytes` in pieces, cycling through a list of lengths, and then closes the connection.
struct Client<'a>(RefCell<Sending<'a>>);

struct Sending<'a> {
    bytes: &'a [u8],
    pieces: &'a [u8],
    sent: usize,
    reads: usize,
    told: Vec<u8>,
}

impl<'a> Client<'a> {
    fn new(bytes: &'a [u8], pieces: &'a [u8]) -> Self {
        Self(RefCell::new(Sending { bytes, pieces, sent: 0, reads: 0, told: Vec::new() }))
    }

    fn read(&self) -> Result<Request, NoRequest> {
        let result = request::read(self, Instant::now() + Duration::from_secs(3600), |_| Ok(()));
        let sending = self.0.borrow();
        assert!(sending.sent <= READ_MAX);
        let told = &sending.told[..];
        assert!(told.is_empty() || told == b"HTTP/1.1 100 Continue\r\n\r\n");
        result
    }
}

struct End<'a, 'b>(&'a RefCell<Sending<'b>>);

impl Wire for Client<'_> {
    fn until(&self, _: Instant) -> impl Read + Write {
        End(&self.0)
    }
}

impl Read for End<'_, '_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut sending = self.0.borrow_mut();
        let piece = match sending.pieces {
            [] => usize::MAX,
            pieces => usize::from(pieces[sending.reads % pieces.len()]).max(1),
        };
        let rest = &sending.bytes[sending.sent..];
        let count = rest.len().min(piece).min(buffer.len());
        buffer[..count].copy_from_slice(&rest[..count]);
        sending.sent += count;
        sending.reads += 1;
        Ok(count)
    }
}

impl Write for End<'_, '_> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        self.0.borrow_mut().told.extend_from_slice(buffer);
        Ok(buffer.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Reads a request at once and in pieces, and compares the results. The first byte of `data` says how many of
/// the following bytes are lengths of pieces. The client sends the rest.
pub fn request(data: &[u8]) {
    let Some((count, rest)) = data.split_first() else { return };
    let (pieces, bytes) = rest.split_at(usize::from(*count).min(rest.len()));
    let at_once = Client::new(bytes, &[]).read();
    let in_pieces = Client::new(bytes, pieces).read();
    // If the client leaves in the middle of a line, the reader may report it as gone before it looks at that
    // line.
    let (said, same) = (words(&at_once), words(&in_pieces));
    assert!(said == same || (at_once.is_err() && same == "gone"), "{said}, in pieces {same}");
    let Ok(Request { head, body }) = at_once else { return };
    let visible = |text: &str| text.bytes().all(|byte| byte > b' ' && byte != 0x7f);
    assert!(visible(&head.path) && !head.path.contains('?'), "{:?}", head.path);
    assert!(head.query.as_deref().is_none_or(visible));
    assert!(body.is_empty() || bytes.windows(body.len()).any(|window| window == body));

    let query = head.query.as_ref().map_or(String::new(), |query| format!("?{query}"));
    if head.path.is_empty() && query.is_empty() {
        return;
    }
    let mut again = format!(
        "{} {}{query} {}\r\nContent-Length: {}\r\n\r\n",
        head.method,
        head.path,
        format_args!("HTTP/{}", head.version),
        body.len()
    )
    .into_bytes();
    let without_body = again.len();
    again.extend_from_slice(&body);
    again.extend_from_slice(b"GET /next HTTP/1.1\r\n\r\n");
    let reread = Client::new(&again, &[]).read();
    let head = (head.method, head.path, head.query, head.version);
    let matches = reread.as_ref().is_ok_and(|Request { head: found, body: found_body }| {
        let found = (&found.method, &found.path, &found.query, &found.version);
        found == (&head.0, &head.1, &head.2, &head.3) && *found_body == body
    });
    assert!(matches || without_body > 16 * 1024, "{head:?} became {reread:?}");
}

/// Describes the result of a read, to compare it with another.
fn words(read: &Result<Request, NoRequest>) -> String {
    match read {
        Ok(Request { head, body }) => format!("{head:?} {body:?}"),
        Err(NoRequest::Gone) => "gone".into(),
        Err(NoRequest::Refused(error, head)) => {
            super::is_one_line(&error.client_text("0123456789abcdef"));
            assert!((400..=499).contains(&error.http_status()), "{error}");
            format!("{error} {head:?}")
        }
    }
}

/// Parses the path below `/keys/` and the query, as a client would write them.
pub fn target(data: &[u8]) {
    const NAMES: [&str; 2] = ["changed_since", "expires_before"];
    let Ok(text) = std::str::from_utf8(data) else { return };
    let (path, query) = match text.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (text, None),
    };
    if let Some((segment, _)) = keys::resource(path) {
        assert!(!segment.is_empty() && !segment.contains('/'));
    }
    if let Some(name) = accepted(target::name_email(path)) {
        super::identity::is_safe_name(&name);
        assert!(!path.contains('#') && path.contains("%23"));
        let mut encoded = String::new();
        for byte in name.as_str().bytes() {
            let _ = write!(encoded, "%{byte:02x}"); // writing to a String cannot fail
        }
        let again = accepted(target::name_email(&encoded));
        assert_eq!(again.as_ref().map(NameEmail::as_str), Some(name.as_str()));
    }
    if let Some(found) = accepted(target::numbers(query, NAMES)) {
        let pairs = NAMES.iter().zip(found).filter_map(|(n, v)| Some(format!("{n}={}", v?)));
        let printed = pairs.collect::<Vec<_>>().join("&");
        assert_eq!(accepted(target::numbers(Some(&printed), NAMES)), Some(found));
        let is_empty = query.is_none_or(str::is_empty);
        assert_eq!(is_empty, accepted(target::numbers(query, [])).is_some());
    }
}
