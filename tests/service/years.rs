//! A key over the years: it is made under an old clock, signs a package, and is prolonged twice. What it has
//! signed first must verify as it did then.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

use serde_json::json;

use super::certificate::{empty_directory, succeed, text, tool};
use super::host::{Host, Transport, now};

const ID: &str = "user#years@copr.example.org";
const DAY: u64 = 86_400;

/// Returns variables with which the clock of a program is `days` ahead.
fn clock_of(days: i32) -> Vec<(String, String)> {
    clock(&format!("{days:+}d"))
}

/// Returns variables with which the clock of a program says `time`, as `faketime -f` would do it.
pub fn clock(time: &str) -> Vec<(String, String)> {
    [
        ("LD_PRELOAD", faketime_library()),
        ("FAKETIME", time),
        // The monotonic clock stays as it is, so that waiting takes as long as ever.
        ("DONT_FAKE_MONOTONIC", "1"),
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
        // Time stamps of files stay as they are on the disk.
        ("NO_FAKE_STAT", "1"),
    ]
    .map(|(name, value)| (name.into(), value.into()))
    .into()
}

/// Returns the library that `faketime` preloads. faketime makes a semaphore named after its process ID. It
/// fails if a killed process with the same ID has left its semaphore behind. So run it only once, and again
/// if it fails.
fn faketime_library() -> &'static str {
    static LIBRARY: LazyLock<String> = LazyLock::new(|| {
        let preloaded = || {
            let output = tool("faketime", "faketime").args(["-f", "+0d", "env"]).output().unwrap();
            let variables = String::from_utf8(output.stdout).unwrap();
            variables.lines().find_map(|line| line.strip_prefix("LD_PRELOAD=")).map(String::from)
        };
        (0..20).find_map(|_| preloaded()).expect("faketime preloads a library")
    });
    &LIBRARY
}

/// A host with a key of one year that was made 350 days ago.
fn host_with_an_old_key() -> Host {
    let mut host = Host::new(Transport::PassedUnix, &[]);
    let clock = clock_of(-350);
    for (name, value) in &clock {
        host.set(name, value);
    }
    host.launch();
    assert_eq!(host.gen_key_patiently(ID, &json!({"expire": 365})).status, 201, "{}", host.log());
    assert!(host.stop().success());
    for (name, _) in clock {
        host.unset(&name);
    }
    host
}

/// Builds a package and signs it with the key, as if that had been `at` (Unix time).
fn signed_package(host: &Host, directory: &Path, at: u64) -> PathBuf {
    let spec = directory.join("hello.spec");
    let text = "Name: hello\nVersion: 1\nRelease: 1\nSummary: s\nLicense: x\nBuildArch: noarch\n\
                %description\nd\n%files\n";
    fs::write(&spec, text).unwrap();
    let mut build = tool("rpmbuild", "rpm");
    build.arg("--define").arg(format!("_topdir {}", directory.display()));
    succeed(build.args(["--quiet", "-bb"]).arg(&spec));
    let package = directory.join("RPMS/noarch/hello-1-1.noarch.rpm");

    let home = empty_directory();
    succeed(Command::new("cp").arg("-a").arg(host.home(ID).join(".")).arg(home.path()));
    let extra = format!(
        "_gpg_sign_cmd_extra_args --faked-system-time={at} --pinentry-mode=loopback \
         --passphrase-file={}/passphrase",
        home.path().display()
    );
    let path = format!("_gpg_path {}", home.path().display());
    let mut sign = tool("rpmsign", "rpm");
    sign.args(["--define", &extra, "--define", &path, "--define", "__gpg /usr/bin/gpg"]);
    succeed(sign.args(["--define", &format!("_gpg_name {ID}"), "--addsign"]).arg(&package));
    succeed(Command::new("gpgconf").arg("--homedir").arg(home.path()).args(["--kill", "all"]));
    package
}

/// Signs a file with the key, as if that had been `at` (Unix time).
fn signed_file(host: &Host, directory: &Path, at: u64) -> (PathBuf, PathBuf) {
    let (data, signature) = (directory.join("data"), directory.join("data.sig"));
    fs::write(&data, "signed long ago").unwrap();
    let passphrase = host.home(ID).join("passphrase");
    host.gpg(
        ID,
        &[
            &format!("--faked-system-time={at}"),
            "--pinentry-mode=loopback",
            "--passphrase-file",
            passphrase.to_str().unwrap(),
            "--output",
            signature.to_str().unwrap(),
            "--detach-sign",
            data.to_str().unwrap(),
        ],
    );
    (data, signature)
}

