//! The access log: a line for each answer, with fields in the journal, and a line for each failure on our side.

use std::io::{self, Write};
use std::time::Instant;

use gpg::Fingerprint;
use gpg::text::printable_start;
use keystore::NameEmail;
use log::Level;
use tiny_http::{HTTPVersion, Method};

use super::auth::Caller;
use super::counters::Counters;
use super::error::Error;
use super::request::Head;
use super::response::Answer;
use crate::server::{FloodLimit, Peer};
use crate::systemd::journal::event;

/// The maximum number of characters of a method or path that are logged.
const LOGGED_MAX: usize = 100;

/// The key that a request is about.
#[derive(Debug, Default)]
pub struct Subject {
    pub name_email: Option<NameEmail>,
    pub fingerprint: Option<Fingerprint>,
}

/// What is known about a request and is logged with its answer.
pub struct AccessLog {
    request_id: String,
    peer: Peer,
    started: Instant,
    /// The head of the request, if it could be read.
    pub head: Option<Head>,
    /// The client that sent the request, once it is known.
    pub caller: Caller,
    /// The key that the request is about, once it is known.
    pub subject: Subject,
}

impl AccessLog {
    /// Creates the log entry of a connection from `peer`.
    pub fn new(peer: Peer, started: Instant) -> Self {
        Self {
            request_id: format!("{:016x}", rand::random::<u64>()),
            peer,
            started,
            head: None,
            caller: Caller::default(),
            subject: Subject::default(),
        }
    }

    /// Returns the answer to a request that failed. If the failure is on our side, logs its cause, which the
    /// client is not told.
    pub fn failure(&self, error: &Error) -> Answer<'static> {
        let answer = Answer::error(error, &self.request_id);
        if answer.status >= 500 {
            let subject = self.subject.name_email.as_ref().map_or("", |name| name.as_str());
            let about = match subject {
                "" => String::new(),
                name_email => format!("key of {name_email}: "),
            };
            let fields = [
                ("MESSAGE_ID", event::REQUEST_FAILED),
                ("REQUEST_ID", &self.request_id),
                ("NAME_EMAIL", subject),
            ];
            let message = format!("{} {about}{error}", self.request_id);
            event::log(error.priority(), &fields, &message);
        }
        answer
    }

    /// Whether an answer with this status goes to a client that was not let in.
    pub fn is_stranger(&self, status: u16) -> bool {
        matches!(status, 401 | 403) && self.caller.token.is_none()
    }

    /// Writes the answer in the HTTP version of the request, and without a body if the request was a `HEAD`.
    pub fn write(&self, answer: Answer<'_>, to: &mut dyn Write) -> io::Result<()> {
        let version = self.head.as_ref().map_or(HTTPVersion(1, 1), |head| head.version.clone());
        let head_only = self.head.as_ref().is_some_and(|head| head.method == Method::Head);
        answer.write(to, version, &self.request_id, head_only)
    }

    /// Counts the answer and logs its line. The number of lines about clients that were not let in is limited.
    pub fn record(
        &self,
        counters: &Counters,
        flood: &FloodLimit,
        status: u16,
        reached: io::Result<()>,
    ) {
        counters.answered(status);
        let is_stranger = self.is_stranger(status);
        let left_out = if is_stranger { flood.line() } else { Some(0) };
        let Some(left_out) = left_out else { return };
        let shown = |text| printable_start(text, LOGGED_MAX);
        let (method, path) = match &self.head {
            Some(head) => (shown(head.method.as_str()), shown(&head.path)),
            None => ("-".into(), "-".into()),
        };
        let name_email = self.subject.name_email.as_ref().map_or("", |name| name.as_str());
        let fingerprint = self.subject.fingerprint.as_ref().map_or("", |print| print.as_str());
        let token = self.caller.token.as_deref().unwrap_or_default();
        let milliseconds = self.started.elapsed().as_millis().to_string();
        let mut message =
            format!("{} {} {method} {path} {status} {milliseconds} ms", self.request_id, self.peer);
        for (before, part) in [(" ", name_email), (" ", fingerprint), (" token=", token)] {
            if !part.is_empty() {
                message += before;
                message += part;
            }
        }
        if left_out > 0 {
            message += &format!(" ({left_out} more that were not let in are not shown)");
        }
        if let Err(e) = reached {
            message += &format!(" (the answer did not reach the client: {e})");
        }
        let message_id = if status == 201 { event::KEY_MADE } else { event::REQUEST };
        let fields = [
            ("MESSAGE_ID", message_id),
            ("REQUEST_ID", &self.request_id),
            ("REMOTE_ADDRESS", &self.peer.to_string()),
            ("HTTP_METHOD", &method),
            ("HTTP_PATH", &path),
            ("HTTP_STATUS", &status.to_string()),
            ("DURATION_MS", &milliseconds),
            ("NAME_EMAIL", name_email),
            ("FINGERPRINT", fingerprint),
            ("TOKEN_NAME", token),
        ];
        let level = if status >= 500 || is_stranger { Level::Warn } else { Level::Info };
        event::log(level, &fields, &message);
    }
}
