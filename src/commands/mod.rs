//! One file per mode; each reads like a table of contents.

pub mod serve;
