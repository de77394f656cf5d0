//! Serves one request, from the first byte of the connection to the line in the access log.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::access_log::AccessLog;
use super::error::Error;
use super::request::{self, Head, NoRequest, Request};
use super::response::Answer;
use super::routes;
use super::service::{RequestContext, Service};
use super::stream::SteadyWriter;
use crate::server::{Admitted, Connection};

/// The time from the first byte until the answer is ready to be written. The backend hangs up after 30 s.
const ANSWER_TIME: Duration = Duration::from_secs(24);
/// How long writing an answer may take, unless it is a stream.
const WRITE_TIME: Duration = Duration::from_secs(5);

/// Reads the request, answers it and logs it.
pub fn serve(service: &Service, admitted: &Admitted) {
    let started = Instant::now();
    let connection = admitted.connection();
    let mut log = AccessLog::new(connection.peer(), started);
    let admit = |head: &mut Head| service.access.admit(head, connection.peer(), &mut log.caller);
    match request::read(&**connection, started, admit) {
        Ok(request) => {
            // The connection was cut off after the request had arrived. Nothing has been done for it yet.
            if !admitted.answering() {
                return;
            }
            let Request { head, body } = request;
            let (caller, deadline) = (&log.caller, started + ANSWER_TIME);
            let context = RequestContext { service, head: &head, body: &body, caller, deadline };
            let result = routes::answer(&context, &mut log.subject);
            log.head = Some(head);
            let answer = result.unwrap_or_else(|error| log.failure(&error));
            send(service, connection, &log, answer);
            admitted.answered();
            // A connection carries one request. Discard anything after it.
            if connection.discard_received() {
                connection.linger();
            }
        }
        Err(NoRequest::Refused(error, head)) => {
            log.head = head.map(|head| *head);
            let answer = log.failure(&error);
            if log.is_stranger(answer.status) {
                send_later(service, connection, &log, answer);
            } else {
                send(service, connection, &log, answer);
                connection.linger();
            }
        }
        Err(NoRequest::Gone) => log::debug!("{}: left without a request", connection.peer()),
    }
}

/// Refuses a connection that got no place in the table. The accepting thread calls this, so it must not block.
/// The request is still arriving; the answer is sent after a short delay, once the request has been read and
/// discarded.
pub fn turn_away(service: &Service, connection: Connection) {
    let connection = Arc::new(connection);
    let log = AccessLog::new(connection.peer(), Instant::now());
    let busy = Error::busy("every connection has a request that is being answered");
    let answer = log.failure(&busy);
    send_later(service, &connection, &log, answer);
}

/// Sends the answer and logs it.
fn send(service: &Service, connection: &Connection, log: &AccessLog, answer: Answer<'_>) {
    let status = answer.status;
    let reached = if answer.is_stream() {
        log.write(answer, &mut SteadyWriter::new(connection, &service.stopping))
    } else {
        log.write(answer, &mut connection.until(Instant::now() + WRITE_TIME))
    };
    log.record(&service.counters, &service.flood, status, reached);
}

/// Logs the answer and queues it to be sent after a delay.
fn send_later(
    service: &Service,
    connection: &Arc<Connection>,
    log: &AccessLog,
    answer: Answer<'_>,
) {
    let (status, mut bytes) = (answer.status, Vec::with_capacity(512));
    let written = log.write(answer, &mut bytes);
    service.delayed_refusals.add(Arc::clone(connection), bytes);
    log.record(&service.counters, &service.flood, status, written);
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpStream;

    use keystore::Store;

    use super::super::auth::Access;
    use super::*;
    use crate::listen_address::ListenAddress;
    use crate::server::Listener;
    use crate::settings::{Flags, Settings};

    #[test]
    fn a_client_that_gets_no_place_reads_why_whatever_it_sent() {
        let root = tempfile::tempdir().unwrap();
        let flags = Flags { state_dir: Some(root.path().into()), ..Flags::default() };
        let no_file = [("COPR_KEYGEN_CONFIG".into(), "/dev/null".into())];
        let settings = Settings::load(flags, no_file.into_iter()).unwrap();
        let store = Store::open(&settings.keystore().unwrap(), settings.gnupg().unwrap()).unwrap();
        let service = Service::new(store, Access::load(&settings).unwrap(), &settings).unwrap();
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let address: ListenAddress = port.to_string().parse().unwrap();
        let listener = Listener::bind("listen", &[address]).unwrap().remove(0);
        let mut client = TcpStream::connect(port).unwrap();
        let connection = loop {
            if let Some(connection) = listener.accept().unwrap() {
                break connection;
            }
        };
        client.write_all(&[b'x'; 60_000]).unwrap();
        turn_away(&service, connection);
        let mut answer = String::new();
        // If the connection were reset, reading would fail instead of reaching the end.
        client.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    }
}
