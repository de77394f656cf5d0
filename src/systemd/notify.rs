//! Reports the state of the service to systemd (sd_notify(3)): ready, alive, its status text, stopping.

use std::time::{Duration, Instant};

use sd_notify::NotifyState;

/// The connection to the service manager. Without one it does nothing.
#[derive(Debug)]
pub struct Notifier {
    /// How often to notify the watchdog; `Duration::MAX` if there is none.
    interval: Duration,
    last_alive: Option<Instant>,
    last_status: String,
}

impl Notifier {
    /// Reads the notification socket and the watchdog timeout from the environment.
    pub fn from_env() -> Self {
        Self {
            interval: sd_notify::watchdog_enabled().map_or(Duration::MAX, |limit| limit / 4),
            last_alive: None,
            last_status: String::new(),
        }
    }

    /// Reports that the service is ready to answer requests.
    pub fn ready(&self) {
        send(&[NotifyState::Ready]);
    }

    /// Notifies the watchdog when it is due, and sends `status` if it has changed. The accept loop calls this
    /// each round, to show that it still runs.
    pub fn alive(&mut self, status: &str) {
        if self.interval != Duration::MAX
            && self.last_alive.is_none_or(|at| at.elapsed() >= self.interval)
        {
            self.last_alive = Some(Instant::now());
            send(&[NotifyState::Watchdog]);
        }
        if self.last_status != status {
            self.last_status = status.into();
            send(&[NotifyState::Status(status)]);
        }
    }

    /// Returns how often [`Notifier::alive`] must be called.
    pub fn interval(&self) -> Duration {
        self.interval
    }

    /// Reports that the service is stopping. New connections wait in the sockets for the next start.
    pub fn stopping(&self) {
        send(&[NotifyState::Stopping]);
    }
}

fn send(state: &[NotifyState]) {
    if let Err(e) = sd_notify::notify(state) {
        log::warn!("telling systemd {state:?}: {e}");
    }
}
