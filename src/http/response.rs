//! Answers. tiny_http writes their heads, with two flaws that are corrected here. It cannot write
//! `Connection: close`, and it always writes a length if the body is not chunked.

use std::io::{self, Write};

use tiny_http::{HTTPVersion, Header, Response, StatusCode};

use super::error::Error;
use super::stream::StreamBody;

const TEXT: &str = "text/plain;charset=UTF-8";

/// The number of seconds after which a client that got a 503 should try again.
const RETRY_AFTER: &str = "5";

/// An answer to a request.
pub struct Answer<'a> {
    pub status: u16,
    content_type: &'static str,
    body: Body<'a>,
    headers: Vec<(&'static str, String)>,
}

enum Body<'a> {
    /// A body that is complete before the head is sent. The head gives its length.
    Whole(String),
    /// A body that is produced while it is sent. An error cuts it off.
    Stream(MakeBody<'a>),
}

type MakeBody<'a> = Box<dyn FnOnce(&mut StreamBody) -> io::Result<()> + 'a>;

impl<'a> Answer<'a> {
    /// Creates a plain text answer.
    pub fn text(status: u16, body: impl Into<String>) -> Self {
        Self::whole(status, TEXT, body.into())
    }

    /// Creates an answer with a complete body.
    pub fn whole(status: u16, content_type: &'static str, body: String) -> Self {
        Self { status, content_type, body: Body::Whole(body), headers: Vec::new() }
    }

    /// Creates the answer to OPTIONS for a resource that has `methods` besides OPTIONS.
    pub fn options(methods: Option<&str>) -> Self {
        let methods = methods.into_iter().chain(["OPTIONS"]).collect::<Vec<_>>().join(", ");
        let headers = vec![("Allow", methods)];
        Self { status: 204, content_type: "", body: Body::Whole(String::new()), headers }
    }

    /// Creates an answer whose body `make` writes while it is sent. `make` is not called for a `HEAD` request.
    pub fn stream(
        status: u16,
        content_type: &'static str,
        make: impl FnOnce(&mut StreamBody) -> io::Result<()> + 'a,
    ) -> Self {
        Self { status, content_type, body: Body::Stream(Box::new(make)), headers: Vec::new() }
    }

    /// Creates the answer to a request that failed.
    pub fn error(error: &Error, request_id: &str) -> Self {
        let text = error.client_text(request_id);
        let mut answer = Self::text(error.http_status(), format!("{text}\n"));
        match error {
            // Basic comes first, because the build backend can send it.
            Error::Unauthorized => answer.headers.extend(
                ["Basic", "Bearer"]
                    .map(|scheme| ("WWW-Authenticate", format!("{scheme} realm=\"copr-keygen\""))),
            ),
            Error::MethodNotAllowed { allow } => answer.headers.push(("Allow", (*allow).into())),
            _ if answer.status == 503 => return answer.repeatable(),
            _ => {}
        }
        answer
    }

    /// Adds a header that tells the client when to try again.
    pub fn repeatable(mut self) -> Self {
        self.headers.push(("Retry-After", RETRY_AFTER.into()));
        self
    }

    /// Whether the body is produced while it is sent.
    pub fn is_stream(&self) -> bool {
        matches!(self.body, Body::Stream(_))
    }

    /// Writes the answer, or its head alone if the request was a `HEAD` (`head_only`).
    pub fn write(
        self,
        to: &mut dyn Write,
        version: HTTPVersion,
        request_id: &str,
        head_only: bool,
    ) -> io::Result<()> {
        // HTTP/1.0 has no chunks, so the end of the connection ends a stream.
        let is_chunked = self.is_stream() && version > HTTPVersion(1, 0);
        let mut bytes = self.head(version, request_id, is_chunked)?;
        match self.body {
            Body::Whole(text) => {
                if !head_only {
                    bytes.extend_from_slice(text.as_bytes());
                }
                to.write_all(&bytes)
            }
            Body::Stream(make) => {
                to.write_all(&bytes)?;
                if head_only {
                    return Ok(());
                }
                let mut body = StreamBody::new(to, is_chunked);
                make(&mut body)?;
                body.finish()
            }
        }
    }

