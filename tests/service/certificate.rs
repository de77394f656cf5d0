//! The service makes certificates that every verifier accepts.

use std::fs::{self, Permissions};
use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::{Value, json};
use tempfile::TempDir;

use super::host::{Host, Transport};

const SHORT: &str = "user#short@copr.example.org";
const LONG: &str = "@group#long@copr.example.org";

/// A host with two keys that differ in everything a request can choose: identity, length, expiry, fields.
fn host_with_two_keys() -> Host {
    let host = Host::start(Transport::PassedUnix);
    let long = json!({"name_real": "Jürgen Größe", "name_comment": "für Ω", "key_length": 4096});
    for (id, extra) in [(SHORT, json!({"expire": "2y"})), (LONG, long)] {
        assert_eq!(host.gen_key_patiently(id, &extra).status, 201, "{}", host.log());
    }
    host
}

#[test]
fn every_verifier_takes_it_without_complaint() {
    let host = host_with_two_keys();
    for (id, user_id) in [
        (SHORT, "user_project <user#short@copr.example.org>"),
        (LONG, "Jürgen Größe (für Ω) <@group#long@copr.example.org>"),
    ] {
        let work = empty_directory();
        let certificate = export(&host, id, &work, "--armor");
        a_fresh_gpg_home_imports(&certificate);
        rpm_imports(&certificate);
        sequoia_finds_nothing_wrong_with(&certificate, user_id);
    }
}

fn a_fresh_gpg_home_imports(certificate: &Path) {
    let home = empty_directory();
    let mut import = tool("gpg", "gnupg");
    import.args(["--batch", "--no-tty", "--homedir"]).arg(home.path());
    let output = succeed(import.arg("--import").arg(certificate));
    let said = String::from_utf8(output.stderr).unwrap();
    let routine = ["created", "imported", "processed: 1", "imported: 1"];
    let complaints: Vec<_> =
        said.lines().filter(|line| !routine.iter().any(|end| line.ends_with(end))).collect();
    assert!(complaints.is_empty() && !said.contains("WARNING"), "{said}");
}

fn rpm_imports(certificate: &Path) {
    let database = empty_directory();
    let mut import = tool("rpmkeys", "rpm");
    import.arg("--dbpath").arg(database.path()).arg("--import").arg(certificate);
    let output = succeed(&mut import);
    assert_eq!(text(&output), "");
}

fn sequoia_finds_nothing_wrong_with(certificate: &Path, user_id: &str) {
    // An empty HOME keeps the certificate store of the user out of the test.
    let home = empty_directory();
    let sq = || {
        let mut sq = tool("sq", "sq");
        sq.env("HOME", home.path());
        sq
    };
    let seen = text(&succeed(sq().arg("inspect").arg(certificate)));
    let words: Vec<_> =
        seen.lines().filter_map(|line| line.split_once(": ")).map(|(_, word)| word).collect();
    assert!(words.contains(&"certification, signing"), "{seen}");
    assert!(words.contains(&user_id), "{seen}");
    assert!(!seen.contains("nvalid") && !seen.contains("Subkey"), "{seen}");

    // sq 1 has a linter. sq 0.27 (Debian 12) reports everything in `inspect`.
    if sq().args(["cert", "lint", "--help"]).output().unwrap().status.success() {
        let seen = text(&succeed(sq().args(["cert", "lint", "--cert-file"]).arg(certificate)));
        assert!(seen.contains("1 certificate was linted") && !seen.contains("BAD"), "{seen}");
    }
}

#[test]
fn it_is_one_rsa_key_that_certifies_and_signs_under_a_strong_self_signature() {
    let host = host_with_two_keys();
    for (id, bits) in [(SHORT, "2048"), (LONG, "4096")] {
        let work = empty_directory();
        let certificate = export(&host, id, &work, "--armor");
        let packets = host.gpg(id, &["--list-packets", certificate.to_str().unwrap()]);
        let kinds: Vec<_> = packets
            .lines()
            .filter_map(|line| line.strip_prefix(':')?.split_once(" packet:"))
            .map(|(kind, _)| kind)
            .collect();
        assert_eq!(kinds, ["public key", "user ID", "signature"], "{packets}");
        assert!(packets.contains("version 4, algo 1, "), "not RSA: {packets}");
        assert!(packets.contains(&format!("pkey[0]: [{bits} bits]")), "{packets}");
        assert!(packets.contains(", sigclass 0x13\n"), "{packets}");
        assert!(packets.contains(" (key flags: 03)\n"), "{packets}");
        // SHA-256, SHA-384, SHA-512 (RFC 9580, 9.5).
        let strong = ["8", "9", "10"].map(|digest| format!("digest algo {digest},"));
        assert!(strong.iter().any(|digest| packets.contains(digest)), "{packets}");
    }
}

