//! Files that survive a crash, and the lock of a home.

pub(crate) mod durable;
pub(crate) mod lock;
