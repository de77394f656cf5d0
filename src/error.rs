//! Every way this program can fail, and what each failure means to the HTTP client, the exit
//! status and the log. No variant ever carries a secret.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use crate::identity::NameEmail;

/// The result of everything here that can fail.
pub type Result<T> = std::result::Result<T, Error>;

/// What went wrong. `Display` is the sentence for the operator, in the log or on the terminal;
/// [`Error::client_text`] is the one for an HTTP client.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A setting is wrong, wherever it was set.
    #[error("{0}")]
    Settings(String),

    /// A gpg command line that is not run.
    #[error("not run: {0}")]
    Arguments(String),

    /// The command line asks for something that cannot be.
    #[error("{0}")]
    Usage(String),

    /// There is no key of this identity.
    #[error("there is no key of {0}")]
    NoKey(NameEmail),

    /// The key is in the hands of another process of ours.
    #[error("the key of {0} is being worked on by another process; try again when that is done")]
    InUse(NameEmail),

    /// The clock is so wrong that nothing may be decided by it.
    #[error("{0}")]
    Clock(String),

    /// What was given to us, or lies there, is not what it must be. Nothing was changed.
    #[error("{0}")]
    Refused(String),

    /// SIGINT or SIGTERM told a mode to stop before it was done.
    #[error("interrupted by {signal}: {left}")]
    Interrupted {
        /// Which one.
        signal: nix::sys::signal::Signal,
        /// What is left undone, and how to go on.
        left: String,
    },

    /// Some of many things failed; each has been reported by itself.
    #[error("{0}")]
    Partly(String),

    /// A field of a request is missing or holds what it may not hold.
    #[error("{field}: {reason}")]
    Field {
        /// The field's name in the JSON object.
        field: &'static str,
        /// What is wrong with it, and what it may hold.
        reason: String,
    },

    /// The request is not what HTTP or this service understands.
    #[error("{0}")]
    Malformed(String),

    /// The request needs a token and has no right one. What is wrong with it is not said.
    #[error(
        "this needs a token, as Authorization: Bearer TOKEN or as the password of HTTP Basic \
         authentication"
    )]
    Unauthorized,

    /// Who asks is known, and may not ask for this.
    #[error("{0}")]
    Forbidden(String),

    /// There is no such resource.
    #[error(
        "there is nothing at this path; this service answers POST /gen_key, and GET /ping, /keys, \
         /keys/NAME_EMAIL, /keys/NAME_EMAIL/pubkey and /metrics"
    )]
    NotFound,

    /// The resource exists, the method does not fit.
    #[error("this path answers {allow} only")]
    MethodNotAllowed {
        /// The value of the `Allow` header.
        allow: &'static str,
    },

    /// The client took too long to send its request.
    #[error("the request did not arrive within {} s", .0.as_secs())]
    RequestTimeout(Duration),

    /// The announced body is over the limit.
    #[error("the body may be at most {0} bytes")]
    BodyTooLarge(usize),

    /// Request line and headers are over the limit.
    #[error("request line and headers may be at most {bytes} bytes and {headers} headers")]
    HeadTooLarge {
        /// The limit in bytes.
        bytes: usize,
        /// The limit in header lines.
        headers: usize,
    },

    /// Too much is going on; the same request may succeed later.
    #[error("too busy: {0}")]
    Busy(String),

    /// The file system has no room for another key.
    #[error(
        "no space left: {0}; make room on the file system of the state directory, nothing was changed"
    )]
    NoSpace(String),

    /// gpg or gpg-agent could not be started.
    #[error(
        "{program} could not be started: {source}; install GnuPG or correct the setting `{setting}`"
    )]
    GpgMissing {
        /// The program as configured.
        program: PathBuf,
        /// The setting that names it.
        setting: &'static str,
        /// Why it did not start.
        source: io::Error,
    },

    /// gpg did not finish in time and was killed.
    #[error("gpg was killed after {:.1} s without finishing: {words}", .after.as_secs_f32())]
    GpgTimedOut {
        /// How long it had run.
        after: Duration,
        /// What it had said on stderr until then.
        words: String,
    },

    /// gpg ended without doing what it was asked to do.
    #[error("gpg failed ({how}): {words}")]
    GpgFailed {
        /// Exit status, or what was missing from its answer.
        how: String,
        /// gpg's own words on stderr.
        words: String,
    },

    /// A published home is not complete. It is never replaced: it may hold the only key.
    #[error("the home of this key is damaged: {path}: {reason}; restore it from a backup")]
    DamagedHome {
        /// The file or directory that is not as it must be.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },

    /// A system call failed.
    #[error("{doing}: {source}")]
    Io {
        /// What was being done, to which path.
        doing: String,
        /// The system's reason.
        source: io::Error,
    },
}

impl Error {
    /// Wraps a system error, telling apart the two conditions that a client may wait out: no
    /// space, and no descriptors, processes or memory.
    pub fn io(doing: impl Into<String>, source: io::Error) -> Self {
        let doing = doing.into();
        match source.raw_os_error() {
            Some(libc::ENOSPC | libc::EDQUOT) => Self::NoSpace(doing),
            Some(libc::EMFILE | libc::ENFILE | libc::EAGAIN | libc::ENOMEM) => {
                Self::Busy(format!("{doing}: {source}"))
            }
            _ => Self::Io { doing, source },
        }
    }

    /// The HTTP status this failure is answered with.
    pub fn http_status(&self) -> u16 {
        match self {
            Self::Field { .. } | Self::Malformed(_) => 400,
            Self::Unauthorized => 401,
            Self::Forbidden(_) => 403,
            Self::NotFound | Self::NoKey(_) => 404,
            Self::MethodNotAllowed { .. } => 405,
            Self::RequestTimeout(_) => 408,
            Self::BodyTooLarge(_) => 413,
            Self::HeadTooLarge { .. } => 431,
            Self::Busy(_) | Self::NoSpace(_) | Self::InUse(_) => 503,
            Self::Settings(_)
            | Self::Arguments(_)
            | Self::Usage(_)
            | Self::Clock(_)
            | Self::Refused(_)
            | Self::Partly(_)
            | Self::Interrupted { .. }
            | Self::GpgMissing { .. }
            | Self::GpgTimedOut { .. }
            | Self::GpgFailed { .. }
            | Self::DamagedHome { .. }
            | Self::Io { .. } => 500,
        }
    }

    /// The one line an HTTP client reads. What concerns the inside of the sign host stays in its
    /// log, where `request_id` finds it.
    pub fn client_text(&self, request_id: &str) -> String {
        match self.http_status() {
            500 => format!("the sign host failed; its log has the reason under {request_id}"),
            503 if matches!(self, Self::NoSpace(_)) => {
                "the sign host has no space left for another key; try again later".into()
            }
            503 => "the sign host is too busy; try again in a few seconds".into(),
            _ => self.to_string(),
        }
    }

    /// The exit status of a mode that ends with this failure (`sysexits.h` for configuration, the one of
    /// shells for signals).
    pub fn exit_status(&self) -> u8 {
        match self {
            Self::Interrupted { signal, .. } => 128 + u8::try_from(*signal as i32).unwrap_or(0),
            Self::Settings(_) => 78,
            Self::Arguments(_) | Self::Usage(_) => 2,
            _ => 1,
        }
    }

    /// How loudly the log says it: a client's mistake is news, not a fault of the host.
    pub fn priority(&self) -> log::Level {
        match self.http_status() {
            500 => log::Level::Error,
            503 => log::Level::Warn,
            _ => log::Level::Info,
        }
    }
}
