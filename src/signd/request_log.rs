//! Logs and counts requests to the signer. Each gets one line in the journal, with its own fields.

use std::io;
use std::time::Instant;

use log::Level;
use signer::request::{self, Command, Form};
use signer::{Refusal, Reply};

use super::counters::Counters;
use crate::server::Peer;
use crate::systemd::journal::event;

/// A request and its outcome.
#[derive(Debug)]
pub struct RequestLog {
    /// The client that sent the request.
    pub peer: Peer,
    /// The command, once it has been parsed.
    pub command: Option<Command>,
    request_id: String,
    started: Instant,
    name_email: String,
    fingerprint: String,
    algorithm: String,
    signatures: usize,
    refusal: Option<Refusal>,
}

impl RequestLog {
    /// Creates the log entry of a request of which only the client is known.
    pub fn new(peer: Peer) -> Self {
        Self {
            peer,
            command: None,
            request_id: format!("{:016x}", rand::random::<u64>()),
            started: Instant::now(),
            name_email: String::new(),
            fingerprint: String::new(),
            algorithm: String::new(),
            signatures: 0,
            refusal: None,
        }
    }

    /// Records that the request is refused, and returns the answer.
    pub fn refuse(&mut self, refusal: Refusal) -> Vec<u8> {
        let answer = request::failure(&refusal.to_string());
        self.refusal = Some(refusal);
        answer
    }

    /// Records the signer's reply, and returns the answer.
    pub fn answer(&mut self, form: Form, reply: Reply) -> Vec<u8> {
        let text = |known: Option<String>| known.unwrap_or_default();
        self.name_email = text(reply.name_email.map(|name| name.to_string()));
        self.fingerprint = text(reply.fingerprint.map(|print| print.to_string()));
        self.algorithm = text(reply.algorithm);
        self.signatures = reply.signatures;
        let strings = match reply.answer {
            Ok(strings) => request::success(form, &strings).map_err(Refusal::Malformed),
            Err(refusal) => Err(refusal),
        };
        strings.unwrap_or_else(|refusal| self.refuse(refusal))
    }

    /// Counts the request and logs its line. `left_out` is the number of refused clients without access that
    /// have not been logged since the last line; `None` logs no line for this request either. `reached` says
    /// whether the answer could be sent.
    pub fn record(&self, counters: &Counters, left_out: Option<u64>, reached: io::Result<()>) {
        let took = self.started.elapsed();
        let result = self.refusal.as_ref().map_or("ok", Refusal::label);
        counters.answered(result, &self.algorithm, self.signatures, took);
        let Some(left_out) = left_out else { return };
        let command = match &self.command {
            None => "-",
            Some(Command::Ping | Command::Program) => "ping",
            Some(Command::PublicKey { .. }) => "pubkey",
            Some(Command::Sign { .. }) => "sign",
        };
        let (hash, digests) = match &self.command {
            Some(Command::Sign { hash, digests, .. }) => (hash.name(), &digests[..]),
            _ => ("", &[][..]),
        };
        let digests: Vec<_> =
            digests.iter().map(|digest| gpg::hex::encode(&digest.bytes).to_string()).collect();
        let digests = digests.join(" ");
        let milliseconds = took.as_millis().to_string();
        let mut message = format!("{} {} {command} {result}", self.request_id, self.peer);
        for part in [&self.name_email, &self.fingerprint, &self.algorithm, hash, &digests[..]] {
            if !part.is_empty() {
                message += " ";
                message += part;
            }
        }
        message += &format!(" {milliseconds} ms");
        if let Some(refusal) = &self.refusal {
            message += &format!(": {refusal}");
        }
        if left_out > 0 {
            message += &format!(" ({left_out} more of strangers are not shown)");
        }
        if let Err(e) = reached {
            message += &format!(" (the answer did not reach the client: {e})");
        }
        let fields = [
            ("MESSAGE_ID", event::SIGNED),
            ("REQUEST_ID", &self.request_id),
            ("REMOTE_ADDRESS", &self.peer.to_string()),
            ("SIGN_COMMAND", command),
            ("RESULT", result),
            ("NAME_EMAIL", &self.name_email),
            ("FINGERPRINT", &self.fingerprint),
            ("ALGORITHM", &self.algorithm),
            ("HASH", hash),
            ("DIGESTS", &digests),
            ("DURATION_MS", &milliseconds),
        ];
        let level = match &self.refusal {
            None | Some(Refusal::Unknown(_)) => Level::Info,
            Some(Refusal::Failed(_)) => Level::Error,
            Some(_) => Level::Warn,
        };
        event::log(level, &fields, &message);
    }
}
