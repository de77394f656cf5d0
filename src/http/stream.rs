//! Streams: long answers that are sent in chunks while they are produced. A client may be slow, but it must not
//! stall. The duration and the number of streams are bounded. A stream that cannot be completed is cut off.

use std::io::{self, Write};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::error::{Error, Result};
use crate::server::Connection;

/// The maximum number of streams at a time.
pub const STREAMS_MAX: usize = 16;

/// How long a stream may take in total.
const TOTAL_TIME: Duration = Duration::from_secs(300);
/// How long a client may receive nothing before it counts as stalled.
const STALL_TIME: Duration = Duration::from_secs(5);
/// How long a stream may go on once the service is stopping.
const STOP_TIME: Duration = Duration::from_secs(5);
/// How often a blocked write checks whether the service is stopping. It also tries to write again, because the
/// kernel wakes a writer only when there is plenty of room.
const SLICE: Duration = Duration::from_millis(250);

/// The size in bytes at which a chunk is sent.
const CHUNK: usize = 32 * 1024;
/// The age at which a chunk is sent, so that the client sees progress, and the service notices when the client
/// leaves.
const PULSE: Duration = Duration::from_secs(2);

/// Limits the number of streams at a time.
#[derive(Debug, Default)]
pub struct StreamLimit(AtomicUsize);

/// A permit to send a stream, held while it is sent.
#[derive(Debug)]
pub struct StreamPermit<'a>(&'a AtomicUsize);

impl StreamLimit {
    /// Takes a permit. Fails with [`Error::busy`] if all of them are taken.
    pub fn enter(&self) -> Result<StreamPermit<'_>> {
        let before = self.0.fetch_add(1, Ordering::SeqCst);
        let permit = StreamPermit(&self.0);
        if before >= STREAMS_MAX {
            return Err(Error::busy(format!("{STREAMS_MAX} lists of keys are being sent")));
        }
        Ok(permit)
    }
}

impl Drop for StreamPermit<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// A writer that fails if the client stalls, if the stream takes too long, or if the service is stopping.
pub struct SteadyWriter<'a> {
    connection: &'a Connection,
    end: Instant,
    stall_time: Duration,
    /// When the service began to stop.
    stopping: &'a OnceLock<Instant>,
}

impl<'a> SteadyWriter<'a> {
    /// Creates a writer. The time limit of the stream starts now.
    pub fn new(connection: &'a Connection, stopping: &'a OnceLock<Instant>) -> Self {
        Self { connection, end: Instant::now() + TOTAL_TIME, stall_time: STALL_TIME, stopping }
    }

    fn check(&self) -> io::Result<()> {
        let late = |why: String| Err(io::Error::new(io::ErrorKind::TimedOut, why));
        if self.stopping.get().is_some_and(|at| at.elapsed() >= STOP_TIME) {
            return late("the service stops, and the client was not done".into());
        }
        if Instant::now() >= self.end {
            return late(format!("it took longer than {} s", TOTAL_TIME.as_secs()));
        }
        Ok(())
    }
}

