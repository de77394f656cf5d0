//! The table of open connections. Its size is bounded. When it is full, the connection that has been sending
//! its request for the longest is cut off, so that slow senders cannot keep others out.

use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use gpg::locks::unpoisoned;
use nix::sys::socket::Shutdown;

use super::connection::Connection;

/// The maximum number of connections that are served at once.
pub const CONNECTIONS_MAX: usize = 256;

/// The maximum number of connections that have been cut off but whose threads have not yet ended.
const LEAVING_MAX: usize = 24;

/// How long [`ConnectionTable::admit`] waits for such a thread to end.
const PAUSE: Duration = Duration::from_millis(200);

/// The open connections.
#[derive(Debug)]
pub struct ConnectionTable {
    entries: Mutex<Entries>,
    left: Condvar,
}

#[derive(Debug)]
struct Entries {
    /// Connections by their number, hence the oldest first.
    open: BTreeMap<u64, (Arc<Connection>, Phase)>,
    next: u64,
    last_end: Instant,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// The request is incomplete, or has already been answered. The connection may be cut off.
    Receiving,
    /// The request is being processed and will be answered.
    Answering,
    /// The connection has been cut off, and its thread is about to end.
    Leaving,
}

/// A connection that has a place in the table. Dropping it frees the place.
#[derive(Debug)]
pub struct Admitted {
    table: Arc<ConnectionTable>,
    number: u64,
    connection: Arc<Connection>,
}

impl ConnectionTable {
    /// Creates an empty table.
    pub fn new() -> Arc<Self> {
        let entries = Entries { open: BTreeMap::new(), next: 0, last_end: Instant::now() };
        Arc::new(Self { entries: Mutex::new(entries), left: Condvar::new() })
    }

    /// Gives `connection` a place in the table. If the table is full, cuts off the oldest connection that is
    /// still receiving. Returns `connection` as the error if there is no such connection, or if the threads of
    /// those that were cut off take too long to end.
    pub fn admit(self: &Arc<Self>, connection: Connection) -> Result<Admitted, Connection> {
        let mut entries = self.lock();
        if entries.served() >= CONNECTIONS_MAX && !entries.cut_off_oldest() {
            return Err(connection);
        }
        let is_full = |entries: &mut Entries| entries.open.len() >= CONNECTIONS_MAX + LEAVING_MAX;
        let waited = self.left.wait_timeout_while(entries, PAUSE, is_full);
        let (mut entries, pause) = unpoisoned(waited);
        if pause.timed_out() {
            return Err(connection);
        }
        let number = entries.next;
        entries.next += 1;
        let connection = Arc::new(connection);
        entries.open.insert(number, (Arc::clone(&connection), Phase::Receiving));
        Ok(Admitted { table: Arc::clone(self), number, connection })
    }

    /// Cuts off the oldest connection that is still receiving, to win back its file descriptor. Returns whether
    /// there was one.
    pub fn cut_off_oldest(&self) -> bool {
        self.lock().cut_off_oldest()
    }

    /// Returns the number of connections that have not ended.
    pub fn count(&self) -> usize {
        self.lock().open.len()
    }

    /// Returns when the last connection ended (at first, when the table was created), or `None` while one is
    /// open.
    pub fn idle_since(&self) -> Option<Instant> {
        let entries = self.lock();
        entries.open.is_empty().then_some(entries.last_end)
    }

    fn lock(&self) -> MutexGuard<'_, Entries> {
        unpoisoned(self.entries.lock())
    }
}

impl Entries {
    fn served(&self) -> usize {
        self.open.values().filter(|(_, phase)| *phase != Phase::Leaving).count()
    }

    fn cut_off_oldest(&mut self) -> bool {
        let oldest = self.open.values_mut().find(|(_, phase)| *phase == Phase::Receiving);
        oldest.is_some_and(|(connection, phase)| {
            *phase = Phase::Leaving;
            // The thread can still read what has arrived, and answer it with a refusal.
            connection.shut_down(Shutdown::Read);
            true
        })
    }
}

impl Admitted {
    /// Returns the connection.
    pub fn connection(&self) -> &Arc<Connection> {
        &self.connection
    }

    /// Marks the request as complete, so that the connection is no longer cut off. Returns `false` if it has
    /// been cut off already; the caller may then still send a refusal, but must not block.
    pub fn answering(&self) -> bool {
        match self.table.lock().open.get_mut(&self.number) {
            Some((_, phase)) if *phase == Phase::Receiving => {
                *phase = Phase::Answering;
                true
            }
            _ => false,
        }
    }

    /// Marks the request as answered. From now on the connection may be cut off again.
    pub fn answered(&self) {
        if let Some((_, phase)) = self.table.lock().open.get_mut(&self.number) {
            *phase = Phase::Receiving;
        }
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        let mut entries = self.table.lock();
        entries.open.remove(&self.number);
        entries.last_end = Instant::now();
        self.table.left.notify_all();
    }
}
