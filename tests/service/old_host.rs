//! The old service for one test: one GnuPG home with all keys, unprotected, and a directory of passphrases.

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;
use tempfile::TempDir;

use super::host::{Host, Transport, eventually};

/// The home and the phrases of the old service.
pub struct OldHost {
    pub directory: TempDir,
}

/// Returns the identities of `count` ordinary keys of an old host.
pub fn plain(count: usize) -> Vec<String> {
    (0..count).map(|n| format!("user{n}#project@copr.example.org")).collect()
}

pub fn key_count() -> usize {
    std::env::var("KEYGEN_TEST_KEYS").map_or(6, |text| text.parse().unwrap())
}

/// Returns the parameters with which the old service had gpg make a key.
pub fn parameters(id: &str, more: &str) -> String {
    format!(
        "Key-Type: RSA\nKey-Length: 2048\n{more}Name-Real: user_project\nName-Comment: None\n\
         Name-Email: {id}\nExpire-Date: 5y\n%commit\n"
    )
}

/// Like [`parameters`], but for an Ed25519 key, which is made in no time.
pub fn quick(id: &str, more: &str) -> String {
    parameters(id, more).replace(
        "Key-Type: RSA\nKey-Length: 2048",
        "Key-Type: EDDSA\nKey-Curve: ed25519\nKey-Usage: sign",
    )
}

impl OldHost {
    /// An old service with the ordinary keys `ids`, unprotected, with phrases that say `1`.
    pub fn new(ids: &[String]) -> Self {
        let directory = tempfile::Builder::new().prefix("ckg-old-").tempdir_in("/tmp").unwrap();
        let old = Self { directory };
        for path in [old.gnupg(), old.phrases()] {
            fs::create_dir(&path).unwrap();
            fs::set_permissions(&path, Permissions::from_mode(0o700)).unwrap();
        }
        old.generate("%no-protection\n", ids.iter().map(|id| parameters(id, "")));
        old
    }

    pub fn gnupg(&self) -> PathBuf {
        self.directory.path().join("gnupg")
    }

    pub fn phrases(&self) -> PathBuf {
        self.directory.path().join("phrases")
    }

    pub fn generate(&self, head: &str, keys: impl IntoIterator<Item = String>) {
        self.generate_under(&[], head, keys);
    }

    /// Like [`OldHost::generate`], with more options of gpg.
    pub fn generate_under(
        &self,
        options: &[&str],
        head: &str,
        keys: impl IntoIterator<Item = String>,
    ) {
        let file = self.directory.path().join("parameters");
        let keys: Vec<_> = keys.into_iter().collect();
        fs::write(&file, format!("{head}{}", keys.concat())).unwrap();
        self.gpg(&[options, &["--gen-key", file.to_str().unwrap()]].concat());
        for key in &keys {
            let id = key.lines().find_map(|line| line.strip_prefix("Name-Email: ")).unwrap();
            fs::write(self.phrases().join(id), "1\n").unwrap();
        }
    }

