//! The real binary, on real sockets, with the real gpg.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod auth;
mod auth_start;
mod backup;
mod certificate;
mod check;
mod check_host;
mod check_links;
mod check_system;
mod crash;
mod durable;
mod faults;
mod gen_key;
mod hook;
mod host;
mod hostile_archives;
mod http;
mod interrupted;
mod keys_http;
mod keys_stream;
mod lifecycle;
mod load;
mod metrics_http;
mod moving;
mod old_host;
mod openapi;
mod pool;
mod prolong;
mod removing;
mod restoring;
mod safekeeping;
mod sealing;
mod sealing_astray;
mod sealing_crash;
mod sealing_refused;
mod sealing_safekeeping;
mod shim;
mod signing;
mod starting;
mod state;
mod stuck;
mod tars;
mod user_ids;
mod wrong_tokens;
mod years;
