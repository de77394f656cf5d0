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

    /// The clock contradicts a key, or cannot be right whatever the keys say. Nothing is decided by it.
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
        "there is nothing at this path; this service answers POST /gen_key, and GET /ping, /ready, /keys, \
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

    /// There is no room for what was to be written.
    #[error("{shortage}: {doing}; {}", .shortage.remedy(.place))]
    NoSpace {
        /// What was being done, to which file or stream.
        doing: String,
        /// Where there is no room.
        place: Place,
        /// Of what there is too little.
        shortage: Shortage,
    },

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

    /// The state directory holds the keyring of another service. Nothing is made beside it: whatever wrote
    /// there would overwrite it.
    #[error(
        "{path} holds the keys of another service, such as the old copr-keygen, so nothing was changed; \
         take its keys over with: {remedy}"
    )]
    OldKeyring {
        /// The keyring.
        path: PathBuf,
        /// The command that takes the keys over.
        remedy: String,
    },

    /// Something that is not ours stands where a link or a file of ours has to be. It may be the only copy
    /// of a key or of a passphrase, so it is never replaced.
    #[error(
        "{path} is {what}; it may be somebody's only copy, so it was left alone and nothing was changed; \
         keep it elsewhere, then try again: {remedy}"
    )]
    Occupied {
        /// Where it is.
        path: PathBuf,
        /// What it is.
        what: &'static str,
        /// The command that moves it away.
        remedy: String,
    },

    /// A system call failed.
    #[error("{doing}: {source}{}", remedy(.source))]
    Io {
        /// What was being done, to which path.
        doing: String,
        /// The system's reason.
        source: io::Error,
    },
}

/// Where there is no room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// On the file system of the state directory, where gpg works and keys are kept.
    State,
    /// Where the file or stream is that the sentence names.
    Named,
}

/// Of what there is too little.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shortage {
    /// The file system is full, or out of inodes (`ENOSPC`).
    Space,
    /// The user's share of it is used up (`EDQUOT`).
    Quota,
}

impl std::fmt::Display for Shortage {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str(match self {
            Self::Space => "no space left",
            Self::Quota => "no space left within the quota of this user",
        })
    }
}

impl Shortage {
    fn remedy(self, place: &Place) -> &'static str {
        match (self, place) {
            (Self::Space, Place::State) => {
                "make room on the file system of the state directory, nothing was changed"
            }
            (Self::Space, Place::Named) => "make room there, then try again",
            (Self::Quota, _) => "raise the quota or make room within it, then try again",
        }
    }
}

/// What to do about a file that may not be written, whoever asks; nothing for any other failure.
fn remedy(source: &io::Error) -> &'static str {
    match source.raw_os_error() {
        Some(libc::EROFS) => {
            "; mount it for writing, or name its directory in ReadWritePaths= if a unit of systemd does \
             this"
        }
        Some(libc::EFBIG) => {
            "; raise the limit on the size of files (ulimit -f, LimitFSIZE= of a unit), or write to a \
             file system that takes larger ones"
        }
        _ => "",
    }
}

impl Error {
    /// Wraps a system error, telling apart the two conditions that a client may wait out: no
    /// space, and no descriptors, processes or memory. `doing` must name the file or stream, which
    /// need not be one of the state.
    pub fn io(doing: impl Into<String>, source: io::Error) -> Self {
        let doing = doing.into();
        let no_space = |doing, shortage| Self::NoSpace { doing, place: Place::Named, shortage };
        match source.raw_os_error() {
            Some(libc::ENOSPC) => no_space(doing, Shortage::Space),
            Some(libc::EDQUOT) => no_space(doing, Shortage::Quota),
            Some(libc::EMFILE | libc::ENFILE | libc::EAGAIN | libc::ENOMEM) => {
                Self::Busy(format!("{doing}: {source}"))
            }
            _ => Self::Io { doing, source },
        }
    }

    /// The file system of the state directory is full: `doing` is what that kept from being done.
    pub fn state_full(doing: impl Into<String>) -> Self {
        Self::NoSpace { doing: doing.into(), place: Place::State, shortage: Shortage::Space }
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
            Self::Busy(_)
            | Self::NoSpace { .. }
            | Self::InUse(_)
            | Self::Clock(_)
            | Self::OldKeyring { .. } => 503,
            Self::Settings(_)
            | Self::Arguments(_)
            | Self::Usage(_)
            | Self::Refused(_)
            | Self::Partly(_)
            | Self::Interrupted { .. }
            | Self::GpgMissing { .. }
            | Self::GpgTimedOut { .. }
            | Self::GpgFailed { .. }
            | Self::DamagedHome { .. }
            | Self::Occupied { .. }
            | Self::Io { .. } => 500,
        }
    }

    /// The one line an HTTP client reads. What concerns the inside of the sign host stays in its
    /// log, where `request_id` finds it.
    pub fn client_text(&self, request_id: &str) -> String {
        match self.http_status() {
            500 => format!("the sign host failed; its log has the reason under {request_id}"),
            503 if matches!(self, Self::NoSpace { .. }) => {
                "the sign host has no space left for another key; try again later".into()
            }
            503 if matches!(self, Self::OldKeyring { .. }) => {
                "the sign host holds keys of another service that have not been taken over, so it makes \
                 none; its administrator must run copr-keygen import"
                    .into()
            }
            503 if matches!(self, Self::Clock(_)) => {
                "the clock of the sign host is wrong, its log has more; try again later".into()
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
            Self::Settings(_) | Self::OldKeyring { .. } => 78,
            Self::Arguments(_) | Self::Usage(_) => 2,
            _ => 1,
        }
    }

    /// How loudly the log says it: a client's mistake is news, not a fault of the host.
    pub fn priority(&self) -> log::Level {
        match self.http_status() {
            500 => log::Level::Error,
            503 if matches!(self, Self::Clock(_) | Self::OldKeyring { .. }) => log::Level::Error,
            503 => log::Level::Warn,
            _ => log::Level::Info,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_written_is_named_with_a_remedy_of_its_own() {
        let text = |code| {
            let error = Error::io("writing /x", io::Error::from_raw_os_error(code));
            (error.http_status(), error.to_string())
        };
        let full = "no space left: writing /x; make room there, then try again";
        assert_eq!(text(libc::ENOSPC), (503, full.into()));
        for (code, status, words) in [
            (libc::EDQUOT, 503, "the quota of this user: writing /x; raise the quota"),
            (libc::EROFS, 500, "writing /x: Read-only file system (os error 30); mount it"),
            (libc::EFBIG, 500, "writing /x: File too large (os error 27); raise the limit"),
        ] {
            let (http, said) = text(code);
            assert!(http == status && said.contains(words), "{http} {said}");
            assert!(!said.contains("state directory"), "{said}");
        }
        assert_eq!(text(libc::EACCES).1, "writing /x: Permission denied (os error 13)");
        assert!(Error::state_full("making a key").to_string().contains("of the state directory"));
    }
}
