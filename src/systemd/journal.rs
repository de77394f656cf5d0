//! The log: the journal with real priorities and fields when systemd connects us to it, else one
//! readable line each on stderr.

use std::fmt::Display;
use std::io::Write;
use std::os::fd::AsFd;
use std::sync::Mutex;
use std::time::UNIX_EPOCH;

use gpg::clock;
use gpg::locks::unpoisoned;
use gpg::text::printable;
use log::{LevelFilter, Log, Metadata, Record};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use systemd_journal_logger::{JournalLog, connected_to_journal};

/// How long stderr may be full before a service loses lines, in milliseconds.
const FULL_MAX: u16 = 1000;

/// How lines look that go to stderr.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// With the time in front, for a log.
    Service,
    /// Without the time, for a person who waits for the command to end.
    Terminal,
}

/// Starts logging. Only the first call counts.
pub fn init(level: LevelFilter, style: Style) {
    let installed = match connected_to_journal().then(JournalLog::new) {
        Some(Ok(journal)) => journal.with_syslog_identifier("copr-keygen".into()).install().is_ok(),
        _ => log::set_boxed_logger(Box::new(Stderr(style))).is_ok(),
    };
    if installed {
        log::set_max_level(level);
    }
}

/// Logs the error that ends the process. To the journal it goes through stderr, which systemd has connected for the
/// unit: of a record that comes otherwise, the journal looks up the unit by the sender, and `journalctl --unit` does
/// not show it when the sender is gone by then (systemd issue 2913).
pub fn last_words(error: &dyn Display) {
    if connected_to_journal() {
        // The prefix is the priority "err" of sd-daemon(3).
        write(&format!("<3>{}\n", printable(&error.to_string())));
    } else {
        log::error!("{error}");
    }
}

struct Stderr(Style);

impl Log for Stderr {
    fn enabled(&self, _: &Metadata) -> bool {
        true
    }

    fn log(&self, record: &Record) {
        let level = record.level().as_str().to_lowercase();
        let front = match (self.0, record.level()) {
            // It cannot write times before 1970.
            (Style::Service, _) => {
                let now = UNIX_EPOCH.elapsed().unwrap_or_default().as_secs();
                format!("{} {level}: ", clock::timestamp(now))
            }
            (Style::Terminal, log::Level::Error | log::Level::Warn) => {
                format!("copr-keygen: {level}: ")
            }
            (Style::Terminal, _) => "copr-keygen: ".into(),
        };
        let line = format!("{front}{}\n", printable(&record.args().to_string()));
        match self.0 {
            Style::Service => write_or_lose(&line),
            // A person may have stopped the terminal, to read it.
            Style::Terminal => write(&line),
        }
    }

    fn flush(&self) {}
}

/// Writes a line to stderr: in one write, so that lines of several processes stay whole. A closed stderr cannot be
/// reported.
fn write(line: &str) {
    let _ = std::io::stderr().write_all(line.as_bytes());
}

/// As [`write`], but loses the line when stderr is a pipe that has been full for a second: nobody reads it, and the
/// service goes on without its log. The next line that can be written says how many are missing.
fn write_or_lose(line: &str) {
    static LOST: Mutex<usize> = Mutex::new(0);
    let mut lost = unpoisoned(LOST.lock());
    let limit = PollTimeout::from(if *lost == 0 { FULL_MAX } else { 0 });
    let stderr = std::io::stderr();
    if poll(&mut [PollFd::new(stderr.as_fd(), PollFlags::POLLOUT)], limit) == Ok(0) {
        *lost += 1;
        return;
    }
    match std::mem::take(&mut *lost) {
        0 => write(line),
        lost => write(&format!("{lost} lines of this log were lost, as nobody read it\n{line}")),
    }
}

/// Messages with fields of their own, explained in the message catalog (`units/*.catalog`).
pub mod event {
    use log::{Level, Record};

    /// A request was answered: the line of the access log.
    pub const REQUEST: &str = "b7a0c2a1d6a34b0c8e2b7a9e3f1d5c60";
    /// A key was made: the line of the access log for it.
    pub const KEY_MADE: &str = "3f5d9b0e7c1a4e52a86d0f4b92c7e813";
    /// A request failed on our side.
    pub const REQUEST_FAILED: &str = "9c4e6a2f8b0d4d71b5e3c8a7160f2d94";

    /// A request to sign was answered, in one way or the other.
    pub const SIGNED: &str = "c4a1e7d25f0b4b6b8a3d9e12f7056c8b";

    /// `prolong` has ended: its counts.
    pub const PROLONGED: &str = "5b1d7c93a40e4f6f9d2c8e60b7f3a125";
    /// A key could not be prolonged.
    pub const PROLONG_FAILED: &str = "e2f84d0c6b7a49318c5f1a9d3e07b6c4";

    /// Logs `message` with journal fields; empty ones are left out.
    pub fn log(level: Level, fields: &[(&str, &str)], message: &str) {
        let fields: Vec<_> =
            fields.iter().filter(|(_, value)| !value.is_empty()).copied().collect();
        if level > log::max_level() {
            return;
        }
        log::logger().log(
            &Record::builder()
                .level(level)
                .target("copr_keygen")
                .args(format_args!("{message}"))
                .key_values(&fields)
                .build(),
        );
    }
}
