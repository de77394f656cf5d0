//! The sockets that systemd passes (sd_listen_fds(3)).

use listenfd::ListenFd;

use crate::error::{Error, Result};
use crate::http::Listener;

/// The passed sockets, TCP or Unix, in the order of the socket unit; empty when there are none.
/// Must be called before any thread is started, because it cleans the environment.
pub fn passed() -> Result<Vec<Listener>> {
    let mut fds = ListenFd::from_env();
    let mut listeners = Vec::with_capacity(fds.len());
    for index in 0..fds.len() {
        let failed = |e| Error::io(format!("taking socket {index} from systemd"), e);
        let listener = match fds.take_unix_listener(index) {
            Ok(Some(listener)) => Listener::unix(listener).map_err(failed)?,
            _ => match fds.take_tcp_listener(index).map_err(failed)? {
                Some(listener) => Listener::tcp(listener).map_err(failed)?,
                None => continue,
            },
        };
        listeners.push(listener);
    }
    Ok(listeners)
}
