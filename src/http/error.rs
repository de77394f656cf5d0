//! The errors with which a request can fail, and what each means to the HTTP client and in the log.

use std::time::Duration;

/// The result of the fallible functions of this module.
pub type Result<T> = std::result::Result<T, Error>;

/// An error. `Display` is the sentence for the log; [`Error::client_text`] is the one for the HTTP client.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The key store failed.
    #[error(transparent)]
    Keys(#[from] keystore::Error),

    /// The request is not valid HTTP, or not valid for this service.
    #[error("{0}")]
    Malformed(String),

    /// The request needs a token and has no valid one. The text does not say what is wrong with it.
    #[error(
        "this needs a token, as Authorization: Bearer TOKEN or as the password of HTTP Basic \
         authentication"
    )]
    Unauthorized,

    /// The client is known, but may not do this.
    #[error("{0}")]
    Forbidden(String),

    /// There is no such resource.
    #[error(
        "there is nothing at this path; this service answers POST /gen_key, and GET /ping, /ready, /keys, \
         /keys/NAME_EMAIL, /keys/NAME_EMAIL/pubkey and /metrics"
    )]
    NotFound,

    /// The resource exists, but does not support the method.
    #[error("this path answers {allow} only")]
    MethodNotAllowed {
        /// The value of the `Allow` header.
        allow: &'static str,
    },

    /// The client took too long to send its request.
    #[error("the request did not arrive within {} s", .0.as_secs())]
    RequestTimeout(Duration),

    /// The announced length of the body exceeds the limit.
    #[error("the body may be at most {0} bytes")]
    BodyTooLarge(usize),

    /// The request line and headers exceed a limit.
    #[error("request line and headers may be at most {bytes} bytes and {headers} headers")]
    HeadTooLarge {
        /// The limit in bytes.
        bytes: usize,
        /// The limit in header lines.
        headers: usize,
    },
}

impl From<gpg::Error> for Error {
    fn from(error: gpg::Error) -> Self {
        Self::Keys(error.into())
    }
}

impl Error {
    /// Wraps a system error; see [`gpg::Error::io`].
    pub fn io(doing: impl Into<String>, source: std::io::Error) -> Self {
        gpg::Error::io(doing, source).into()
    }

    /// Creates the error for an overloaded service. The same request may succeed later.
    pub fn busy(why: impl Into<String>) -> Self {
        gpg::Error::Busy(why.into()).into()
    }

    /// Creates the error for a field of a request that is missing or has an invalid value.
    pub fn field(field: &'static str, reason: impl Into<String>) -> Self {
        gpg::Error::Field { field, reason: reason.into() }.into()
    }

    /// Whether the service is overloaded.
    pub fn is_busy(&self) -> bool {
        matches!(self, Self::Keys(keystore::Error::Gpg(gpg::Error::Busy(_))))
    }

    /// Returns the HTTP status of the answer.
    pub fn http_status(&self) -> u16 {
        match self {
            Self::Malformed(_) => 400,
            Self::Unauthorized => 401,
            Self::Forbidden(_) => 403,
            Self::NotFound => 404,
            Self::MethodNotAllowed { .. } => 405,
            Self::RequestTimeout(_) => 408,
            Self::BodyTooLarge(_) => 413,
            Self::HeadTooLarge { .. } => 431,
            Self::Keys(error) => status_of(error),
        }
    }

    /// Returns the line that the HTTP client is sent. Details of the sign host are only in its log, where
    /// `request_id` finds them.
    pub fn client_text(&self, request_id: &str) -> String {
        match (self.http_status(), self) {
            (500, _) => format!("the sign host failed; its log has the reason under {request_id}"),
            (503, Self::Keys(error)) => unavailable(error).into(),
            _ => self.to_string(),
        }
    }

    /// Returns the priority of the error in the log. A client's mistake is not a fault of the host.
    pub fn priority(&self) -> log::Level {
        use keystore::Error::{Gpg, OldKeyring};
        match (self.http_status(), self) {
            (500, _) | (503, Self::Keys(Gpg(gpg::Error::Clock(_)) | OldKeyring { .. })) => {
                log::Level::Error
            }
            (503, _) => log::Level::Warn,
            _ => log::Level::Info,
        }
    }
}

/// Returns the HTTP status for an error of the key store.
fn status_of(error: &keystore::Error) -> u16 {
    use gpg::Error as Gpg;
    use keystore::Error as Keys;
    match error {
        Keys::Gpg(Gpg::Field { .. }) => 400,
        Keys::NoKey(_) => 404,
        Keys::Gpg(Gpg::Busy(_) | Gpg::NoSpace { .. } | Gpg::Clock(_))
        | Keys::InUse(_)
        | Keys::NoAgreement(_)
        | Keys::OldKeyring { .. } => 503,
        Keys::Gpg(
            Gpg::Missing { .. }
            | Gpg::TimedOut { .. }
            | Gpg::Failed { .. }
            | Gpg::DamagedHome { .. }
            | Gpg::Io { .. },
        )
        | Keys::Settings(_)
        | Keys::Arguments(_)
        | Keys::Usage(_)
        | Keys::Refused(_)
        | Keys::Partly(_)
        | Keys::Interrupted { .. }
        | Keys::Occupied { .. } => 500,
    }
}

/// Returns the text for a client that may try again later.
fn unavailable(error: &keystore::Error) -> &'static str {
    match error {
        keystore::Error::Gpg(gpg::Error::NoSpace { .. }) => {
            "the sign host has no space left for another key; try again later"
        }
        keystore::Error::OldKeyring { .. } => {
            "the sign host holds keys of another service that have not been taken over, so it makes \
             none; its administrator must run copr-keygen import"
        }
        keystore::Error::Gpg(gpg::Error::Clock(_)) => {
            "the clock of the sign host is wrong, its log has more; try again later"
        }
        keystore::Error::NoAgreement(_) => {
            "the sign hosts cannot agree on a new key now; try again in a few seconds"
        }
        _ => "the sign host is too busy; try again in a few seconds",
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[test]
    fn a_shortage_may_be_waited_out() {
        for (code, status) in
            [(libc::ENOSPC, 503), (libc::EDQUOT, 503), (libc::EROFS, 500), (libc::EFBIG, 500)]
        {
            let error = Error::io("writing /x", io::Error::from_raw_os_error(code));
            assert_eq!(error.http_status(), status);
        }
    }
}
