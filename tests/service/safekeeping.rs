//! What the tests of backups and of the trash share: running a mode, reading trees, and a recipient of
//! archives.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use tempfile::TempDir;

use super::host::{Host, Transport, gpg, now};

/// Returns a command that runs `copr-keygen` on the state of `host`.
pub fn copr_keygen(host: &Host, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_copr-keygen"));
    command.arg("--state-dir").arg(host.state()).args(arguments);
    command.env_clear().env("COPR_KEYGEN_CONFIG", "/dev/null").stdin(Stdio::null());
    command
}

/// The output and the exit status of a mode.
#[derive(Debug)]
pub struct Said {
    pub code: Option<i32>,
    pub stdout: Vec<u8>,
    pub stderr: String,
}

impl From<Output> for Said {
    fn from(output: Output) -> Self {
        let stderr = String::from_utf8(output.stderr).unwrap();
        Self { code: output.status.code(), stdout: output.stdout, stderr }
    }
}

impl Said {
    /// Asserts that the mode has succeeded.
    pub fn well(self) -> Self {
        assert_eq!(self.code, Some(0), "{}", self.stderr);
        self
    }

    /// Asserts that the mode has failed, with these words on stderr.
    pub fn badly(self, words: &str) -> Self {
        assert_eq!(self.code, Some(1), "{}", self.stderr);
        assert!(self.stderr.contains(words), "{words:?} is not in: {}", self.stderr);
        self
    }
}

/// Runs a mode on the state of `host`.
pub fn run(host: &Host, arguments: &[&str]) -> Said {
    copr_keygen(host, arguments).output().unwrap().into()
}

/// Restores a decrypted archive through a pipe.
pub fn restore(host: &Host, archive: &[u8]) -> Said {
    let mut command = copr_keygen(host, &["restore", "--from", "-"]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    // `restore` may refuse the archive before it has read all of it.
    let _ = child.stdin.take().unwrap().write_all(archive);
    child.wait_with_output().unwrap().into()
}

/// A host without any key, to restore on.
pub fn empty_host() -> Host {
    let host = Host::new(Transport::PassedUnix, &[]);
    fs::create_dir(host.state()).unwrap();
    host
}

/// Has a key expire in `days`.
pub fn set_expiry(host: &Host, id: &str, days: u32) {
    edit_certificate(host, id, "--quick-set-expire", &format!("{days}d"));
}

/// Has gpg change a certificate the way `prolong` does: every older signature stays, and `pubring.kbx` and
/// then `key.json` are replaced by rename.
pub fn edit_certificate(host: &Host, id: &str, command: &str, argument: &str) {
    let work = tempfile::Builder::new().prefix("ckg-").tempdir_in("/tmp").unwrap();
    let home = work.path().join("h");
    let copied = Command::new("cp").arg("-a").arg(host.home(id)).arg(&home).status();
    assert!(copied.unwrap().success());
    let old = work.path().join("old");
    let gpg = |arguments: &[&str]| {
        let mut gpg = Command::new("gpg");
        gpg.args(["--batch", "--no-tty", "--quiet", "--homedir"]).arg(&home).args(arguments);
        let output = gpg.output().unwrap();
        let words = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "gpg {arguments:?}: {words}");
        String::from_utf8(output.stdout).unwrap()
    };
    let listed = |record: &str, field: usize| {
        let listing = gpg(&["--with-colons", "--list-keys"]);
        let line = listing.lines().find(|line| line.starts_with(record)).unwrap().to_owned();
        line.split(':').nth(field).unwrap().to_owned()
    };
    let fingerprint = listed("fpr:", 9);
    gpg(&["--output", old.to_str().unwrap(), "--export"]);
    let passphrase = home.join("passphrase");
    let loopback = ["--pinentry-mode=loopback", "--passphrase-file", passphrase.to_str().unwrap()];
    gpg(&[&loopback[..], &[command, &fingerprint, argument]].concat());
    gpg(&["--import", old.to_str().unwrap()]);
    let expires = Some(listed("pub:", 6)).filter(|at| !at.is_empty()).unwrap_or("null".into());
    let record = fs::read_to_string(home.join("key.json")).unwrap();
    let number = |name: &str| {
        let rest = &record[record.find(name).unwrap() + name.len()..];
        format!("{name}{}", &rest[..rest.find([',', '}']).unwrap()])
    };
    let changed = record
        .replace(&number("\"expires\":"), &format!("\"expires\":{expires}"))
        .replace(&number("\"changed\":"), &format!("\"changed\":{}", now()));
    fs::write(home.join("key.json"), changed).unwrap();
    let mut end = Command::new("gpgconf");
    let _ = end.arg("--homedir").arg(&home).args(["--kill", "all"]).status();
    for file in ["pubring.kbx", "key.json"] {
        let fresh = host.scratch().join(file);
        fs::copy(home.join(file), &fresh).unwrap();
        fs::set_permissions(&fresh, fs::Permissions::from_mode(0o600)).unwrap();
        fs::rename(&fresh, host.home(id).join(file)).unwrap();
    }
}

