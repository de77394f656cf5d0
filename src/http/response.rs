//! Answers, written by tiny_http with a `Connection: close` that it does not write itself.

use std::io::{self, BufWriter, Cursor, Write};

use tiny_http::{HTTPVersion, Header, Response, StatusCode};

use crate::error::Error;

const TEXT: &str = "text/plain;charset=UTF-8";

/// Seconds after which a client that was told 503 is welcome again.
const RETRY_AFTER: &str = "5";

/// What a request is answered with.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    body: String,
    headers: Vec<(&'static str, String)>,
}

impl Answer {
    /// A text answer.
    pub fn text(status: u16, body: impl Into<String>) -> Self {
        Self { status, body: body.into(), headers: Vec::new() }
    }

    /// The answer to a request that failed.
    pub fn error(error: &Error, request_id: &str) -> Self {
        let text = error.client_text(request_id);
        let mut answer = Self::text(error.http_status(), format!("{text}\n"));
        match error {
            Error::MethodNotAllowed { allow } => answer.headers.push(("Allow", (*allow).into())),
            _ if answer.status == 503 => answer.headers.push(("Retry-After", RETRY_AFTER.into())),
            _ => {}
        }
        answer
    }

    /// Writes the answer; to a `HEAD` request (`head_only`) without its body.
    pub fn write(
        self,
        to: impl Write,
        version: HTTPVersion,
        request_id: &str,
        head_only: bool,
    ) -> io::Result<()> {
        let length = self.body.len();
        let body = Cursor::new(self.body.into_bytes());
        let mut response =
            Response::new(StatusCode(self.status), Vec::new(), body, Some(length), None)
                .with_chunked_threshold(usize::MAX);
        let fixed =
            [("Server", "copr-keygen"), ("Content-Type", TEXT), ("X-Request-Id", request_id)];
        let own = self.headers.iter().map(|(name, value)| (*name, value.as_str()));
        for (name, value) in fixed.into_iter().chain(own) {
            let header = Header::from_bytes(name, value);
            response.add_header(header.map_err(|()| io::Error::other("not a header"))?);
        }
        let mut to = CloseAfterwards { to: BufWriter::new(to), said: false };
        response.raw_print(&mut to, version, &[], head_only, None)?;
        to.flush()
    }
}

/// Puts `Connection: close` behind the status line.
struct CloseAfterwards<W: Write> {
    to: W,
    said: bool,
}

impl<W: Write> Write for CloseAfterwards<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match bytes.iter().position(|b| *b == b'\n') {
            Some(end) if !self.said => {
                self.to.write_all(&bytes[..=end])?;
                self.to.write_all(b"Connection: close\r\n")?;
                self.said = true;
                Ok(end + 1)
            }
            _ => self.to.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(answer: Answer, head_only: bool) -> String {
        let mut bytes = Vec::new();
        let result = answer.write(&mut bytes, HTTPVersion(1, 1), "0123", head_only);
        assert!(result.is_ok());
        let text = String::from_utf8_lossy(&bytes).into_owned();
        // The date is the only part that changes.
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
    fn errors_tell_clients_what_they_need_and_no_more() {
        let busy = written(Answer::error(&Error::Busy("inside".into()), "0123"), false);
        assert!(busy.starts_with("HTTP/1.1 503 Service Unavailable\r\n"));
        assert!(busy.contains("\r\nRetry-After: 5\r\n") && !busy.contains("inside"));
        let failed = Error::GpgFailed { how: "exit status 2".into(), words: "secret".into() };
        let failed = written(Answer::error(&failed, "0123"), false);
        assert!(failed.contains("under 0123\n") && !failed.contains("secret"));
        let method = Error::MethodNotAllowed { allow: "POST" };
        assert!(written(Answer::error(&method, "0"), false).contains("\r\nAllow: POST\r\n"));
    }
}
