//! Implements HTTP as a protocol for the accept loop.

use std::time::Instant;

use keystore::{INSIDE_MAX, LOOKS_MAX};

use super::exchange;
use super::service::Service;
use super::stream::STREAMS_MAX;
use crate::server::{Admitted, CONNECTIONS_MAX, Connection, Protocol};

// A connection is not cut off while its request is processed. Requests that take long must therefore never
// occupy all connections.
const _: () = assert!(INSIDE_MAX + LOOKS_MAX + STREAMS_MAX < CONNECTIONS_MAX);

impl Protocol for Service {
    fn serve(&self, admitted: &Admitted) {
        exchange::serve(self, admitted);
    }

    fn turn_away(&self, connection: Connection) {
        exchange::turn_away(self, connection);
    }

    fn status_text(&self) -> String {
        let [made, others, refused, failed] = self.counters.summary();
        let (running, waiting) = self.store.load();
        format!(
            "keys made: {made}, other answers: {others}, refused: {refused}, failed: {failed}; \
             in the making: {running}, waiting: {waiting}"
        )
    }

    /// Whether the keys are being counted. If the process exited as idle, a count that takes longer than the
    /// idle timeout would never complete.
    fn is_busy(&self) -> bool {
        self.key_counts.is_counting()
    }

    /// Limits how much longer the streams in progress may take, and sends the delayed refusals.
    fn stop(&self) {
        let _ = self.stopping.set(Instant::now()); // only the first call counts
        self.delayed_refusals.close();
        let left_out = self.flood.left_out();
        if left_out > 0 {
            log::warn!("{left_out} more requests that were not let in are not in this log");
        }
    }
}
