//! The connections that are open, bounded: when the table is full, the one that has been sending
//! its request for the longest is cut off, so that slow senders cannot keep others out.

use std::collections::BTreeMap;
use std::net::Shutdown;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::listener::Stream;

/// At most this many connections are served at once.
pub const CONNECTIONS_MAX: usize = 256;

/// Threads of cut-off connections that may still be on their way out.
const LEAVING_MAX: usize = 24;

/// How long accepting pauses for a thread to leave.
const PAUSE: Duration = Duration::from_millis(200);

/// All open connections.
#[derive(Debug)]
pub struct Connections {
    table: Mutex<Table>,
    left: Condvar,
}

#[derive(Debug)]
struct Table {
    /// By number, so oldest first.
    open: BTreeMap<u64, Entry>,
    next: u64,
    last_end: Instant,
}

#[derive(Debug)]
struct Entry {
    stream: Arc<Stream>,
    phase: Phase,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// The request is not complete: may be cut off.
    Receiving,
    /// The request is being worked on: will be answered.
    Answering,
    /// Cut off; its thread is about to end.
    Leaving,
}

/// The place of one connection in the table, given back when dropped.
#[derive(Debug)]
pub struct Place {
    connections: Arc<Connections>,
    number: u64,
    stream: Arc<Stream>,
}

impl Connections {
    /// An empty table.
    pub fn new() -> Arc<Self> {
        let table = Table { open: BTreeMap::new(), next: 0, last_end: Instant::now() };
        Arc::new(Self { table: Mutex::new(table), left: Condvar::new() })
    }

    /// Gives `stream` a place, cutting off the oldest one that is still receiving when there is
    /// none. `Err` gives the stream back: every place has a request that is being answered.
    pub fn admit(self: &Arc<Self>, stream: Stream) -> Result<Place, Stream> {
        let mut table = self.lock();
        if table.served() >= CONNECTIONS_MAX && !table.cut_off_oldest() {
            return Err(stream);
        }
        let deadline = Instant::now() + PAUSE;
        while table.open.len() >= CONNECTIONS_MAX + LEAVING_MAX {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(stream);
            }
            table = self.left.wait_timeout(table, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        let number = table.next;
        table.next += 1;
        let stream = Arc::new(stream);
        let entry = Entry { stream: Arc::clone(&stream), phase: Phase::Receiving };
        table.open.insert(number, entry);
        Ok(Place { connections: Arc::clone(self), number, stream })
    }

    /// Cuts off the oldest connection that is still receiving, to win back its descriptor.
    pub fn cut_off_oldest(&self) -> bool {
        self.lock().cut_off_oldest()
    }

    /// How many connections have not ended.
    pub fn count(&self) -> usize {
        self.lock().open.len()
    }

    /// Since when no connection is open; `None` while one is.
    pub fn idle_since(&self) -> Option<Instant> {
        let table = self.lock();
        table.open.is_empty().then_some(table.last_end)
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    fn served(&self) -> usize {
        self.open.values().filter(|entry| entry.phase != Phase::Leaving).count()
    }

    fn cut_off_oldest(&mut self) -> bool {
        let oldest = self.open.values_mut().find(|entry| entry.phase == Phase::Receiving);
        oldest.is_some_and(|entry| {
            entry.phase = Phase::Leaving;
            entry.stream.shut_down(Shutdown::Both);
            true
        })
    }
}

impl Place {
    /// The connection.
    pub fn stream(&self) -> &Arc<Stream> {
        &self.stream
    }

    /// The request is complete: from now on the connection is not cut off. `false` when it already
    /// was.
    pub fn answering(&self) -> bool {
        match self.connections.lock().open.get_mut(&self.number) {
            Some(entry) if entry.phase == Phase::Receiving => {
                entry.phase = Phase::Answering;
                true
            }
            _ => false,
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut table = self.connections.lock();
        table.open.remove(&self.number);
        table.last_end = Instant::now();
        self.connections.left.notify_all();
    }
}
