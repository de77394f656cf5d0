//! The interfaces to systemd: what it passes to this process, and what it wants to hear. All of them also work
//! without systemd, as far as that makes sense.

pub mod credentials;
pub mod journal;
pub mod notify;
pub(crate) mod passed;
pub mod signals;
pub mod sockets;
pub(crate) mod systemctl;
