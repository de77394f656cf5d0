//! The passphrase of a secret key: 256 bits from the kernel, one line of 64 hexadecimal digits,
//! written to a file that only its owner can read and never anywhere else.

use std::fmt::Write as _;
use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rand::TryRng;
use rand::rngs::SysRng;

use crate::error::{Error, Result};

/// Writes a fresh passphrase to the new file `path`, mode 0600.
pub fn create(path: &Path) -> Result<()> {
    let failed = |e| Error::io(format!("writing {}", path.display()), e);
    let mut bits = [0_u8; 32];
    SysRng.try_fill_bytes(&mut bits).map_err(|e| failed(io::Error::other(e)))?;
    let mut line = String::with_capacity(64);
    for byte in bits {
        let _ = write!(line, "{byte:02x}"); // writing to a String cannot fail
    }
    keep(path, line.as_bytes())
}

/// Writes a passphrase that exists to the new file `path`, mode 0600.
pub fn keep(path: &Path, phrase: &[u8]) -> Result<()> {
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    file.and_then(|mut file| file.write_all(&[phrase, b"\n"].concat()))
        .map_err(|e| Error::io(format!("writing {}", path.display()), e))
}