/// Whether Sequoia finds a signature valid. It judges by what the certificate said when the signature was
/// made. (sq 1 renamed the options, `--version` among them.)
pub fn sq_verifies(certificate: &Path, signature: &Path, data: &Path) -> bool {
    let is_first = tool("sq", "sq").arg("--version").output().unwrap().status.success();
    let mut verify = tool("sq", "sq");
    if is_first {
        verify.args(["--force", "verify", "--signer-cert"]).arg(certificate);
        verify.arg("--detached").arg(signature).arg(data);
    } else {
        verify.args(["--overwrite", "verify", "--signer-file"]).arg(certificate);
        verify.arg("--signature-file").arg(signature).arg(data);
    }
    verify.output().unwrap().status.success()
}

fn gpgv_verifies(keyring: &Path, signature: &Path, data: &Path, days: i32) -> bool {
    let home = empty_directory();
    let mut verify = tool("gpgv", "gpgv");
    verify.envs(clock_of(days)).arg("--homedir").arg(home.path());
    verify.arg("--keyring").arg(keyring).arg(signature).arg(data).output().unwrap().status.success()
}

/// Whether rpm finds the package valid, `days` from now.
fn rpm_verifies(certificate: &Path, package: &Path, days: i32) -> bool {
    let database = empty_directory();
    let mut import = tool("rpmkeys", "rpm");
    succeed(import.arg("--dbpath").arg(database.path()).arg("--import").arg(certificate));
    let mut verify = tool("rpmkeys", "rpm");
    verify.envs(clock_of(days)).arg("--dbpath").arg(database.path()).arg("-Kv").arg(package);
    let output = verify.output().unwrap();
    output.status.success() && text(&output).contains(": OK")
}

#[test]
fn a_package_signed_before_two_prolongations_verifies_as_it_did() {
    let host = host_with_an_old_key();
    let work = empty_directory();
    let first_expiry = host.json(&["show", "--json", ID])["expires"].as_u64().unwrap();
    assert!((14 * DAY..=15 * DAY).contains(&(first_expiry - now())), "{first_expiry}");
    let signed_at = now() - 340 * DAY;
    let package = signed_package(&host, work.path(), signed_at);
    let (data, signature) = signed_file(&host, work.path(), signed_at);

    let mut first = host.mode(&["prolong"]);
    succeed(first.envs(clock_of(-100)));
    let second = host.json(&["prolong", "--within", "6y", "--by", "10y", "--json"]);
    assert_eq!(second["prolonged"].as_array().map(Vec::len), Some(1), "{second}");

    // gpg and Sequoia see the new expiry, and all three self-signatures are published.
    let expires = second["until"].as_u64().unwrap();
    assert!((3649 * DAY..=3650 * DAY).contains(&(expires - now())));
    let certificate = work.path().join("certificate.asc");
    fs::write(&certificate, succeed(&mut host.mode(&["pubkey", ID])).stdout).unwrap();
    let fresh = empty_directory();
    let gpg = || {
        let mut gpg = tool("gpg", "gnupg");
        gpg.args(["--batch", "--quiet", "--homedir"]).arg(fresh.path());
        gpg
    };
    succeed(gpg().arg("--import").arg(&certificate));
    let listing = text(&succeed(gpg().args(["--with-colons", "--check-sigs"])));
    assert_eq!(listing.matches("\nsig:!").count(), 3, "{listing}");
    assert!(listing.contains(&format!(":{expires}:")), "{listing}");
    let inspected = text(&succeed(tool("sq", "sq").arg("inspect").arg(&certificate)));
    let day =
        text(&succeed(Command::new("date").args(["-u", "+%F", "-d"]).arg(format!("@{expires}"))));
    assert!(inspected.contains(day.trim()), "{day}: {inspected}");

    // The old signatures verify: at their own time, now, and after the first expiry.
    let binary = work.path().join("certificate.pgp");
    succeed(gpg().arg("--output").arg(&binary).arg("--export"));
    assert!(sq_verifies(&certificate, &signature, &data));
    for days in [-340, 0, 400] {
        assert!(gpgv_verifies(&binary, &signature, &data, days), "gpgv, {days} days from now");
        assert!(rpm_verifies(&certificate, &package, days), "rpm, {days} days from now");
    }

    // The old service published the newest self-signature only. With that, the old signature does not verify.
    let newest_only = work.path().join("newest.pgp");
    succeed(
        gpg()
            .arg("--output")
            .arg(&newest_only)
            .args(["--export-options=export-minimal", "--export"]),
    );
    assert!(!sq_verifies(&newest_only, &signature, &data));
}
