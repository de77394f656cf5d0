//! Works on many items in parallel, on threads that end with the work.
//!
//! Disk reads profit from this, too. A key that nobody has asked for in a while costs a handful of reads, one
//! after the other. The reads of many keys can wait together.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::{iter, thread};

use gpg::locks::unpoisoned;

/// The number of threads that read.
const READERS: usize = 16;
/// The number of items that are handed to the reading threads at a time.
const CHUNK: usize = 1024;
/// The number of items that a reading thread takes at a time. For fewer items, another thread would cost more
/// than it saves.
const FEW: usize = 16;

/// Applies `read` to each item. Yields the results in the order of the items, and works at most one chunk
/// ahead of the caller.
pub fn map_ahead<T: Send, R: Send>(
    mut items: impl Iterator<Item = T>,
    read: impl Fn(T) -> R + Sync,
) -> impl Iterator<Item = R> {
    iter::from_fn(move || {
        let chunk: Vec<T> = items.by_ref().take(CHUNK).collect();
        (!chunk.is_empty()).then(|| in_portions(chunk, READERS, FEW, &read))
    })
    .flatten()
}

/// Applies `work` to each item on at most `threads` threads. Returns the results in the order of the items.
/// It is for work that keeps a processor or a gpg busy for each item.
pub fn map<T: Send, R: Send>(
    items: Vec<T>,
    threads: usize,
    work: impl Fn(T) -> R + Sync,
) -> Vec<R> {
    in_portions(items, threads, 1, &work)
}

/// Applies `work` to each item on at most `threads` threads, each of which takes `few` items at a time.
/// Returns the results in the order of the items.
fn in_portions<T: Send, R: Send>(
    items: Vec<T>,
    threads: usize,
    few: usize,
    work: &(impl Fn(T) -> R + Sync),
) -> Vec<R> {
    let count = items.len();
    let waiting = Mutex::new(items.into_iter().enumerate());
    let done = Mutex::new(Vec::with_capacity(count));
    on_threads(threads.min(count.div_ceil(few)), || {
        loop {
            let taken: Vec<(usize, T)> = lock(&waiting).by_ref().take(few).collect();
            if taken.is_empty() {
                return;
            }
            let results: Vec<_> =
                taken.into_iter().map(|(place, item)| (place, work(item))).collect();
            lock(&done).extend(results);
        }
    });
    let mut done = into_inner(done);
    done.sort_unstable_by_key(|(place, _)| *place);
    done.into_iter().map(|(_, result)| result).collect()
}

/// Calls `work` on `count` threads at once, the calling thread among them. Returns when all calls
/// have returned.
pub fn on_threads(count: usize, work: impl Fn() + Sync) {
    thread::scope(|scope| {
        for _ in 1..count {
            // If the system refuses another thread, the existing threads do all the work.
            if thread::Builder::new().spawn_scoped(scope, &work).is_err() {
                break;
            }
        }
        work();
    });
}

/// A queue of items that several threads take one by one, until it is empty or one of them stops it.
#[derive(Debug)]
pub struct WorkQueue<'a, T> {
    items: &'a [T],
    next: AtomicUsize,
    stopped: AtomicBool,
}

impl<'a, T> WorkQueue<'a, T> {
    /// Makes a queue of `items`.
    pub fn new(items: &'a [T]) -> Self {
        Self { items, next: AtomicUsize::new(0), stopped: AtomicBool::new(false) }
    }

    /// Takes the next item. Returns `None` if no item is left, or if a thread has stopped the queue.
    pub fn take(&self) -> Option<&'a T> {
        if self.stopped.load(Ordering::Relaxed) {
            return None;
        }
        self.items.get(self.next.fetch_add(1, Ordering::Relaxed))
    }

    /// Stops the queue: from now on no thread gets another item.
    pub fn stop(&self) {
        self.stopped.store(true, Ordering::Relaxed);
    }
}

/// Locks a mutex, even if a thread panicked while it held the lock. The data must be of a kind that is never
/// left half-changed.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    unpoisoned(mutex.lock())
}

/// Returns the data of a mutex, even if a thread panicked while it held the lock.
pub fn into_inner<T>(mutex: Mutex<T>) -> T {
    unpoisoned(mutex.into_inner())
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::time::Duration;

    use super::*;

    #[test]
    fn results_come_in_order_whatever_each_takes() {
        for count in [0, 1, FEW, FEW + 1, CHUNK, 3 * CHUNK + 7] {
            let slow = |item: usize| {
                if item % 100 == 0 {
                    thread::sleep(Duration::from_millis(2));
                }
                item * 2
            };
            let found: Vec<_> = map_ahead(0..count, slow).collect();
            assert_eq!(found, (0..count).map(|item| item * 2).collect::<Vec<_>>());
        }
    }

    #[test]
    fn many_wait_at_once_and_few_need_no_thread() {
        let threads = |count: usize| {
            let wait = |_| {
                thread::sleep(Duration::from_millis(1));
                thread::current().id()
            };
            map_ahead(0..count, wait).collect::<HashSet<_>>()
        };
        assert!(threads(CHUNK).len() > 4);
        assert_eq!(threads(FEW), HashSet::from([thread::current().id()]));
    }

    #[test]
    fn no_more_is_read_than_a_chunk_ahead() {
        let read = Mutex::new(0);
        let count = |_| *lock(&read) += 1;
        assert!(map_ahead(0..10 * CHUNK, count).next().is_some());
        assert_eq!(*lock(&read), CHUNK);
    }

    #[test]
    fn each_item_is_taken_once_and_none_after_a_stop() {
        let items: Vec<usize> = (0..1000).collect();
        let (queue, taken) = (WorkQueue::new(&items), Mutex::new(Vec::new()));
        on_threads(4, || {
            while let Some(item) = queue.take() {
                lock(&taken).push(*item);
            }
        });
        let mut all = into_inner(taken);
        all.sort_unstable();
        assert_eq!(all, items);

        let queue = WorkQueue::new(&items);
        assert_eq!(queue.take(), Some(&0));
        queue.stop();
        assert_eq!(queue.take(), None);
    }
}
