//! The log. Records go to the journal, with priorities and fields, if systemd has connected stderr to it.
//! Otherwise each is one readable line on stderr.

use std::fmt::Display;
use std::io::Write;
use std::os::fd::AsFd;
use std::sync::Mutex;
use std::time::UNIX_EPOCH;

use gpg::clock;
use gpg::locks::unpoisoned;
use gpg::text::{number, printable};
use log::{LevelFilter, Log, Metadata, Record};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use systemd_journal_logger::{JournalLog, connected_to_journal};

/// How long a service waits for a full stderr before it loses lines, in milliseconds.
const FULL_MAX: u16 = 1000;

/// The format of lines on stderr.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// Lines begin with the time, for a log.
    Service,
    /// Lines have no time, for a person who waits for the command to end.
    Terminal,
}

/// Starts logging. Only the first call has an effect.
pub fn init(level: LevelFilter, style: Style) {
    let installed = match connected_to_journal().then(JournalLog::new) {
        Some(Ok(journal)) => journal.with_syslog_identifier("copr-keygen".into()).install().is_ok(),
        _ => log::set_boxed_logger(Box::new(Stderr(style))).is_ok(),
    };
    if installed {
        log::set_max_level(level);
    }
}

/// Logs the error that ends the process.
///
/// If stderr is connected to the journal, the line is written there, not sent as a record. The journal
/// attributes a record to a unit by looking up its sender. If that process is gone by then, `journalctl --unit`
/// does not show the record (systemd issue 2913). systemd has bound stderr to the unit beforehand.
pub fn last_words(error: &dyn Display) {
    if connected_to_journal() {
        // The prefix gives the priority "err", as in sd-daemon(3).
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
            // A clock before 1970 is shown as 1970: `timestamp` takes no earlier time.
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
            // Wait without a limit: a person may have paused the terminal to read it.
            Style::Terminal => write(&line),
        }
    }

    fn flush(&self) {}
}

/// Writes a line to stderr, in one write so that lines of several processes do not mix. Ignores errors: a
/// closed stderr leaves nowhere to report them.
fn write(line: &str) {
    let _ = std::io::stderr().write_all(line.as_bytes());
}

/// Writes a line as [`write()`] does, but drops it if stderr is a pipe that stays full for a second. Nobody reads
/// such a pipe, and the service must go on without its log. The next line that can be written says how many
/// were lost.
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
        lost => {
            let lost = number(lost, "line of this log was", "lines of this log were");
            write(&format!("{lost} lost, as nobody read it\n{line}"));
        }
    }
}

/// Log messages with their own journal fields. The message catalog (`units/*.catalog`) explains them.
pub mod event {
    use log::{Level, Record};

    /// A request was answered; this is the line of the access log.
    pub const REQUEST: &str = "b7a0c2a1d6a34b0c8e2b7a9e3f1d5c60";
    /// A key was made; this is the line of the access log for it.
    pub const KEY_MADE: &str = "3f5d9b0e7c1a4e52a86d0f4b92c7e813";
    /// A request failed because of a fault on our side.
    pub const REQUEST_FAILED: &str = "9c4e6a2f8b0d4d71b5e3c8a7160f2d94";

    /// The signer answered a request, with or without a signature.
    pub const SIGNED: &str = "c4a1e7d25f0b4b6b8a3d9e12f7056c8b";

    /// `prolong` has finished; the message has its counts.
    pub const PROLONGED: &str = "5b1d7c93a40e4f6f9d2c8e60b7f3a125";
    /// A key could not be prolonged.
    pub const PROLONG_FAILED: &str = "e2f84d0c6b7a49318c5f1a9d3e07b6c4";

    /// Logs `message` with the given journal fields. Leaves out empty fields.
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
