//! HTTP as a protocol of the server: what the accept loop asks of the service.

use std::time::Instant;

use keystore::{INSIDE_MAX, LOOKS_MAX};

use super::exchange;
use super::service::Service;
use super::stream::STREAMS_MAX;
use crate::server::{Admitted, CONNECTIONS_MAX, Connection, Protocol};

// A connection is not cut off while its request is answered. The requests that take long leave some free.
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

    /// A count that takes longer than the idle time would never end otherwise.
    fn is_busy(&self) -> bool {
        self.key_counts.is_counting()
    }

    /// From now on, long answers are not waited for much longer.
    fn stop(&self) {
        let _ = self.stopping.set(Instant::now()); // the first time counts
        self.delayed_refusals.close();
        let left_out = self.flood.left_out();
        if left_out > 0 {
            log::warn!("{left_out} more requests that were not let in are not in this log");
        }
    }
}
