//! Protects a secret key in staging, and finds out whether a key signs. The signature is made over a sample
//! text that states nothing.

use std::fs;
use std::path::Path;
use std::time::Instant;

use gpg::{Fingerprint, Gpg, Keygrip, Keyring, Protection, clock, time_of_signature};

use crate::error::{Error, Result};
use crate::files::make_directory;
use crate::files::small_files::read_file;
use crate::home::record::{KeyRecord, secret_keys};
use crate::home::staging::Staging;
use crate::layout::{PUBRING, SECRET_KEYS};
use crate::secrets::passphrase::{Passphrases, Phrase};

/// The size limit of a secret key's file, in bytes.
pub const SECRET_KEY_MAX: u64 = 64 * 1024;

/// Fails unless the key in `home`, a staged home, signs with `phrase` at a time when the key was valid. The
/// signature is verified with the certificate in `home`, or with the one in the keyring `apart`.
pub fn try_key(
    gpg: &Gpg,
    home: &Path,
    phrase: &[u8],
    key: &KeyRecord,
    apart: Option<Keyring>,
    deadline: Instant,
) -> Result<()> {
    let at = time_of_signature(clock::now()?, key.created, key.expires);
    Ok(gpg.try_signature(home, phrase, &key.fingerprint, at, apart, deadline)?)
}

/// Tries a key as [`try_key`] does, with copies of the certificate in `pubring` and of the secret key in the
/// directory `secret_keys`. The secret key may be a symbolic link there.
pub fn try_copy(
    gpg: &Gpg,
    staging: &Staging,
    [pubring, secret_keys]: [&Path; 2],
    phrase: &[u8],
    key: &KeyRecord,
    apart: Option<Keyring>,
    deadline: Instant,
) -> Result<()> {
    let staged = staging.create()?;
    let home = staged.path();
    make_directory(&home.join(SECRET_KEYS))?;
    for (from, to) in [
        (pubring.to_owned(), home.join(PUBRING)),
        (secret_keys.join(key.keygrip.file_name()), key.secret_key(home)),
    ] {
        fs::copy(&from, to).map_err(Error::at("copying", &from))?;
    }
    try_key(gpg, home, phrase, key, apart, deadline)
}

/// Gives the only secret key in `home`, a staged home, a fresh passphrase, and returns the passphrase. `old`
/// is the present passphrase, or `None` if the key has none. Returns `None` if `old` is wrong.
pub fn protect_key(
    gpg: &Gpg,
    home: &Path,
    fingerprint: &Fingerprint,
    keygrip: &Keygrip,
    old: Option<&[u8]>,
    deadline: Instant,
) -> Result<Option<Phrase>> {
    let new = Passphrases::fresh()?;
    if !gpg.change_passphrase(home, fingerprint, old, &new, deadline)? {
        return Ok(None);
    }
    let file = keygrip.file_name();
    // gpg-agent goes by the name of the file when it reads a key, and by the key itself when it writes one.
    if secret_keys(home)? != [keygrip.clone()] {
        return Err(Error::Refused(format!("{file} holds the secret key of another one")));
    }
    let secret = read_file(&home.join(SECRET_KEYS).join(file), SECRET_KEY_MAX)?;
    match Protection::of(&secret) {
        Some(Protection::Passphrase) => Ok(Some(new)),
        _ => Err(Error::Refused("gpg left its secret key unprotected".into())),
    }
}
