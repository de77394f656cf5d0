//! The threads that serve connections: as many as there are connections, each kept for a while for
//! the next one, because starting a thread costs more than most answers do.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use std::{io, thread};

use super::connections::Place;

/// Threads that are kept without a connection.
const IDLE_MAX: usize = 8;
/// How long each of them is kept.
const IDLE_TIME: Duration = Duration::from_secs(5);
/// Plenty for parsing a request and running gpg.
const STACK_SIZE: usize = 512 * 1024;

/// The threads, and what each does with its connection.
pub struct Workers {
    crew: Arc<Crew>,
}

struct Crew {
    serve: Box<dyn Fn(Place) + Send + Sync>,
    state: Mutex<State>,
    work: Condvar,
}

#[derive(Default)]
struct State {
    /// Connections that an idle thread is about to take; never more of them than idle threads.
    handed: VecDeque<Place>,
    idle: usize,
}

impl Workers {
    /// No threads yet; `serve` is to see a connection through.
    pub fn new(serve: impl Fn(Place) + Send + Sync + 'static) -> Self {
        let (state, work) = (Mutex::default(), Condvar::new());
        Self { crew: Arc::new(Crew { serve: Box::new(serve), state, work }) }
    }

    /// Gives the connection to an idle thread or to a new one. It is closed when no thread can be
    /// started.
    pub fn hand(&self, place: Place) -> io::Result<()> {
        let mut state = self.crew.lock();
        if state.handed.len() < state.idle {
            state.handed.push_back(place);
            self.crew.work.notify_one();
            return Ok(());
        }
        drop(state);
        let crew = Arc::clone(&self.crew);
        let thread = thread::Builder::new().name("connection".into()).stack_size(STACK_SIZE);
        thread.spawn(move || crew.work(place)).map(drop)
    }
}

impl Crew {
    /// Serves `place` and what is handed on later, until there is nothing for a while.
    fn work(&self, place: Place) {
        let mut next = Some(place);
        while let Some(place) = next {
            (self.serve)(place);
            next = self.wait();
        }
    }

    fn wait(&self) -> Option<Place> {
        let mut state = self.lock();
        if state.idle >= IDLE_MAX {
            return None;
        }
        state.idle += 1;
        let nothing = |state: &mut State| state.handed.is_empty();
        let waited = self.work.wait_timeout_while(state, IDLE_TIME, nothing);
        state = waited.unwrap_or_else(PoisonError::into_inner).0;
        state.idle -= 1;
        state.handed.pop_front()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::collections::HashSet;
    use std::os::unix::net::UnixStream;
    use std::sync::{Barrier, mpsc};

    use super::super::connections::Connections;
    use super::super::listener::Stream;
    use super::*;

    fn place() -> Place {
        let (ours, _) = UnixStream::pair().unwrap();
        Connections::new().admit(Stream::unix(ours, "test".into())).unwrap()
    }

    /// Answers come from threads that all wait for each other, so each connection has its own.
    #[test]
    fn no_connection_waits_for_another() {
        const TOGETHER: usize = 3 * IDLE_MAX;
        let (done, answers) = mpsc::channel();
        let (barrier, done) = (Barrier::new(TOGETHER), Mutex::new(done));
        let workers = Workers::new(move |_| {
            barrier.wait();
            done.lock().unwrap().send(()).unwrap();
        });
        for _round in 0..20 {
            (0..TOGETHER).for_each(|_| workers.hand(place()).unwrap());
            for _ in 0..TOGETHER {
                answers.recv_timeout(Duration::from_secs(20)).unwrap();
            }
        }
    }

    #[test]
    fn a_thread_serves_one_after_the_other_and_another_takes_over_when_it_panics() {
        let (done, threads) = mpsc::channel();
        let done = Mutex::new(done);
        let workers = Workers::new(move |place| {
            let panics = place.stream().peer() == "panics";
            done.lock()
                .unwrap_or_else(PoisonError::into_inner)
                .send(thread::current().id())
                .unwrap();
            assert!(!panics, "as it should");
        });
        let idle = || {
            while workers.crew.lock().idle == 0 {
                thread::yield_now()
            }
        };
        let mut seen = HashSet::new();
        for _ in 0..10 {
            workers.hand(place()).unwrap();
            seen.insert(threads.recv().unwrap());
            idle();
        }
        assert_eq!(seen.len(), 1);
        let (ours, _) = UnixStream::pair().unwrap();
        let bad = Connections::new().admit(Stream::unix(ours, "panics".into())).unwrap();
        workers.hand(bad).unwrap();
        assert!(seen.contains(&threads.recv().unwrap()));
        workers.hand(place()).unwrap();
        threads.recv_timeout(Duration::from_secs(20)).unwrap();
    }
}
