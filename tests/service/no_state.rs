//! Where there is no state, a mode that only works with existing keys says so and makes no state.

use std::fs::{self, DirBuilder};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::host::{Host, Transport};
use super::safekeeping::Said;

const ID: &str = "user#project@copr.example.org";

/// A host that was never started.
fn host() -> Host {
    Host::new(Transport::PassedUnix, &[])
}

/// Returns every mode that needs a state, with arguments that are right otherwise.
fn modes(scratch: &Path) -> Vec<Vec<String>> {
    let recipient = scratch.join("recipient");
    fs::write(&recipient, "a certificate").unwrap();
    let (recipient, to) = (recipient.display(), scratch.join("to"));
    let to = to.display();
    let lines = [
        "list".into(),
        format!("show {ID}"),
        format!("make {ID} --real user_project"),
        format!("pubkey {ID}"),
        "prolong".into(),
        "prolong --dry-run".into(),
        "fill-pool".into(),
        format!("gpg -- -u {ID} --detach-sign {recipient}"),
        "gpg -- --list-keys".into(),
        format!("export --to {to}"),
        format!("backup --to {to} --recipient {recipient}"),
        format!("remove --yes {ID}"),
        format!("undo {ID}"),
        "purge --yes --older-than 0d".into(),
        "seal --dry-run".into(),
        "unseal".into(),
        "phrases".into(),
    ];
    lines.iter().map(|line: &String| line.split(' ').map(Into::into).collect()).collect()
}

#[test]
fn no_mode_makes_a_state_where_it_needs_one() {
    let host = host();
    let empty = host.scratch().join("empty");
    fs::create_dir(&empty).unwrap();
    for state in [host.state(), empty.clone()] {
        let existed = state.exists();
        for mode in modes(host.scratch()) {
            let mode: Vec<_> = mode.iter().map(String::as_str).collect();
            let said = run_at(&state, &mode);
            assert_eq!(said.code, Some(78), "{mode:?}: {}", said.stderr);
            let expected = format!("there is no state at {}", state.display());
            assert!(said.stderr.contains(&expected), "{mode:?}: {}", said.stderr);
            assert!(said.stdout.is_empty(), "{mode:?}");
            assert_eq!(state.exists(), existed, "{mode:?} made a state");
        }
        // `check` has a page to show, and the exit status of a host that is not well.
        let said = run_at(&state, &["check", "--repair", "--no-units"]);
        assert_eq!((said.code, state.exists()), (Some(1), existed), "{}", said.stderr);
        assert!(!existed || fs::read_dir(&state).unwrap().next().is_none(), "a mode made a state");
    }
    assert!(!host.scratch().join("to").exists());
}

/// Runs a mode on the state `state`.
fn run_at(state: &Path, mode: &[&str]) -> Said {
    let mut command = Command::new(env!("CARGO_BIN_EXE_copr-keygen"));
    command.env_clear().env("COPR_KEYGEN_CONFIG", "/dev/null").env("COPR_KEYGEN_POOL", "");
    command.stdin(Stdio::null()).arg("--state-dir").arg(state).args(mode);
    command.output().unwrap().into()
}

/// Makes what tmpfiles.d makes before the first start, below `root`. Returns the state directory.
fn apply_tmpfiles(root: &Path) -> PathBuf {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tmpfiles.d/copr-keygen.conf");
    for line in fs::read_to_string(file).unwrap().lines().filter(|line| line.starts_with("d ")) {
        let path = line.split_ascii_whitespace().nth(1).unwrap().trim_start_matches('/');
        DirBuilder::new().mode(0o700).recursive(true).create(root.join(path)).unwrap();
    }
    root.join("var/lib/copr-keygen")
}

#[test]
fn units_that_run_before_the_first_key_end_well() {
    let host = host();
    let state = apply_tmpfiles(&host.scratch().join("root"));
    for mode in [&["fill-pool"][..], &["prolong"], &["phrases"], &["list"]] {
        run_at(&state, mode).well();
    }
}

#[test]
fn what_is_no_directory_is_no_state() {
    let host = host();
    fs::write(host.state(), "a file").unwrap();
    for mode in [&["list"][..], &["fill-pool"], &["prolong"]] {
        let said = run_at(&host.state(), mode);
        assert_eq!(said.code, Some(78), "{}", said.stderr);
        assert!(said.stderr.contains("there is no state at"), "{}", said.stderr);
    }
}

#[test]
fn a_directory_of_something_else_is_not_taken_for_a_state() {
    let host = host();
    let directory = host.scratch().join("other");
    DirBuilder::new().mode(0o755).create(&directory).unwrap();
    fs::write(directory.join("file"), "theirs").unwrap();
    let source = host.scratch().join("source");
    fs::create_dir(&source).unwrap();
    let source = source.to_str().unwrap();
    for mode in [
        &["serve"][..],
        &["restore", "--from", "/dev/null"],
        &["import", "--from", source],
        &["import", "--from", source, "--dry-run"],
    ] {
        let said = run_at(&directory, mode);
        assert!(!matches!(said.code, Some(0)), "{mode:?}: {}", said.stderr);
        assert_eq!(fs::metadata(&directory).unwrap().permissions().mode() & 0o7777, 0o755);
        assert_eq!(fs::read_dir(&directory).unwrap().count(), 1, "{mode:?}");
    }
    let said = run_at(&directory, &["serve"]);
    assert_eq!(said.code, Some(78), "{}", said.stderr);
    assert!(said.stderr.contains("holds files of something else, file for one"), "{}", said.stderr);
}
