//! Where those wait who were not let in: for a quarter of a second, in one thread and a bounded number,
//! without a place among the connections. It slows down who tries one token after the other, and so keeps
//! the processors free. With a right token, only those get here for whom there is no place.

use std::collections::VecDeque;
use std::io::Write;
use std::net::Shutdown;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::listener::Stream;

/// How long an answer waits.
const DELAY: Duration = Duration::from_millis(250);
/// Answers that wait at once. One more, and the oldest goes out early.
const WAITING_MAX: usize = 256;
/// How long writing may take: the answer fits the empty buffer of the socket or is given up.
const WRITE_TIME: Duration = Duration::from_millis(10);

/// Those who wait.
#[derive(Debug, Default)]
pub struct Doorstep {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// By the time they are due.
    waiting: VecDeque<Waiting>,
    is_attended: bool,
    is_closed: bool,
}

#[derive(Debug)]
struct Waiting {
    stream: Arc<Stream>,
    answer: Vec<u8>,
    due: Instant,
}

impl Doorstep {
    /// Sends `answer` to `stream` in a while.
    pub fn wait(self: &Arc<Self>, stream: Arc<Stream>, answer: Vec<u8>) {
        let mut state = self.lock();
        state.waiting.push_back(Waiting { stream, answer, due: Instant::now() + DELAY });
        let early = (state.waiting.len() > WAITING_MAX).then(|| state.waiting.pop_front());
        if !state.is_attended {
            let doorstep = Arc::clone(self);
            let attend = thread::Builder::new().name("doorstep".into());
            match attend.spawn(move || doorstep.attend()) {
                Ok(_) => state.is_attended = true,
                Err(_) => state.waiting.clear(), // closed without an answer
            }
        }
        drop(state);
        early.flatten().into_iter().for_each(Waiting::end);
    }

    /// From now on nobody waits.
    pub fn close(&self) {
        self.lock().is_closed = true;
        self.changed.notify_all();
        while let Some(waiting) = self.next_of_closed() {
            waiting.end();
        }
    }

    fn next_of_closed(&self) -> Option<Waiting> {
        self.lock().waiting.pop_front()
    }

    /// Answers whoever is due until nobody is left.
    fn attend(&self) {
        let mut state = self.lock();
        loop {
            let Some(first) = state.waiting.front() else {
                state.is_attended = false;
                return;
            };
            let left = first.due.saturating_duration_since(Instant::now());
            if !left.is_zero() && !state.is_closed {
                let waited = self.changed.wait_timeout(state, left);
                state = waited.unwrap_or_else(PoisonError::into_inner).0;
                continue;
            }
            let due = state.waiting.pop_front();
            drop(state);
            due.into_iter().for_each(Waiting::end);
            state = self.lock();
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiting {
    /// Answers. What has come in the meantime is read, or closing would reset the connection and the
    /// answer be lost.
    fn end(self) {
        self.stream.discard_received();
        let _ = self.stream.until(Instant::now() + WRITE_TIME).write_all(&self.answer); // or it left
        self.stream.shut_down(Shutdown::Write);
        self.stream.discard_received();
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::os::unix::net::UnixStream;

    fn knock(doorstep: &Arc<Doorstep>) -> UnixStream {
        let (ours, theirs) = UnixStream::pair().unwrap();
        doorstep.wait(Arc::new(Stream::unix(ours, "test".into())), b"no".to_vec());
        theirs
    }

    fn answered(mut theirs: UnixStream) -> Duration {
        let (began, mut text) = (Instant::now(), String::new());
        theirs.read_to_string(&mut text).unwrap();
        assert_eq!(text, "no");
        began.elapsed()
    }

    #[test]
    fn who_was_not_let_in_waits_unless_there_are_too_many() {
        let doorstep = Arc::new(Doorstep::default());
        let mut patient = knock(&doorstep);
        patient.write_all(&[0; 60_000]).unwrap();
        assert!(answered(patient) >= DELAY - Duration::from_millis(50));
        let all: Vec<_> = (0..WAITING_MAX + 3).map(|_| knock(&doorstep)).collect();
        let mut times = all.into_iter().map(answered);
        for _ in 0..3 {
            assert!(times.next().unwrap() < DELAY / 2);
        }
        assert!(times.next().unwrap() > DELAY / 2);
        drop(times);
        let (last, began) = (knock(&doorstep), Instant::now());
        doorstep.close();
        answered(last);
        assert!(began.elapsed() < DELAY / 2);
        let after = knock(&doorstep);
        assert!(answered(after) < DELAY / 2);
    }
}
