//! The real binary, on real sockets, with the real gpg.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod certificate;
mod check;
mod check_links;
mod crash;
mod faults;
mod gen_key;
mod host;
mod http;
mod keys_http;
mod keys_stream;
mod lifecycle;
mod load;
mod metrics_http;
mod moving;
mod pool;
mod prolong;
mod signing;
mod starting;
mod state;
mod years;
