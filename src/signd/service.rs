//! Serves the protocol of obs-signd: reads a request, decides, answers, and logs a line.

use std::io::{self, Read, Write};
use std::sync::Arc;
use std::time::{Duration, Instant};

use signer::request::{self, HEAD};
use signer::{Refusal, Signer};

use super::access::Access;
use super::counters::Counters;
use super::request_log::RequestLog;
use crate::server::{Admitted, Connection, DelayedRefusals, FloodLimit, Protocol};

/// How long a client may take to send its request.
const REQUEST_TIME: Duration = Duration::from_secs(10);
/// How long sending an answer may take.
const WRITE_TIME: Duration = Duration::from_secs(5);

/// The signing service.
#[derive(Debug)]
pub struct Service {
    signer: Signer,
    access: Access,
    counters: Arc<Counters>,
    flood: FloodLimit,
    delayed_refusals: Arc<DelayedRefusals>,
}

impl Service {
    /// Creates a service that signs with `signer` for the clients that `access` admits.
    pub fn new(signer: Signer, access: Access, counters: Arc<Counters>) -> Self {
        let (flood, delayed_refusals) = (FloodLimit::default(), Arc::default());
        Self { signer, access, counters, flood, delayed_refusals }
    }

    /// Parses a request, carries it out if the client may make it, and returns the answer.
    fn decide(&self, bytes: &[u8], log: &mut RequestLog) -> Vec<u8> {
        let (form, command) = match request::parse(bytes) {
            Ok(parsed) => parsed,
            Err(why) => return log.refuse(Refusal::Malformed(why)),
        };
        log.command = Some(command);
        let Some(command) = &log.command else { return Vec::new() };
        let peer = log.peer;
        let reply = self.signer.reply(command, |identity| self.access.may_sign(&peer, identity));
        log.answer(form, reply)
    }

    fn finish(&self, admitted: &Admitted, log: &RequestLog, answer: &[u8]) {
        let connection = admitted.connection();
        let mut writer = connection.until(Instant::now() + WRITE_TIME);
        let reached = writer.write_all(answer);
        // A connection carries one request. Anything after it is discarded below.
        admitted.answered();
        log.record(&self.counters, Some(0), reached);
        if connection.discard_received() {
            connection.linger();
        }
    }
}

impl Protocol for Service {
    fn serve(&self, admitted: &Admitted) {
        let connection = admitted.connection();
        let mut log = RequestLog::new(connection.peer());
        if !self.access.may_connect(&log.peer) {
            let answer = log.refuse(Refusal::Stranger);
            self.delayed_refusals.add(Arc::clone(connection), answer);
            return log.record(&self.counters, self.flood.line(), Ok(()));
        }
        match read(connection) {
            Ok(bytes) if admitted.answering() => {
                let answer = self.decide(&bytes, &mut log);
                self.finish(admitted, &log, &answer);
            }
            Err(e) if admitted.answering() => {
                log::debug!("{}: left without a request: {e}", log.peer);
            }
            // The connection was cut off to make room for others, with all or part of its request received.
            Ok(_) | Err(_) => {
                let answer = log.refuse(Refusal::Busy);
                let reached = connection.send_at_once(&answer);
                connection.discard_received();
                log.record(&self.counters, Some(0), reached.map(drop));
            }
        }
    }

    fn turn_away(&self, connection: Connection) {
        let mut log = RequestLog::new(connection.peer());
        let (refusal, lines) = match self.access.may_connect(&log.peer) {
            true => (Refusal::Busy, Some(0)),
            false => (Refusal::Stranger, self.flood.line()),
        };
        let answer = log.refuse(refusal);
        self.delayed_refusals.add(Arc::new(connection), answer);
        log.record(&self.counters, lines, Ok(()));
    }

    fn status_text(&self) -> String {
        let (running, waiting) = self.signer.load();
        self.counters.waiting(waiting);
        let [signed, other, refused, failed] = self.counters.summary();
        format!(
            "signatures: {signed}, other answers: {other}, refused: {refused}, failed: {failed}; \
             at work: {running}, waiting: {waiting}"
        )
    }

    fn stop(&self) {
        self.delayed_refusals.close();
        let left_out = self.flood.left_out();
        if left_out > 0 {
            log::warn!("{left_out} more requests of strangers are not in this log");
        }
    }
}

/// Reads a complete request.
fn read(connection: &Connection) -> io::Result<Vec<u8>> {
    let mut reader = connection.until(Instant::now() + REQUEST_TIME);
    let mut bytes = vec![0; HEAD];
    reader.read_exact(&mut bytes)?;
    let length = request::length([bytes[0], bytes[1], bytes[2], bytes[3]]);
    reader.take(length as u64).read_to_end(&mut bytes)?;
    // A truncated request is left to the parser to reject.
    Ok(bytes)
}
