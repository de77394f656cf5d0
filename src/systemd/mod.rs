//! What systemd gives this process and wants to hear from it. Everything here also works, as far
//! as it makes sense, without systemd.

pub mod credentials;
pub mod journal;
pub mod notify;
pub(crate) mod passed;
pub mod signals;
pub mod sockets;
pub(crate) mod systemctl;
