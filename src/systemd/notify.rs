//! Tells systemd how the service is (sd_notify(3)): ready, alive, busy with what, stopping.

use std::time::{Duration, Instant};

use sd_notify::NotifyState;

/// The connection to the service manager. Off systemd it says nothing.
#[derive(Debug)]
pub struct Notifier {
    /// How often to tell the watchdog that we are alive; `MAX` when there is none.
    interval: Duration,
    last_alive: Option<Instant>,
    last_status: String,
}

impl Notifier {
    /// Reads the socket of the service manager and its watchdog from the environment.
    pub fn from_env() -> Self {
        Self {
            interval: sd_notify::watchdog_enabled().map_or(Duration::MAX, |limit| limit / 4),
            last_alive: None,
            last_status: String::new(),
        }
    }

    /// The service answers requests from now on.
    pub fn ready(&self) {
        send(&[NotifyState::Ready]);
    }

    /// The loop that calls this is alive, and the service is as `status` says.
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

    /// How often [`Notifier::alive`] must be called.
    pub fn interval(&self) -> Duration {
        self.interval
    }

    /// The service stops; requests wait for the next start.
    pub fn stopping(&self) {
        send(&[NotifyState::Stopping]);
    }
}

fn send(state: &[NotifyState]) {
    if let Err(e) = sd_notify::notify(state) {
        log::warn!("telling systemd {state:?}: {e}");
    }
}
