//! Sealed passphrases. Every key signs through the agent before, during and after sealing. Without the key
//! that seals them, nothing on the disk can sign.

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;

use super::certificate::text;
use super::host::{Host, Transport};
use super::signing::signd_client;

pub const KEY: &str = "00112233445566778899aabbccddeeff0123456789abcdef0123456789abcdef";
pub const OTHER_KEY: &str = "ff112233445566778899aabbccddeeff0123456789abcdef0123456789abcdef";

pub fn name(number: usize) -> String {
    format!("user#p{number}@copr.example.org")
}

/// A host with a sealing key, and with a directory in memory for the phrases that signd reads.
pub struct SealedHost {
    pub host: Host,
    memory: TempDir,
}

impl SealedHost {
    /// A host whose service does not run and whose passphrases are not sealed.
    pub fn new() -> Self {
        let mut host = Host::new(Transport::PassedUnix, &[]);
        let memory = tempfile::Builder::new().prefix("ckg-").tempdir_in("/dev/shm").unwrap();
        let file = host.scratch().join("key");
        host.set("COPR_KEYGEN_PASSPHRASE_KEY_FILE", file.display());
        host.set("COPR_KEYGEN_PHRASES_DIR", memory.path().join("phrases").display());
        symlink(env!("CARGO_BIN_EXE_copr-keygen"), host.scratch().join("gpg-copr")).unwrap();
        let sealed = Self { host, memory };
        sealed.give(KEY);
        sealed
    }

    /// A host whose service runs and whose passphrases are sealed. It has no keys yet.
    pub fn sealed() -> Self {
        let mut sealed = Self::new();
        sealed.host.launch();
        sealed.well(&["seal"]);
        sealed
    }

    /// Writes `key` to the file of the sealing key.
    pub fn give(&self, key: &str) {
        let file = self.host.scratch().join("key");
        fs::write(&file, key).unwrap();
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        fs::set_permissions(file, mode).unwrap();
    }

    /// Starts the service and all modes without the sealing key from now on.
    pub fn take_key(&mut self) {
        self.host.unset("COPR_KEYGEN_PASSPHRASE_KEY_FILE");
    }

    pub fn phrases(&self) -> PathBuf {
        self.memory.path().join("phrases")
    }

    pub fn make(&self, id: &str, extra: Value) {
        let made = self.host.gen_key_patiently(id, &extra);
        assert_eq!(made.status, 201, "{}", self.host.log());
    }

    pub fn run(&self, arguments: &[&str]) -> Output {
        self.host.run(arguments)
    }

    /// Runs a mode that must succeed and returns all it printed.
    pub fn well(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        let words = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {} {words}", text(&output));
        format!("{}{words}", String::from_utf8_lossy(&output.stdout))
    }