impl Write for SteadyWriter<'_> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let stalled = Instant::now() + self.stall_time;
        loop {
            self.check()?;
            match self.connection.until(stalled.min(Instant::now() + SLICE)).write(buffer) {
                Err(e) if e.kind() == io::ErrorKind::TimedOut => {}
                written => return written,
            }
            if Instant::now() >= stalled {
                let why = format!("the client took nothing for {:?}", self.stall_time);
                return Err(io::Error::new(io::ErrorKind::TimedOut, why));
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The body of a stream while it is sent.
pub struct StreamBody<'a> {
    to: &'a mut dyn Write,
    /// Whether the body is sent in chunks (RFC 9112, 7.1). If not, the end of the connection ends the body.
    marked: bool,
    waiting: Vec<u8>,
    sent: Instant,
}

impl<'a> StreamBody<'a> {
    /// Creates a body that is written to `to`.
    pub fn new(to: &'a mut dyn Write, marked: bool) -> Self {
        Self { to, marked, waiting: Vec::with_capacity(CHUNK + 1024), sent: Instant::now() }
    }

    /// Sends what is buffered if nothing has been sent for two seconds. If the buffer is empty, sends `filler`,
    /// which must be insignificant at this point of the body. Call this often, between two tokens of the body.
    pub fn pulse(&mut self, filler: &[u8]) -> io::Result<()> {
        if self.sent.elapsed() < PULSE {
            return Ok(());
        }
        if self.waiting.is_empty() {
            self.waiting.extend_from_slice(filler);
        }
        self.send()
    }

    /// Ends the body. A client that gets chunks can tell a body without this end to be incomplete.
    pub fn finish(mut self) -> io::Result<()> {
        self.send()?;
        if self.marked { self.to.write_all(b"0\r\n\r\n") } else { Ok(()) }
    }

    fn send(&mut self) -> io::Result<()> {
        self.sent = Instant::now();
        if self.waiting.is_empty() {
            return Ok(()); // an empty chunk would end the body
        }
        if self.marked {
            let size = format!("{:x}\r\n", self.waiting.len());
            self.waiting.extend_from_slice(b"\r\n");
            self.to.write_all(size.as_bytes())?;
        }
        self.to.write_all(&self.waiting)?;
        self.waiting.clear();
        Ok(())
    }
}

impl Write for StreamBody<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.waiting.extend_from_slice(bytes);
        if self.waiting.len() >= CHUNK {
            self.send()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.send()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::Peer;
    use nix::sys::socket::UnixCredentials;
    use std::io::Read;
    use std::os::unix::net::UnixStream;
    use std::thread;

    fn steady<'a>(connection: &'a Connection, stopping: &'a OnceLock<Instant>) -> SteadyWriter<'a> {
        let writer = SteadyWriter::new(connection, stopping);
        SteadyWriter { stall_time: Duration::from_millis(600), ..writer }
    }

    #[test]
    fn a_client_that_reads_slowly_is_served_longer_than_one_that_stalls() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let connection = Connection::new(ours, Peer::Unix(UnixCredentials::new()));
        let stopping = OnceLock::new();
        let reader = thread::spawn(move || {
            let mut buffer = [0; 8 * 1024];
            // This takes a second and a half in all, in steps too short to be a stall.
            for _ in 0..25 {
                theirs.read_exact(&mut buffer).unwrap();
                thread::sleep(Duration::from_millis(60));
            }
            theirs
        });
        let began = Instant::now();
        let error = steady(&connection, &stopping).write_all(&vec![0; 4_000_000]).unwrap_err();
        assert_eq!(error.to_string(), "the client took nothing for 600ms");
        assert!(began.elapsed() > Duration::from_millis(1500 + 500), "{:?}", began.elapsed());
        drop(reader.join());
    }

    #[test]
    fn time_ends_for_everybody() {
        let (ours, _theirs) = UnixStream::pair().unwrap();
        let connection = Connection::new(ours, Peer::Unix(UnixCredentials::new()));
        let (stopping, never) = (OnceLock::new(), OnceLock::new());
        let mut late = SteadyWriter { end: Instant::now(), ..steady(&connection, &never) };
        assert_eq!(late.write(b"x").unwrap_err().kind(), io::ErrorKind::TimedOut);
        stopping.set(Instant::now()).unwrap();
        assert_eq!(steady(&connection, &stopping).write(b"x").unwrap(), 1);
        let Some(long_ago) = Instant::now().checked_sub(STOP_TIME) else { return };
        let stopped = OnceLock::from(long_ago);
        let error = steady(&connection, &stopped).write(b"x").unwrap_err();
        assert!(error.to_string().contains("the service stops"), "{error}");
    }

    #[test]
    fn chunks_are_marked_and_only_a_whole_body_has_an_end() {
        let mut to = Vec::new();
        let mut chunks = StreamBody::new(&mut to, true);
        chunks.write_all(b"0123456789abcdef").unwrap();
        chunks.pulse(b"\n").unwrap();
        chunks.flush().unwrap();
        chunks.write_all(b"x").unwrap();
        chunks.finish().unwrap();
        assert_eq!(to, b"10\r\n0123456789abcdef\r\n1\r\nx\r\n0\r\n\r\n");

        let mut to = Vec::new();
        let mut chunks = StreamBody::new(&mut to, true);
        chunks.write_all(&[b'a'; CHUNK]).unwrap();
        chunks.write_all(b"never sent").unwrap();
        drop(chunks);
        assert_eq!(to, [b"8000\r\n", &[b'a'; CHUNK][..], b"\r\n"].concat());

        let mut to = Vec::new();
        let mut chunks = StreamBody::new(&mut to, false);
        chunks.sent = chunks.sent.checked_sub(PULSE).unwrap_or(chunks.sent);
        chunks.pulse(b"\n").unwrap();
        chunks.write_all(b"plain").unwrap();
        chunks.finish().unwrap();
        assert_eq!(to, b"\nplain");
    }

    #[test]
    fn long_answers_are_counted() {
        let limit = StreamLimit::default();
        let held: Result<Vec<_>> = (0..STREAMS_MAX).map(|_| limit.enter()).collect();
        assert!(limit.enter().is_err_and(|error| error.is_busy()));
        drop(held);
        assert!(limit.enter().is_ok());
    }
}