#[test]
fn its_signatures_verify_in_a_fresh_keyring() {
    let host = host_with_two_keys();
    for id in [SHORT, LONG] {
        assert_signs(&host, id);
    }
    the_agent_of_obs_signd_signs_through_the_links(&host);
}

/// obs-signd has one gpg-agent for all keys. It finds a secret key only by its link in `gnupg/`,
/// and the passphrase only by the link in `phrases/`.
fn the_agent_of_obs_signd_signs_through_the_links(host: &Host) {
    let copy = empty_directory();
    // A copy of the whole state: the links are relative, so they lead to the keys of the copy.
    succeed(Command::new("cp").arg("-a").arg(host.state().join(".")).arg(copy.path()));
    let gnupg = copy.path().join("gnupg");
    for id in [SHORT, LONG] {
        let work = empty_directory();
        let (data, signature) = (work.path().join("data"), work.path().join("signature"));
        fs::write(&data, id).unwrap();
        let mut sign = tool("gpg", "gnupg");
        sign.args(["--batch", "--no-tty", "--pinentry-mode=loopback", "--homedir"]).arg(&gnupg);
        sign.arg("--no-default-keyring").arg("--keyring");
        sign.arg(copy.path().join("keys").join(id).join("pubring.kbx"));
        sign.arg("--passphrase-file").arg(copy.path().join("phrases").join(id));
        succeed(sign.arg("--output").arg(&signature).arg("--detach-sign").arg(&data));
        assert_verifies(host, id, &signature, &data);
    }
    succeed(Command::new("gpgconf").arg("--homedir").arg(&gnupg).args(["--kill", "all"]));
    // Using a key must not turn its link into a second copy of it.
    for entry in fs::read_dir(gnupg.join("private-keys-v1.d")).unwrap() {
        assert!(entry.unwrap().file_type().unwrap().is_symlink());
    }
}

/// Signs with the key and its passphrase, on a copy of the home, and verifies with the certificate
/// alone.
pub fn assert_signs(host: &Host, id: &str) {
    let work = empty_directory();
    let (data, signature) = (work.path().join("data"), work.path().join("signature"));
    fs::write(&data, id).unwrap();
    let passphrase = host.home(id).join("passphrase");
    host.gpg(
        id,
        &[
            "--pinentry-mode=loopback",
            "--passphrase-file",
            passphrase.to_str().unwrap(),
            "--output",
            signature.to_str().unwrap(),
            "--detach-sign",
            data.to_str().unwrap(),
        ],
    );
    assert_verifies(host, id, &signature, &data);
}

fn assert_verifies(host: &Host, id: &str, signature: &Path, data: &Path) {
    let fresh = empty_directory();
    let keyring = export(host, id, &fresh, "--no-armor");
    let mut gpgv = tool("gpgv", "gpgv");
    gpgv.args(["--status-fd=1", "--homedir"]).arg(fresh.path());
    let output = succeed(gpgv.arg("--keyring").arg(keyring).arg(signature).arg(data));
    let record = fs::read(host.home(id).join("key.json")).unwrap();
    let record: Value = serde_json::from_slice(&record).unwrap();
    let valid = format!("[GNUPG:] VALIDSIG {} ", record["fingerprint"].as_str().unwrap());
    assert!(text(&output).contains(&valid), "{id}: {}", text(&output));
}

/// Exports the certificate into `directory`.
pub fn export(host: &Host, id: &str, directory: &TempDir, form: &str) -> PathBuf {
    let file = directory.path().join("certificate");
    host.gpg(id, &[form, "--output", file.to_str().unwrap(), "--export"]);
    file
}

pub fn empty_directory() -> TempDir {
    let mut builder = tempfile::Builder::new();
    builder.prefix("ckg-").permissions(Permissions::from_mode(0o700));
    builder.tempdir_in("/tmp").unwrap()
}

/// Returns a command that runs a verifier. Panics if it is not installed: without it, the test proves
/// nothing.
pub fn tool(program: &str, package: &str) -> Command {
    match Command::new(program).arg("--version").output() {
        Err(e) if e.kind() == ErrorKind::NotFound => {
            panic!("{program} is not installed: install package {package}")
        }
        _ => {}
    }
    let mut command = Command::new(program);
    command.env("LC_ALL", "C.UTF-8");
    command
}

/// Returns a command that runs the program in its arguments as user 12345, who has no rights here. Only root can
/// do that.
pub fn as_stranger() -> Command {
    let mut command = tool("setpriv", "util-linux");
    command.args(["--reuid=12345", "--regid=12345", "--clear-groups"]);
    command
}

pub fn succeed(command: &mut Command) -> Output {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", text(&output));
    output
}

/// Returns everything that a program has printed, stdout first.
pub fn text(output: &Output) -> String {
    let bytes = [&output.stdout[..], &output.stderr[..]].concat();
    String::from_utf8_lossy(&bytes).into_owned()
}
