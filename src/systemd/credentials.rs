//! Credentials (systemd.exec(5), LoadCredential=): secrets that systemd hands to one unit, in files
//! that nobody else can read. Never in the environment, which only tells where they are.

use std::fs::File;
use std::io::{self, Read};
use std::path::PathBuf;

use zeroize::Zeroizing;

use crate::error::{Error, Result};

/// Longer than any credential of ours.
const CREDENTIAL_MAX: u64 = 64 * 1024;

/// The content of a credential; `None` when this process was given none of this name.
pub fn read(name: &str) -> Result<Option<Zeroizing<Vec<u8>>>> {
    let Some(directory) = std::env::var_os("CREDENTIALS_DIRECTORY") else { return Ok(None) };
    let directory = PathBuf::from(directory);
    if !directory.is_absolute() {
        let why = format!("CREDENTIALS_DIRECTORY = {}: is not absolute", directory.display());
        return Err(Error::Settings(why));
    }
    let unreadable = |e| Error::Settings(format!("the credential {name} cannot be read: {e}"));
    let file = match File::open(directory.join(name)) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened.map_err(unreadable)?,
    };
    let length = file.metadata().map_err(unreadable)?.len().min(CREDENTIAL_MAX);
    // Never grown, which would leave a copy behind.
    let room = usize::try_from(length).unwrap_or_default() + 1;
    let mut content = Zeroizing::new(Vec::with_capacity(room));
    file.take(length).read_to_end(&mut content).map_err(unreadable)?;
    Ok(Some(content))
}
