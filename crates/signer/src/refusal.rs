//! The reasons why a client gets no signature. Each is one sentence, which the client prints.

use std::fmt;

use gpg::text::printable;
use keystore::Error;

/// Why a request is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The request is malformed; why.
    Malformed(String),
    /// No rule matches the client, so its request was not looked at.
    Stranger,
    /// The client may not use the key of this user. It learns nothing else, not even whether there is a key.
    Forbidden(String),
    /// This user has no key. The build backend waits for exactly these words before it has a key made.
    Unknown(String),
    /// The key may not sign this, or not now; why.
    Unfit(String),
    /// Too many requests are waiting.
    Busy,
    /// An error on this host that an operator has to look at.
    Failed(String),
}

impl Refusal {
    /// Returns the value of the label `result` in metrics, and of the field in the journal.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Malformed(_) => "malformed",
            Self::Stranger => "stranger",
            Self::Forbidden(_) => "forbidden",
            Self::Unknown(_) => "unknown",
            Self::Unfit(_) => "unfit",
            Self::Busy => "busy",
            Self::Failed(_) => "failed",
        }
    }

    /// A failure with the key of `user`.
    pub fn failed(user: impl fmt::Display, why: impl fmt::Display) -> Self {
        Self::Failed(format!("{user}: {why}"))
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed(why) | Self::Unfit(why) | Self::Failed(why) => {
                out.write_str(&printable(why))
            }
            Self::Stranger => out.write_str(
                "this client may not have anything signed; the setting signd.allow of the sign host names \
                 those that may",
            ),
            Self::Forbidden(user) => write!(
                out,
                "{}: this client may not use the key, if there is one; the setting signd.allow of the sign \
                 host names the keys that it may use",
                printable(user)
            ),
            Self::Unknown(user) => write!(out, "unknown key: {}", printable(user)),
            Self::Busy => {
                out.write_str("too many signatures are waiting on the sign host; try again later")
            }
        }
    }
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        match error {
            Error::Gpg(gpg::Error::Busy(_)) => Self::Busy,
            error => Self::Failed(error.to_string()),
        }
    }
}
