//! Many small reads at once. A key that nobody has asked for in a while costs a handful of reads of
//! the disk, one after the other; of many keys they can wait for together.

use std::sync::Mutex;
use std::{iter, thread};

use gpg::locks::unpoisoned;

/// Threads that read.
const THREADS: usize = 16;
/// Items that are handed out to them at a time.
const CHUNK: usize = 1024;
/// So many a thread takes at a time; of fewer, another thread would cost more than it saves.
const FEW: usize = 16;

/// What `read` makes of each item, in the order of the items. Works a chunk ahead of whoever takes the
/// results.
pub fn ahead<T: Send, R: Send>(
    mut items: impl Iterator<Item = T>,
    read: impl Fn(T) -> R + Sync,
) -> impl Iterator<Item = R> {
    iter::from_fn(move || {
        let chunk: Vec<T> = items.by_ref().take(CHUNK).collect();
        (!chunk.is_empty()).then(|| together(chunk, THREADS, FEW, &read))
    })
    .flatten()
}

/// What `work` makes of each item, in the order of the items, on so many threads: for work that takes a
/// processor or a gpg for each item.
pub fn each<T: Send, R: Send>(
    items: Vec<T>,
    threads: usize,
    work: impl Fn(T) -> R + Sync,
) -> Vec<R> {
    together(items, threads, 1, &work)
}

/// Does `read` with every item, on at most so many threads, each of which takes `few` items at a time.
fn together<T: Send, R: Send>(
    chunk: Vec<T>,
    threads: usize,
    few: usize,
    read: &(impl Fn(T) -> R + Sync),
) -> Vec<R> {
    let count = chunk.len();
    let waiting = Mutex::new(chunk.into_iter().enumerate());
    let done = Mutex::new(Vec::with_capacity(count));
    let work = || loop {
        let taken: Vec<(usize, T)> = unpoisoned(waiting.lock()).by_ref().take(few).collect();
        if taken.is_empty() {
            return;
        }
        let results: Vec<_> = taken.into_iter().map(|(place, item)| (place, read(item))).collect();
        unpoisoned(done.lock()).extend(results);
    };
    thread::scope(|scope| {
        for _ in 1..threads.min(count.div_ceil(few)) {
            // Where no thread is to be had, those there are do it all.
            if thread::Builder::new().spawn_scoped(scope, work).is_err() {
                break;
            }
        }
        work();
    });
    let mut done = unpoisoned(done.into_inner());
    done.sort_unstable_by_key(|(place, _)| *place);
    done.into_iter().map(|(_, result)| result).collect()
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
            let found: Vec<_> = ahead(0..count, slow).collect();
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
            ahead(0..count, wait).collect::<HashSet<_>>()
        };
        assert!(threads(CHUNK).len() > 4);
        assert_eq!(threads(FEW), HashSet::from([thread::current().id()]));
    }

    #[test]
    fn no_more_is_read_than_a_chunk_ahead() {
        let read = Mutex::new(0);
        let count = |_| *unpoisoned(read.lock()) += 1;
        assert!(ahead(0..10 * CHUNK, count).next().is_some());
        assert_eq!(*unpoisoned(read.lock()), CHUNK);
    }
}
