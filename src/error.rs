//! The failures of the modes, and the exit status of each.

pub use keystore::{Error, Result};

/// The exit status of a mode that ends with this failure (`sysexits.h` for configuration, the one of shells for
/// signals).
pub fn exit_status(error: &Error) -> u8 {
    match error {
        Error::Interrupted { signal, .. } => 128 + u8::try_from(*signal as i32).unwrap_or(0),
        Error::Settings(_) | Error::OldKeyring { .. } => 78,
        Error::Arguments(_) | Error::Usage(_) => 2,
        _ => 1,
    }
}
