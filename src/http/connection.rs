//! One connection from its first byte to its line in the access log.

use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::sync::Arc;
use std::time::{Duration, Instant};

use log::Level;
use tiny_http::{HTTPVersion, Method};

use super::Service;
use super::auth::Pass;
use super::connections::Place;
use super::error::Error;
use super::listener::Stream;
use super::request::{self, Head, Request, Unread};
use super::response::Answer;
use super::routes::{self, Subject};
use super::stream::Steady;
use crate::systemd::journal::event;

/// From the first byte to the last but for the writing: the backend hangs up after 30 s.
const ANSWER_TIME: Duration = Duration::from_secs(24);
/// How long writing an answer may take that is not a stream.
const WRITE_TIME: Duration = Duration::from_secs(5);
/// How long a client that is still sending may go on, so that it gets to read its refusal.
const LINGER_TIME: Duration = Duration::from_secs(1);
/// Characters of a method or path that the log gets.
const LOGGED_MAX: usize = 100;

/// Reads the request, answers it, logs it.
pub fn serve(service: &Service, place: &Place) {
    let started = Instant::now();
    let stream = place.stream();
    let mut log = AccessLog::new(stream, started);
    let admit = |head: &mut Head| {
        let authorization = head.authorization.take();
        let wanted = (&head.method, head.path.as_str());
        service.access.admit(wanted, authorization.as_ref(), stream, &mut log.pass)
    };
    match request::read(&**stream, started, admit) {
        Ok(Request { head, body }) => {
            // A request that was cut off when it was complete already has not been touched yet.
            if !place.answering() {
                return;
            }
            let deadline = started + ANSWER_TIME;
            let result =
                routes::answer(service, &head, &body, &log.pass, &mut log.subject, deadline);
            log.head = Some(head);
            let answer = result.unwrap_or_else(|error| log.failure(&error));
            log.send(service, stream, answer);
            // One request a connection: what came behind it is not answered.
            if stream.discard_received() {
                linger(stream);
            }
        }
        Err(Unread::Refused(error, head)) => {
            log.head = head.map(|head| *head);
            let answer = log.failure(&error);
            if log.is_turned_away(answer.status) {
                log.send_later(service, stream, answer);
            } else {
                log.send(service, stream, answer);
                linger(stream);
            }
        }
        Err(Unread::Gone) => log::debug!("{}: left without a request", stream.peer()),
    }
}

/// Answers a connection that got no place, from the accepting thread, which must not wait. Its request is
/// on its way; the answer goes out in a moment, when that has been read and thrown away.
pub fn turn_away(service: &Service, stream: Stream) {
    let stream = Arc::new(stream);
    let log = AccessLog::new(&stream, Instant::now());
    let busy = Error::busy("every connection has a request that is being answered");
    let answer = log.failure(&busy);
    log.send_later(service, &stream, answer);
}

/// Closing a socket with unread data in it resets the connection, and the refusal is lost.
fn linger(stream: &Stream) {
    stream.shut_down(Shutdown::Write);
    let mut rest = stream.until(Instant::now() + LINGER_TIME).take(1024 * 1024);
    let mut sink = [0; 8192];
    while matches!(rest.read(&mut sink), Ok(1..)) {}
}

/// What the line in the access log is made of.
struct AccessLog<'a> {
    request_id: String,
    peer: &'a str,
    started: Instant,
    head: Option<Head>,
    pass: Pass,
    subject: Subject,
}

impl<'a> AccessLog<'a> {
    fn new(stream: &'a Stream, started: Instant) -> Self {
        Self {
            request_id: format!("{:016x}", rand::random::<u64>()),
            peer: stream.peer(),
            started,
            head: None,
            pass: Pass::default(),
            subject: Subject::default(),
        }
    }

