//! Delays answers to clients without access by a quarter of a second. The delay slows down a client that tries
//! one guess after another, and keeps the processors free.
//!
//! One thread sends all of these answers. Their number is bounded, and their connections take no place in the
//! connection table. A client with access is refused here only when that table is full.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use gpg::locks::unpoisoned;
use nix::sys::socket::Shutdown;

use super::connection::Connection;

/// How long an answer is delayed.
const DELAY: Duration = Duration::from_millis(250);
/// The maximum number of delayed answers. Beyond it, the oldest answer is sent early.
const WAITING_MAX: usize = 256;

/// The queue of delayed answers.
#[derive(Debug)]
pub struct DelayedRefusals {
    delay: Duration,
    queue: Mutex<RefusalQueue>,
    closed: Condvar,
}

impl Default for DelayedRefusals {
    fn default() -> Self {
        Self::new(DELAY)
    }
}

#[derive(Debug, Default)]
struct RefusalQueue {
    /// The answers in the order in which they are due.
    waiting: VecDeque<Refusal>,
    has_thread: bool,
    is_closed: bool,
}

#[derive(Debug)]
struct Refusal {
    connection: Arc<Connection>,
    answer: Vec<u8>,
    due: Instant,
}

impl DelayedRefusals {
    fn new(delay: Duration) -> Self {
        Self { delay, queue: Mutex::default(), closed: Condvar::new() }
    }

    /// Sends `answer` over `connection` after the delay.
    pub fn add(self: &Arc<Self>, connection: Arc<Connection>, answer: Vec<u8>) {
        let mut queue = unpoisoned(self.queue.lock());
        queue.waiting.push_back(Refusal { connection, answer, due: Instant::now() + self.delay });
        let early = (queue.waiting.len() > WAITING_MAX).then(|| queue.waiting.pop_front());
        if !queue.has_thread {
            let refusals = Arc::clone(self);
            let thread = thread::Builder::new().name("refusals".into());
            match thread.spawn(move || refusals.send_all()) {
                Ok(_) => queue.has_thread = true,
                Err(_) => queue.waiting.clear(), // these connections close without an answer
            }
        }
        drop(queue);
        early.flatten().into_iter().for_each(Refusal::send);
    }

    /// Sends all waiting answers at once. Answers added later are no longer delayed.
    pub fn close(&self) {
        let mut queue = unpoisoned(self.queue.lock());
        queue.is_closed = true;
        let waiting = std::mem::take(&mut queue.waiting);
        drop(queue);
        self.closed.notify_all();
        waiting.into_iter().for_each(Refusal::send);
    }

    /// Sends each answer when it is due. Returns when the queue is empty.
    fn send_all(&self) {
        let mut queue = unpoisoned(self.queue.lock());
        while let Some(first) = queue.waiting.front() {
            let left = first.due.saturating_duration_since(Instant::now());
            if !left.is_zero() && !queue.is_closed {
                queue = unpoisoned(self.closed.wait_timeout(queue, left)).0;
                continue;
            }
            let due = queue.waiting.pop_front();
            drop(queue);
            due.into_iter().for_each(Refusal::send);
            queue = unpoisoned(self.queue.lock());
        }
        queue.has_thread = false;
    }
}

impl Refusal {
    /// Sends the answer and closes the connection. Reads and discards what the client has sent: closing a
    /// socket with unread data would reset the connection and lose the answer.
    fn send(self) {
        self.connection.discard_received();
        // Ignore the result: the answer fits the empty socket buffer, or it is dropped, or the client has left.
        let _ = self.connection.send_at_once(&self.answer);
        self.connection.shut_down(Shutdown::Write);
        self.connection.discard_received();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::Peer;
    use nix::sys::socket::UnixCredentials;
    use std::io::{ErrorKind, Read, Write};
    use std::os::unix::net::UnixStream;

    fn refuse(refusals: &Arc<DelayedRefusals>) -> UnixStream {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let connection = Connection::new(ours, Peer::Unix(UnixCredentials::new()));
        refusals.add(Arc::new(connection), b"no".to_vec());
        theirs
    }

    fn answered(mut theirs: UnixStream) -> Duration {
        let (began, mut text) = (Instant::now(), String::new());
        theirs.read_to_string(&mut text).unwrap();
        assert_eq!(text, "no");
        began.elapsed()
    }

    #[test]
    fn refusals_wait() {
        let refusals = Arc::new(DelayedRefusals::default());
        let mut patient = refuse(&refusals);
        patient.write_all(&[0; 60_000]).unwrap();
        assert!(answered(patient) >= DELAY - Duration::from_millis(50));
    }

    #[test]
    fn nothing_waits_beyond_the_limit_and_after_the_end() {
        // With so long a delay, whatever is answered has not waited.
        let refusals = Arc::new(DelayedRefusals::new(Duration::from_secs(3600)));
        let mut all: VecDeque<_> = (0..WAITING_MAX + 3).map(|_| refuse(&refusals)).collect();
        for early in all.drain(..3) {
            answered(early);
        }
        for mut waiting in &all {
            waiting.set_nonblocking(true).unwrap();
            assert!(waiting.read(&mut [0]).is_err_and(|e| e.kind() == ErrorKind::WouldBlock));
            waiting.set_nonblocking(false).unwrap();
        }
        refusals.close();
        for waiting in all {
            answered(waiting);
        }
        answered(refuse(&refusals));
    }
}