    /// Returns the page that `check` prints for people.
    pub fn page(&self, arguments: &[&str]) -> String {
        let fixed = ["check", "--no-units", "--sign-conf", "/dev/null"];
        let output = self.run(&[&fixed[..], arguments].concat());
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    pub fn fill_pool(&self, count: usize) {
        let mut fill = self.host.mode(&["fill-pool"]);
        let output = fill.env("COPR_KEYGEN_POOL", format!("2048:{count}")).output().unwrap();
        assert!(output.status.success(), "{}", text(&output));
    }

    fn command(&self, program: &Path, phrases: &Path) -> Command {
        let mut command = Command::new(program);
        command.env_clear().env("PATH", "/usr/bin:/bin");
        command.env("GNUPGHOME", self.host.state().join("gnupg"));
        command.env("COPR_KEYGEN_STATE_DIR", self.host.state());
        command.env("COPR_KEYGEN_CONFIG", "/dev/null");
        command.env("SIGND_PHRASES", phrases);
        command.env("SIGND_GPG", self.host.scratch().join("gpg-copr"));
        command
    }

    /// Signs as signd does, with the phrases in `phrases`, and has gpgv verify the signature.
    pub fn sign_with(&self, phrases: &Path, id: &str) -> Result<(), String> {
        let work = tempfile::Builder::new().prefix("ckg-").tempdir_in("/tmp").unwrap();
        let [data, signature, keyring] =
            ["data", "signature", "keyring"].map(|file| work.path().join(file));
        fs::write(&data, id).unwrap();
        let mut sign = self.command(&signd_client(), phrases);
        fs::write(&signature, stdout_of(sign.args(["sign", id]).arg(&data))?).unwrap();
        let mut export = self.command(&self.host.scratch().join("gpg-copr"), phrases);
        fs::write(&keyring, stdout_of(export.args(["--export", id]))?).unwrap();
        let mut verify = Command::new("gpgv");
        stdout_of(verify.arg("--keyring").args([&keyring, &signature, &data])).map(drop)
    }

    pub fn assert_signs(&self, id: &str) {
        self.sign_with(&self.phrases(), id).unwrap_or_else(|e| panic!("{id}: {e}"));
    }

    pub fn assert_all_sign(&self) {
        self.host.entries("keys").iter().for_each(|id| self.assert_signs(id));
    }

    /// Returns path and content of every passphrase file in the state.
    pub fn files(&self) -> Vec<(PathBuf, String)> {
        let is_phrase = |path: &PathBuf| path.file_name().is_some_and(|name| name == "passphrase");
        let files = tree(&self.host.state()).into_iter().filter(|(path, _)| is_phrase(path));
        // The links in phrases/ are not among them, because they have other names.
        files.map(|(path, bytes)| (path, String::from_utf8(bytes).unwrap())).collect()
    }

    /// Asserts that the state is sealed, that signd is given a phrase for every key, and that no phrase is in
    /// the state.
    pub fn assert_sealed(&self) {
        let files = self.files();
        for (path, content) in &files {
            let text = content.strip_suffix('\n').unwrap();
            assert!(text.starts_with("sealed:1:") && text.len() > 100, "{}", path.display());
        }
        let marker = fs::read_to_string(self.host.state().join("sealing.json")).unwrap();
        assert!(marker.contains(r#""state":"sealed""#), "{marker}");
        assert_eq!(self.host.entries("phrases"), [""; 0]);
        assert_eq!(self.host.entries("staging"), [""; 0]);
        let given = self.given();
        assert_eq!(
            given.iter().map(|(id, _)| id.clone()).collect::<Vec<_>>(),
            self.host.entries("keys")
        );
        let phrases: HashSet<&[u8]> =
            given.iter().map(|(_, phrase)| phrase.trim_end().as_bytes()).collect();
        for (path, bytes) in tree(&self.host.state()) {
            let digits = bytes.split(|byte| !byte.is_ascii_hexdigit());
            let mut parts = digits.flat_map(|digits| digits.windows(64));
            assert!(!parts.any(|part| phrases.contains(part)), "{} has one", path.display());
        }
    }

    /// Returns the phrases that signd is given. A name that begins with a dot is no user for signd.
    pub fn given(&self) -> Vec<(String, String)> {
        let mut files = tree(&self.phrases());
        files.retain(|path, _| !path.to_string_lossy().starts_with('.'));
        let files = files.into_iter();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        files.map(|(path, bytes)| (path.to_str().unwrap().into(), text(bytes))).collect()
    }
}

/// Returns every regular file below `directory` with its content. The agent's sockets are there as well.
pub fn tree(directory: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut directories = vec![directory.to_owned()];
    while let Some(next) = directories.pop() {
        // Files in staging/ come and go, so errors do not count.
        for entry in fs::read_dir(next).into_iter().flatten().flatten() {
            let path = entry.path();
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => directories.push(path),
                Ok(kind) if kind.is_file() => {
                    let name = path.strip_prefix(directory).unwrap().to_owned();
                    found.extend(fs::read(&path).ok().map(|bytes| (name, bytes)));
                }
                _ => {}
            }
        }
    }
    found
}

impl Drop for SealedHost {
    fn drop(&mut self) {
        let mut kill = self.command(Path::new("gpgconf"), Path::new("/"));
        let _ = kill.args(["--kill", "gpg-agent"]).status();
    }
}

fn stdout_of(command: &mut Command) -> Result<Vec<u8>, String> {
    let output = command.output().unwrap();
    match output.status.success() {
        true => Ok(output.stdout),
        false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
    }
}

#[test]
fn sealing_is_turned_on_and_off_and_every_key_signs_all_the_time() {
    let mut sealed = SealedHost::new();
    sealed.host.launch();
    assert!(sealed.host.log().contains("`copr-keygen seal`"), "{}", sealed.host.log());
    sealed.fill_pool(3);
    sealed.make(&name(0), json!({"expire": 30}));
    sealed.make(&name(1), json!({}));
    sealed.make(&name(2), json!({"key_length": 3072}));
    sealed.well(&["remove", "--yes", &name(1)]);
    let clear = sealed.files();
    // Two keys, one in the trash, one left in the pool.
    assert_eq!(clear.len(), 4);
    sealed.assert_all_sign();

    let before = tree(&sealed.host.state());
    let dry: Value =
        serde_json::from_slice(&sealed.run(&["seal", "--dry-run", "--json"]).stdout).unwrap();
    let expected = json!({"passphrases": 4, "converted": 4, "failed": 0, "strays": 0, "stopped": false, "dry_run": true});
    assert_eq!(dry, expected);
    assert_eq!(tree(&sealed.host.state()), before);
    assert!(sealed.well(&["seal"]).contains("4 passphrases sealed now, 4 of 4 are"));
    sealed.assert_sealed();
    sealed.assert_all_sign();
    assert!(sealed.well(&["seal"]).contains("0 passphrases sealed now, 4 of 4 are"));

    // The service was started before the sealing. It makes sealed keys, from the pool and on the spot.
    sealed.make(&name(3), json!({}));
    sealed.make(&name(4), json!({}));
    sealed.fill_pool(1);
    sealed.well(&["prolong"]);
    let prolonged = sealed.host.json(&["show", "--json", &name(0)])["expires"].as_u64().unwrap();
    assert!(prolonged > 1_900_000_000, "{prolonged}");
    sealed.well(&["undo", &name(1)]);
    sealed.well(&["remove", "--yes", &name(3)]);
    sealed.assert_sealed();
    sealed.assert_all_sign();

    // After a boot, the directory in memory is empty.
    assert!(sealed.host.stop().success());
    fs::remove_dir_all(sealed.phrases()).unwrap();
    assert!(sealed.sign_with(&sealed.phrases(), &name(0)).is_err());
    sealed.well(&["phrases"]);
    sealed.host.launch();
    sealed.assert_sealed();
    sealed.assert_all_sign();
    // A phrase that is lost comes back when its key is requested.
    fs::remove_file(sealed.phrases().join(name(0))).unwrap();
    assert_eq!(sealed.host.gen_key(&name(0), json!({})).unwrap().status, 200);
    sealed.assert_signs(&name(0));
    let all = sealed.files().len();

    assert!(sealed.well(&["unseal"]).contains(&format!("{all} passphrases unsealed now")));
    assert!(!sealed.host.state().join("sealing.json").exists());
    let now = sealed.files();
    assert_eq!(now.len(), all);
    assert!(now.iter().all(|(_, phrase)| phrase.len() == 65), "{now:?}");
    for (path, phrase) in &clear {
        let same = |(other, now): &(PathBuf, String)| {
            assert!(other != path || now == phrase, "{} is another one", path.display());
            now == phrase
        };
        assert!(now.iter().any(same), "{} is gone", path.display());
    }
    sealed.make(&name(5), json!({}));
    sealed.assert_all_sign();
    // Without phrases_dir, signd reads links again.
    assert!(sealed.host.stop().success());
    sealed.host.unset("COPR_KEYGEN_PHRASES_DIR");
    sealed.well(&["phrases"]);
    super::safekeeping::assert_links_are_right(&sealed.host);
    sealed.sign_with(&sealed.host.state().join("phrases"), &name(5)).unwrap();
}

#[test]
fn the_disk_alone_signs_nothing() {
    let sealed = SealedHost::sealed();
    sealed.make(&name(0), json!({}));
    let home = sealed.host.home(&name(0));
    let refused = sign_with_gpg(&home, &home.join("passphrase"));
    let words = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && words.contains("Bad passphrase"), "{words}");
    let given = sign_with_gpg(&home, &sealed.phrases().join(name(0)));
    assert!(given.status.success(), "{}", String::from_utf8_lossy(&given.stderr));
}

/// Signs with plain gpg on a copy of a home.
fn sign_with_gpg(home: &Path, phrase: &Path) -> Output {
    let copy = tempfile::Builder::new().prefix("ckg-").tempdir_in("/tmp").unwrap();
    let copied = Command::new("cp").arg("-a").arg(home.join(".")).arg(copy.path()).status();
    assert!(copied.unwrap().success());
    let mut gpg = Command::new("gpg");
    gpg.args(["--batch", "--no-tty", "--homedir"]).arg(copy.path());
    gpg.args(["--pinentry-mode=loopback", "--passphrase-file"]).arg(phrase);
    gpg.arg("--output").arg(copy.path().join("signature"));
    let output = gpg.args(["--detach-sign", "/etc/hostname"]).output().unwrap();
    let mut end = Command::new("gpgconf");
    let _ = end.arg("--homedir").arg(copy.path()).args(["--kill", "all"]).status();
    output
}

#[test]
fn keys_made_while_sealing_and_unsealing_are_none_the_worse() {
    let mut sealed = SealedHost::new();
    sealed.host.launch();
    sealed.fill_pool(6);
    let rounds = 3;
    for round in 0..rounds {
        thread::scope(|scope| {
            let sealed = &sealed;
            for client in 0..3 {
                scope.spawn(move || {
                    (0..3)
                        .for_each(|n| sealed.make(&name(round * 100 + client * 10 + n), json!({})));
                });
            }
            thread::sleep(Duration::from_millis(150));
            sealed.well(&["seal"]);
        });
        sealed.assert_sealed();
        thread::scope(|scope| {
            let sealed = &sealed;
            if round + 1 < rounds {
                scope.spawn(move || sealed.make(&name(round * 100 + 50), json!({})));
                thread::sleep(Duration::from_millis(50));
                sealed.well(&["unseal"]);
                assert!(!sealed.host.state().join("sealing.json").exists());
            }
        });
        if round + 1 < rounds {
            let clear = sealed.files().into_iter().all(|(_, phrase)| phrase.len() == 65);
            assert!(clear, "a sealed one is left");
        }
    }
    sealed.assert_all_sign();
}