    /// The answer to a failure. What the client is not told goes to the log.
    fn failure(&self, error: &Error) -> Answer<'static> {
        let answer = Answer::error(error, &self.request_id);
        if answer.status >= 500 {
            let subject = self.subject.name_email.as_ref().map(ToString::to_string);
            let about = subject.as_ref().map_or(String::new(), |name| format!("key of {name}: "));
            let fields = [
                ("MESSAGE_ID", event::REQUEST_FAILED),
                ("REQUEST_ID", &self.request_id),
                ("NAME_EMAIL", subject.as_deref().unwrap_or_default()),
            ];
            let message = format!("{} {about}{error}", self.request_id);
            event::log(error.priority(), &fields, &message);
        }
        answer
    }

    /// Whether an answer of this status goes to somebody who was not let in.
    fn is_turned_away(&self, status: u16) -> bool {
        matches!(status, 401 | 403) && self.pass.token.is_none()
    }

    /// Sends the answer and writes the line.
    fn send(&self, service: &Service, stream: &Stream, answer: Answer<'_>) {
        let status = answer.status;
        let reached = if answer.is_stream() {
            self.write(answer, &mut Steady::new(stream, &service.stopping))
        } else {
            self.write(answer, &mut stream.until(Instant::now() + WRITE_TIME))
        };
        self.record(service, status, reached);
    }

    /// Writes the line, and has the answer sent in a while.
    fn send_later(&self, service: &Service, stream: &Arc<Stream>, answer: Answer<'_>) {
        let (status, mut bytes) = (answer.status, Vec::with_capacity(512));
        let written = self.write(answer, &mut bytes);
        service.doorstep.wait(Arc::clone(stream), bytes);
        self.record(service, status, written);
    }

    fn write(&self, answer: Answer<'_>, to: &mut dyn Write) -> io::Result<()> {
        let version = self.head.as_ref().map_or(HTTPVersion(1, 1), |head| head.version.clone());
        let head_only = self.head.as_ref().is_some_and(|head| head.method == Method::Head);
        answer.write(to, version, &self.request_id, head_only)
    }

    /// Writes the line; of a flood of those who are not let in, a few.
    fn record(&self, service: &Service, status: u16, reached: io::Result<()>) {
        service.counters.answered(status);
        let is_turned_away = self.is_turned_away(status);
        let left_out = if is_turned_away { service.refusals.line() } else { Some(0) };
        let Some(left_out) = left_out else { return };
        let milliseconds = self.started.elapsed().as_millis().to_string();
        let (method, path) = match &self.head {
            Some(head) => (printable(head.method.as_str()), printable(&head.path)),
            None => ("-".into(), "-".into()),
        };
        let name_email = self.subject.name_email.as_ref().map_or("", |name| name.as_str());
        let fingerprint = self.subject.fingerprint.as_ref().map_or("", |print| print.as_str());
        let mut message =
            format!("{} {} {method} {path} {status} {milliseconds} ms", self.request_id, self.peer);
        for part in [name_email, fingerprint] {
            if !part.is_empty() {
                message.push(' ');
                message.push_str(part);
            }
        }
        let token = self.pass.token.as_deref().unwrap_or_default();
        if !token.is_empty() {
            message.push_str(&format!(" token={token}"));
        }
        if left_out > 0 {
            message.push_str(&format!(" ({left_out} more that were not let in are not shown)"));
        }
        if let Err(e) = reached {
            message.push_str(&format!(" (the answer did not reach the client: {e})"));
        }
        let status_text = status.to_string();
        let message_id = if status == 201 { event::KEY_MADE } else { event::REQUEST };
        let fields = [
            ("MESSAGE_ID", message_id),
            ("REQUEST_ID", &self.request_id),
            ("REMOTE_ADDRESS", self.peer),
            ("HTTP_METHOD", &method),
            ("HTTP_PATH", &path),
            ("HTTP_STATUS", &status_text),
            ("DURATION_MS", &milliseconds),
            ("NAME_EMAIL", name_email),
            ("FINGERPRINT", fingerprint),
            ("TOKEN_NAME", token),
        ];
        let level = if status >= 500 || is_turned_away { Level::Warn } else { Level::Info };
        event::log(level, &fields, &message);
    }
}

/// What a client sent, as a terminal and a log can take it.
pub fn printable(text: &str) -> String {
    let mut shown: String = text.chars().take(LOGGED_MAX).flat_map(char::escape_debug).collect();
    if text.chars().nth(LOGGED_MAX).is_some() {
        shown.push('…');
    }
    shown
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::net::TcpStream;

    use super::super::{Access, Listener};
    use super::*;
    use crate::listen_address::ListenAddress;
    use crate::settings::{Flags, Settings};
    use keystore::Store;

    #[test]
    fn who_gets_no_place_reads_why_whatever_was_sent() {
        let root = std::env::temp_dir().join(format!("ckg-{:016x}", rand::random::<u64>()));
        let flags = Flags { state_dir: Some(root.clone()), ..Flags::default() };
        let no_file = [("COPR_KEYGEN_CONFIG".into(), "/dev/null".into())];
        let settings = Settings::load(flags, no_file.into_iter()).unwrap();
        let store = Store::open(&settings.keystore().unwrap(), settings.gnupg().unwrap()).unwrap();
        let service = Service::new(store, Access::load(&settings).unwrap(), &settings).unwrap();
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let address: ListenAddress = port.to_string().parse().unwrap();
        let listener = Listener::bind(&address).unwrap().remove(0);
        let mut client = TcpStream::connect(port).unwrap();
        let stream = loop {
            if let Some(stream) = listener.accept().unwrap() {
                break stream;
            }
        };
        client.write_all(&[b'x'; 60_000]).unwrap();
        turn_away(&service, stream);
        let mut answer = String::new();
        // Reset, the reading fails in the place of the end.
        client.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
        std::fs::remove_dir_all(&root).unwrap();
    }
}
