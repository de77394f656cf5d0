//! Secrets passed to this process: systemd credentials (systemd.exec(5), `LoadCredential=`), and files that
//! take their place where systemd does not run. They are wiped from memory when dropped, and never printed.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use base64ct::{Base64, Encoding};
use nix::unistd::geteuid;
use zeroize::Zeroizing;

use crate::error::{Error, Result};

/// The maximum size of a secret, in bytes.
const SECRET_MAX: usize = 64 * 1024;

/// A secret. It is wiped from memory when dropped, and never printed.
pub struct Secret(Zeroizing<Vec<u8>>);

impl Secret {
    /// Wraps `bytes`. The caller should leave no copy of them elsewhere.
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// Returns the secret.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Secret")
    }
}

/// Reads the credential `name`. Returns `None` if systemd does not pass it.
pub fn read(name: &str) -> Result<Option<Secret>> {
    let Some(directory) = std::env::var_os("CREDENTIALS_DIRECTORY") else { return Ok(None) };
    let directory = PathBuf::from(directory);
    if !directory.is_absolute() {
        let why = format!("CREDENTIALS_DIRECTORY = {}: is not absolute", directory.display());
        return Err(Error::Settings(why));
    }
    read_in(&directory, name)
}

/// Reads the credential `name` in `directory`. Does not check its owner and mode: systemd sets them, and they
/// differ between its versions.
fn read_in(directory: &Path, name: &str) -> Result<Option<Secret>> {
    let refused =
        |e: io::Error| Error::Settings(format!("the credential {name} cannot be read: {e}"));
    let path = directory.join(name);
    // Do not block on a named pipe, which would wait for its writer.
    match OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(&path) {
        Ok(file) if file.metadata().map_err(refused)?.is_file() => {
            read_all(file).map(Some).map_err(refused)
        }
        Ok(_) => Err(refused(io::Error::other("it is not a regular file"))),
        // The credential is absent only if the directory exists and has no entry of that name. A missing
        // directory or a dangling symbolic link is an error.
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            match (directory.is_dir(), path.symlink_metadata()) {
                (true, Err(_)) => Ok(None),
                _ => Err(refused(e)),
            }
        }
        Err(e) => Err(refused(e)),
    }
}

/// Reads the secret in the file that `setting` gives. The file must be a regular file without any permissions
/// for group and others. It must belong to root or to the user of this process. If that user is root, it may
/// also belong to the owner of `state_dir`.
pub fn read_file(setting: &str, path: &Path, state_dir: &Path) -> Result<Secret> {
    let refused = |why: String| Error::Settings(format!("{setting} {}: {why}", path.display()));
    // Reject symbolic links: the target could change. Do not block on a named pipe, which would wait for its
    // writer.
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path);
    let file = file.map_err(|e| match e.raw_os_error() {
        Some(libc::ELOOP) => refused("is a symbolic link; it must be a regular file".into()),
        _ => refused(format!("cannot be read: {e}")),
    })?;
    let found = file.metadata().map_err(|e| refused(format!("cannot be looked at: {e}")))?;
    if !found.is_file() {
        return Err(refused("must be a regular file".into()));
    }
    let will_be = || geteuid().is_root() && is_owner(state_dir, found.uid());
    if found.uid() != 0 && found.uid() != geteuid().as_raw() && !will_be() {
        return Err(refused(format!(
            "belongs to uid {}; it must belong to root or to the user of the service",
            found.uid()
        )));
    }
    if found.mode() & 0o077 != 0 {
        return Err(refused(format!(
            "has mode {:04o}, so others may have read it or changed it; chmod 0600, and replace what it holds as \
             the documents say",
            found.mode() & 0o7777
        )));
    }
    read_all(file).map_err(|e| refused(format!("cannot be read: {e}")))
}

fn is_owner(directory: &Path, uid: u32) -> bool {
    fs::metadata(directory).is_ok_and(|found| found.uid() == uid)
}

fn read_all(file: File) -> io::Result<Secret> {
    // The vector never reaches its capacity. It is therefore never reallocated, which would leave a copy in
    // memory.
    let mut bytes = Zeroizing::new(Vec::with_capacity(SECRET_MAX + 2));
    file.take(SECRET_MAX as u64 + 1).read_to_end(&mut bytes)?;
    if bytes.len() > SECRET_MAX {
        return Err(io::Error::other(format!("it is longer than {SECRET_MAX} bytes")));
    }
    if is_encrypted(&bytes) {
        return Err(io::Error::other(
            "it is still encrypted by systemd-creds; the unit must name its file with \
             LoadCredentialEncrypted=",
        ));
    }
    Ok(Secret(bytes))
}