    /// Returns the status line and the headers.
    fn head(
        &self,
        version: HTTPVersion,
        request_id: &str,
        is_chunked: bool,
    ) -> io::Result<Vec<u8>> {
        // Without a length, tiny_http announces chunks.
        let length = match &self.body {
            Body::Whole(text) => Some(text.len()),
            Body::Stream(_) => (!is_chunked).then_some(0),
        };
        let mut response =
            Response::new(StatusCode(self.status), Vec::new(), io::empty(), length, None)
                .with_chunked_threshold(usize::MAX);
        let fixed = [
            ("Server", "copr-keygen"),
            ("Content-Type", self.content_type),
            ("X-Request-Id", request_id),
        ];
        let own = self.headers.iter().map(|(name, value)| (*name, value.as_str()));
        for (name, value) in fixed.into_iter().chain(own).filter(|(_, value)| !value.is_empty()) {
            let header = Header::from_bytes(name, value);
            response.add_header(header.map_err(|()| io::Error::other("not a header"))?);
        }
        let mut head = Vec::with_capacity(512);
        response.raw_print(&mut head, version, &[], true, None)?;
        // RFC 9110, 8.6: an answer without content has no length. Neither has a stream that ends with the
        // connection.
        if self.status == 204 || (self.is_stream() && !is_chunked) {
            let kept = head.strip_suffix(b"Content-Length: 0\r\n\r\n").map(<[u8]>::len);
            head.truncate(kept.ok_or_else(|| io::Error::other("the head has another end"))?);
            head.extend_from_slice(b"\r\n");
        }
        let status_line = head.iter().position(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        head.splice(status_line..status_line, *b"Connection: close\r\n");
        Ok(head)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(answer: Answer, head_only: bool) -> String {
        written_in(1, answer, head_only)
    }

    fn written_in(minor: u8, answer: Answer, head_only: bool) -> String {
        let mut bytes = Vec::new();
        let result = answer.write(&mut bytes, HTTPVersion(1, minor), "0123", head_only);
        assert!(result.is_ok());
        let text = String::from_utf8_lossy(&bytes).into_owned();
        // The date is the only part that varies.
        text.split_inclusive("\r\n").filter(|line| !line.starts_with("Date: ")).collect()
    }

    const PONG_HEAD: &str = "HTTP/1.1 200 OK\r\nConnection: close\r\nServer: copr-keygen\r\n\
        Content-Type: text/plain;charset=UTF-8\r\nX-Request-Id: 0123\r\nContent-Length: 5\r\n\r\n";

    #[test]
    fn says_what_it_is_and_that_it_closes() {
        assert_eq!(written(Answer::text(200, "pong\n"), false), format!("{PONG_HEAD}pong\n"));
        assert_eq!(written(Answer::text(200, "pong\n"), true), PONG_HEAD);
    }

    #[test]
    fn what_methods_there_are_is_an_answer_without_content() {
        for (methods, allow) in [(Some("POST"), "POST, OPTIONS"), (None, "OPTIONS")] {
            assert_eq!(
                written(Answer::options(methods), false),
                format!(
                    "HTTP/1.1 204 No Content\r\nConnection: close\r\nServer: copr-keygen\r\n\
                     X-Request-Id: 0123\r\nAllow: {allow}\r\n\r\n"
                )
            );
        }
    }

    #[test]
    fn streams_are_chunked_or_end_with_the_connection() {
        let stream = || Answer::stream(200, "text/x", |out: &mut StreamBody| out.write_all(b"[]"));
        let head = |minor, coding| {
            format!(
                "HTTP/1.{minor} 200 OK\r\nConnection: close\r\nServer: copr-keygen\r\n\
                 Content-Type: text/x\r\nX-Request-Id: 0123\r\n{coding}\r\n"
            )
        };
        let (chunked, plain) = (head(1, "Transfer-Encoding: chunked\r\n"), head(0, ""));
        assert_eq!(written_in(1, stream(), false), format!("{chunked}2\r\n[]\r\n0\r\n\r\n"));
        assert_eq!(written_in(0, stream(), false), format!("{plain}[]"));
        assert_eq!(written_in(1, stream(), true), chunked);
        assert_eq!(written_in(0, stream(), true), plain);
    }

    #[test]
    fn a_stream_that_fails_is_cut_off() {
        let mut bytes = Vec::new();
        let failing = Answer::stream(200, "text/x", |out: &mut StreamBody| {
            out.write_all(b"[")?;
            out.flush()?;
            out.write_all(b"more")?;
            Err(io::Error::other("for a reason"))
        });
        assert!(failing.write(&mut bytes, HTTPVersion(1, 1), "0123", false).is_err());
        assert!(bytes.ends_with(b"\r\n\r\n1\r\n[\r\n"), "{}", String::from_utf8_lossy(&bytes));
    }

    #[test]
    fn errors_tell_clients_what_they_need_and_no_more() {
        let busy = written(Answer::error(&Error::busy("inside"), "0123"), false);
        assert!(busy.starts_with("HTTP/1.1 503 Service Unavailable\r\n"));
        assert!(busy.contains("\r\nRetry-After: 5\r\n") && !busy.contains("inside"));
        let failed = gpg::Error::Failed { how: "exit status 2".into(), words: "secret".into() };
        let failed = Error::from(failed);
        let failed = written(Answer::error(&failed, "0123"), false);
        assert!(failed.contains("under 0123\n") && !failed.contains("secret"));
        let method = Error::MethodNotAllowed { allow: "POST" };
        assert!(written(Answer::error(&method, "0"), false).contains("\r\nAllow: POST\r\n"));
    }
}