    /// Runs gpg on the old home itself.
    pub fn gpg(&self, arguments: &[&str]) -> String {
        let output = Command::new("gpg")
            .args(["--batch", "--no-tty", "--quiet", "--homedir"])
            .arg(self.gnupg())
            .args(arguments)
            .output()
            .unwrap();
        let words = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "gpg {arguments:?}: {words}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// Returns fingerprint and keygrip of each key of an identity, in the order of the keyring.
    pub fn keys_of(&self, id: &str) -> Vec<(String, String)> {
        let listing = self.gpg(&["--with-colons", "--with-keygrip", "--list-keys"]);
        let mut keys = Vec::new();
        for block in listing.split("\npub:").skip(1) {
            let field = |kind: &str| {
                let line = block.lines().find(|line| line.starts_with(kind)).unwrap();
                line.split(':').nth(9).unwrap().to_owned()
            };
            if block.contains(&format!("<{id}>")) {
                keys.push((field("fpr"), field("grp")));
            }
        }
        keys
    }

    pub fn fingerprint(&self, id: &str) -> String {
        self.keys_of(id)[0].0.clone()
    }

    pub fn secret(&self, keygrip: &str) -> PathBuf {
        self.gnupg().join("private-keys-v1.d").join(format!("{keygrip}.key"))
    }

    /// Ends what gpg has started in the old home, and returns a picture of every file.
    pub fn rest(&self) -> BTreeMap<PathBuf, (u32, u64, i64, i64)> {
        let mut end = Command::new("gpgconf");
        end.arg("--homedir").arg(self.gnupg()).args(["--kill", "all"]);
        assert!(end.status().unwrap().success());
        eventually("the sockets to go", || {
            let mut names = fs::read_dir(self.gnupg()).unwrap().flatten().map(|e| e.file_name());
            (!names.any(|name| name.to_string_lossy().starts_with("S."))).then_some(())
        });
        self.picture()
    }

    pub fn picture(&self) -> BTreeMap<PathBuf, (u32, u64, i64, i64)> {
        let mut picture = BTreeMap::new();
        let mut directories = vec![self.directory.path().to_owned()];
        while let Some(directory) = directories.pop() {
            for entry in fs::read_dir(&directory).unwrap() {
                let path = entry.unwrap().path();
                let found = fs::symlink_metadata(&path).unwrap();
                if found.is_dir() {
                    directories.push(path.clone());
                }
                let seen = (found.mode(), found.size(), found.mtime(), found.mtime_nsec());
                picture.insert(path, seen);
            }
        }
        picture
    }

    /// Imports the keys of this old host into `host`.
    pub fn import(&self, host: &Host, options: &[&str]) -> Output {
        self.import_command(host, options).output().unwrap()
    }

    pub fn import_command(&self, host: &Host, options: &[&str]) -> Command {
        let mut command = keygen(host);
        command.arg("import").arg("--from").arg(self.gnupg());
        command.arg("--phrases").arg(self.phrases()).args(options);
        command
    }
}

/// Returns a command that runs the binary on the state of `host`.
pub fn keygen(host: &Host) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_copr-keygen"));
    command.env_clear().env("PATH", "/usr/bin:/bin").stdin(Stdio::null());
    command.env("COPR_KEYGEN_CONFIG", "/dev/null").env("COPR_KEYGEN_STATE_DIR", host.state());
    command
}

/// A new host without keys, whose service does not run.
pub fn new_host() -> Host {
    let host = Host::new(Transport::ListenUnix, &[]);
    fs::create_dir(host.state()).unwrap();
    host
}

/// Returns what a program said on stderr.
pub fn words(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Returns the object that `--json` has printed, and the exit status.
pub fn report(output: &Output) -> (Value, Option<i32>) {
    let report =
        serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {}", words(output)));
    (report, output.status.code())
}

/// Returns the values of `field` in a list of a report.
pub fn values(report: &Value, list: &str, field: &str) -> Vec<String> {
    let list = report[list].as_array().unwrap().iter();
    list.map(|entry| entry[field].as_str().unwrap_or_default().to_owned()).collect()
}

/// Returns the reason for which a key was left out.
pub fn reason_of(report: &Value, fingerprint: &str) -> String {
    let list = report["left_out"].as_array().unwrap();
    let entry = list.iter().find(|entry| entry["fingerprint"] == fingerprint);
    entry.unwrap_or_else(|| panic!("{fingerprint} is not in {report:#}"))["reason"]
        .as_str()
        .unwrap()
        .to_owned()
}

/// Asserts that a key signs in a home that many keys share. As obs-signd does, this uses the name, and the
/// passphrase in the file of that name.
pub fn assert_signs_in(gnupg: &Path, phrases: &Path, id: &str) {
    let work = tempfile::Builder::new().prefix("ckg-").tempdir_in("/tmp").unwrap();
    let (data, signature) = (work.path().join("data"), work.path().join("signature"));
    fs::write(&data, id).unwrap();
    let run = |arguments: &[&str], last: &[&Path]| {
        let mut command = Command::new("gpg");
        command.args(["--batch", "--no-tty", "--homedir"]).arg(gnupg).arg("--status-fd=1");
        let output = command.args(arguments).args(last).output().unwrap();
        assert!(output.status.success(), "{id}: {}", words(&output));
        String::from_utf8(output.stdout).unwrap()
    };
    let phrase = phrases.join(id);
    run(
        &[
            "--pinentry-mode=loopback",
            "-u",
            id,
            "--passphrase-file",
            phrase.to_str().unwrap(),
            "-o",
        ],
        &[&signature, Path::new("--detach-sign"), &data],
    );
    assert!(
        run(&["--trust-model=always", "--verify"], &[&signature, &data]).contains(" VALIDSIG ")
    );
}