/// Whether `bytes` were written by `systemd-creds encrypt`. If a unit names such a file with `LoadCredential=`,
/// systemd passes it without decrypting it. The ciphertext, which anybody may be able to read, would then be
/// used as the secret.
fn is_encrypted(bytes: &[u8]) -> bool {
    // After the 16 bytes that identify the kind of key: the sizes of key, block, initialisation vector and tag
    // of AES-256-GCM.
    const SIZES: [u8; 16] = [32, 0, 0, 0, 1, 0, 0, 0, 12, 0, 0, 0, 16, 0, 0, 0];
    let digits: Vec<u8> =
        bytes.iter().copied().filter(|byte| !byte.is_ascii_whitespace()).take(44).collect();
    let mut head = [0; 33];
    Base64::decode(&digits, &mut head)
        .is_ok_and(|head| head.get(16..).is_some_and(|sizes| sizes.starts_with(&SIZES)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};

    fn directory() -> tempfile::TempDir {
        tempfile::tempdir().unwrap()
    }

    #[test]
    fn a_credential_is_there_or_not() {
        let directory = directory();
        fs::write(directory.path().join("tokens"), "secret").unwrap();
        let found = read_in(directory.path(), "tokens").unwrap().unwrap();
        assert_eq!((found.as_bytes(), &*format!("{found:?}")), (&b"secret"[..], "Secret"));
        assert!(read_in(directory.path(), "others").unwrap().is_none());
        fs::write(directory.path().join("large"), vec![b'x'; SECRET_MAX + 1]).unwrap();
        let error = read_in(directory.path(), "large").unwrap_err();
        assert_eq!(
            (crate::error::exit_status(&error), &*error.to_string()),
            (78, "the credential large cannot be read: it is longer than 65536 bytes")
        );
        nix::unistd::mkfifo(&directory.path().join("pipe"), nix::sys::stat::Mode::S_IRUSR).unwrap();
        symlink("nowhere", directory.path().join("dangling")).unwrap();
        for name in ["pipe", "dangling", "."] {
            assert_eq!(
                crate::error::exit_status(&read_in(directory.path(), name).unwrap_err()),
                78,
                "{name}"
            );
        }
        let gone = directory.path().join("gone");
        assert_eq!(crate::error::exit_status(&read_in(&gone, "tokens").unwrap_err()), 78);
    }

    #[test]
    fn what_is_still_encrypted_is_not_taken_for_the_secret() {
        // Written by systemd-creds 252, with a host key and with the null key.
        for head in [
            "Whxqht+dQJax1aZeCGLxmiAAAAABAAAADAAAABAAAAArpcZ92GqRRMR3SRIAAAAAZmZIO4axViEJhQP\n5BftKXtlg",
            "BYRp2vb1QySABUnaD46i+yAAAAABAAAADAAAABAAAABhz0/3SeVthVSAC2wAAAAAl2Wg47Bt40yTNUa\n",
        ] {
            let directory = directory();
            let path = directory.path().join("tokens");
            fs::write(&path, head).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
            for error in [
                read_in(directory.path(), "tokens").unwrap_err(),
                read_file("tokens_file", &path, Path::new("/none")).unwrap_err(),
            ] {
                assert_eq!(crate::error::exit_status(&error), 78);
                assert!(error.to_string().contains("still encrypted"), "{error}");
            }
        }
        for other in ["", "secret", &"a".repeat(64), &"0123456789abcdef".repeat(4)] {
            assert!(!is_encrypted(other.as_bytes()), "{other}");
        }
    }

    #[test]
    fn a_file_must_be_ours_alone() {
        let directory = directory();
        let path = directory.path().join("tokens");
        fs::write(&path, "secret").unwrap();
        let mode = |mode| fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        let said = |path: &Path| {
            let error = read_file("tokens_file", path, Path::new("/none")).unwrap_err();
            assert_eq!(crate::error::exit_status(&error), 78);
            error.to_string()
        };
        mode(0o600);
        assert_eq!(
            read_file("tokens_file", &path, Path::new("/none")).unwrap().as_bytes(),
            b"secret"
        );
        for open in [0o640, 0o604, 0o620, 0o601] {
            mode(open);
            assert!(said(&path).contains(&format!("has mode {open:04o}")));
        }
        mode(0o600);
        let link = directory.path().join("link");
        symlink(&path, &link).unwrap();
        assert!(said(&link).contains("symbolic link"));
        let pipe = directory.path().join("pipe");
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRUSR).unwrap();
        assert!(said(&pipe).contains("must be a regular file"));
        assert!(said(directory.path()).contains("must be a regular file"));
        assert!(said(&directory.path().join("none")).contains("cannot be read"));
        if geteuid().is_root() {
            std::os::unix::fs::chown(&path, Some(12345), None).unwrap();
            assert!(said(&path).contains("belongs to uid 12345"));
            let state = directory.path().join("state");
            fs::create_dir(&state).unwrap();
            assert!(read_file("tokens_file", &path, &state).is_err());
            std::os::unix::fs::chown(&state, Some(12345), None).unwrap();
            assert!(read_file("tokens_file", &path, &state).is_ok());
        }
    }
}
