//! The threads that serve connections, one per connection. A thread that becomes idle is kept for a while to
//! serve another connection, because starting a thread costs more than most answers do.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;
use std::{io, thread};

use gpg::locks::unpoisoned;

use super::connection_table::Admitted;

/// The maximum number of idle threads.
const IDLE_MAX: usize = 8;
/// How long an idle thread is kept.
const IDLE_TIME: Duration = Duration::from_secs(5);
/// The stack size of a thread, in bytes: plenty for parsing a request and running gpg.
const STACK_SIZE: usize = 512 * 1024;

/// The threads, and the function that each runs on its connections.
pub struct Workers {
    serve: Box<dyn Fn(Admitted) + Send + Sync>,
    queue: Mutex<WorkQueue>,
    handed: Condvar,
}

#[derive(Default)]
struct WorkQueue {
    /// Connections handed to idle threads that have not woken up yet. Never more than there are idle threads.
    handed: VecDeque<Admitted>,
    idle: usize,
}

impl Workers {
    /// Creates an empty set of threads. `serve` is called with each connection.
    pub fn new(serve: impl Fn(Admitted) + Send + Sync + 'static) -> Arc<Self> {
        let (queue, handed) = (Mutex::default(), Condvar::new());
        Arc::new(Self { serve: Box::new(serve), queue, handed })
    }

    /// Hands the connection to an idle thread or to a new one. Closes it and fails if no thread can be started.
    pub fn hand(self: &Arc<Self>, connection: Admitted) -> io::Result<()> {
        let mut queue = unpoisoned(self.queue.lock());
        if queue.handed.len() < queue.idle {
            queue.handed.push_back(connection);
            self.handed.notify_one();
            return Ok(());
        }
        drop(queue);
        let workers = Arc::clone(self);
        let thread = thread::Builder::new().name("connection".into()).stack_size(STACK_SIZE);
        thread.spawn(move || workers.work(connection)).map(drop)
    }

    /// Serves `connection`, then those handed to this thread later. Returns after [`IDLE_TIME`] without one, or
    /// if there are enough idle threads.
    fn work(&self, connection: Admitted) {
        let mut next = Some(connection);
        while let Some(connection) = next {
            (self.serve)(connection);
            next = self.wait();
        }
    }

    fn wait(&self) -> Option<Admitted> {
        let mut queue = unpoisoned(self.queue.lock());
        if queue.idle >= IDLE_MAX {
            return None;
        }
        queue.idle += 1;
        let is_empty = |queue: &mut WorkQueue| queue.handed.is_empty();
        queue = unpoisoned(self.handed.wait_timeout_while(queue, IDLE_TIME, is_empty)).0;
        queue.idle -= 1;
        queue.handed.pop_front()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::net::{IpAddr, Ipv4Addr, SocketAddr};
    use std::os::unix::net::UnixStream;
    use std::sync::{Barrier, mpsc};

    use super::super::connection::{Connection, Peer};
    use super::super::connection_table::ConnectionTable;
    use super::*;

    const CALM: Peer = Peer::Tcp(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 1));
    const PANICS: Peer = Peer::Tcp(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 2));

    fn connection(peer: Peer) -> Admitted {
        let (ours, _) = UnixStream::pair().unwrap();
        ConnectionTable::new().admit(Connection::new(ours, peer)).unwrap()
    }

    /// Every call of `serve` waits until all others have started, so each connection must have its own thread.
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
            (0..TOGETHER).for_each(|_| workers.hand(connection(CALM)).unwrap());
            for _ in 0..TOGETHER {
                answers.recv_timeout(Duration::from_secs(20)).unwrap();
            }
        }
    }

    #[test]
    fn a_thread_serves_one_after_the_other_and_another_takes_over_when_it_panics() {
        let (done, threads) = mpsc::channel();
        let done = Mutex::new(done);
        let workers = Workers::new(move |connection| {
            let panics = connection.connection().peer() == PANICS;
            unpoisoned(done.lock()).send(thread::current().id()).unwrap();
            assert!(!panics, "as it should");
        });
        let idle = || {
            while unpoisoned(workers.queue.lock()).idle == 0 {
                thread::yield_now()
            }
        };
        let mut seen = HashSet::new();
        for _ in 0..10 {
            workers.hand(connection(CALM)).unwrap();
            seen.insert(threads.recv().unwrap());
            idle();
        }
        assert_eq!(seen.len(), 1);
        workers.hand(connection(PANICS)).unwrap();
        assert!(seen.contains(&threads.recv().unwrap()));
        workers.hand(connection(CALM)).unwrap();
        threads.recv_timeout(Duration::from_secs(20)).unwrap();
    }
}
