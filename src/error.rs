//! The errors that end a mode, and their exit statuses.

pub use keystore::{Error, Result};

/// Returns the exit status of a mode that ends with `error`. Configuration errors have that of `sysexits.h`
/// (78); an interrupted mode has 128 plus the number of the signal, as in a shell.
pub fn exit_status(error: &Error) -> u8 {
    match error {
        Error::Interrupted { signal, .. } => 128 + u8::try_from(*signal as i32).unwrap_or(0),
        Error::Settings(_) | Error::OldKeyring { .. } => 78,
        Error::Arguments(_) | Error::Usage(_) => 2,
        _ => 1,
    }
}
