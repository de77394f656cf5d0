//! The real binary, on real sockets, with the real gpg.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod backup;
mod certificate;
mod crash;
mod faults;
mod gen_key;
mod host;
mod hostile_archives;
mod http;
mod lifecycle;
mod load;
mod removing;
mod restoring;
mod safekeeping;
mod signing;
mod starting;
mod state;
mod tars;