/// Returns every file below `directory` with its content.
pub fn tree(directory: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut directories = vec![directory.to_owned()];
    while let Some(next) = directories.pop() {
        for entry in fs::read_dir(next).unwrap() {
            let entry = entry.unwrap();
            if entry.file_type().unwrap().is_dir() {
                directories.push(entry.path());
            } else {
                let path = entry.path().strip_prefix(directory).unwrap().to_owned();
                found.insert(path, fs::read(entry.path()).unwrap());
            }
        }
    }
    found
}

/// Asserts that only the owner can access anything below `directory`.
pub fn assert_private(directory: &Path) {
    let mode = |path: &Path| fs::symlink_metadata(path).unwrap().permissions().mode() & 0o7777;
    assert_eq!(mode(directory), 0o700, "{}", directory.display());
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            assert_private(&path);
        } else {
            assert_eq!(mode(&path), 0o600, "{}", path.display());
        }
    }
}

/// Asserts that every link leads to an existing key, and that every key has its links.
pub fn assert_links_are_right(host: &Host) {
    assert_eq!(host.entries("phrases"), host.entries("keys"));
    let links = host.entries("gnupg/private-keys-v1.d");
    assert_eq!(links.len(), host.entries("keys").len(), "{links:?}");
    for (directory, names) in
        [("phrases", host.entries("phrases")), ("gnupg/private-keys-v1.d", links)]
    {
        for name in names {
            let link = host.state().join(directory).join(name);
            assert!(link.is_symlink() && link.exists(), "{}", link.display());
        }
    }
    assert_eq!(host.entries("staging"), [""; 0]);
}

/// A recipient to whom archives are encrypted.
pub struct Recipient {
    home: TempDir,
    pub certificate: PathBuf,
}

impl Recipient {
    pub fn new() -> Self {
        let mut builder = tempfile::Builder::new();
        builder.prefix("ckg-r-").permissions(fs::Permissions::from_mode(0o700));
        let home = builder.tempdir_in("/tmp").unwrap();
        let certificate = home.path().join("certificate");
        let recipient = Self { home, certificate };
        let id = "backup@example.org";
        recipient.gpg(&["--passphrase", "", "--quick-gen-key", id, "future-default"]);
        let path = recipient.certificate.to_str().unwrap();
        recipient.gpg(&["--armor", "--output", path, "--export"]);
        recipient
    }

    /// Runs gpg in the recipient's home and returns what it prints.
    pub fn gpg(&self, arguments: &[&str]) -> Vec<u8> {
        let mut gpg = Command::new("gpg");
        gpg.args(["--batch", "--no-tty", "--quiet", "--homedir"]).arg(self.home.path());
        let output = gpg.args(arguments).output().unwrap();
        let words = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "gpg {arguments:?}: {words}");
        output.stdout
    }

    pub fn decrypt(&self, file: &Path) -> Vec<u8> {
        self.gpg(&["--decrypt", file.to_str().unwrap()])
    }

    /// Makes a backup of `host` and decrypts it.
    pub fn backup(&self, host: &Host, arguments: &[&str]) -> Vec<u8> {
        let name = format!("{:016x}", rand::random::<u64>());
        let file = host.scratch().join(name);
        let certificate = self.certificate.to_str().unwrap();
        let fixed = ["backup", "--to", file.to_str().unwrap(), "--recipient", certificate];
        run(host, &[&fixed[..], arguments].concat()).well();
        self.decrypt(&file)
    }
}

impl Drop for Recipient {
    fn drop(&mut self) {
        let mut end = Command::new("gpgconf");
        let _ = end.arg("--homedir").arg(self.home.path()).args(["--kill", "all"]).status();
    }
}

/// Whether the certificate in `file`, merged with the one of `home`, is revoked.
pub fn is_revoked(home: &Path, file: &Path) -> bool {
    let fresh = tempfile::Builder::new().prefix("ckg-").tempdir_in("/tmp").unwrap();
    let certificate = fresh.path().join("certificate");
    gpg(home, &["--output", certificate.to_str().unwrap(), "--export"]);
    let keyring = fresh.path().join("home");
    fs::create_dir(&keyring).unwrap();
    fs::set_permissions(&keyring, fs::Permissions::from_mode(0o700)).unwrap();
    let gpg = |arguments: &[&str]| {
        let mut gpg = Command::new("gpg");
        gpg.args(["--batch", "--no-tty", "--quiet", "--homedir"]).arg(&keyring).args(arguments);
        let output = gpg.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    for file in [&certificate, file] {
        gpg(&["--import", file.to_str().unwrap()]);
    }
    let listing = gpg(&["--with-colons", "--list-keys"]);
    let keys: Vec<_> = listing.lines().filter(|line| line.starts_with("pub:")).collect();
    assert_eq!(keys.len(), 1, "{listing}");
    keys[0].starts_with("pub:r:")
}
