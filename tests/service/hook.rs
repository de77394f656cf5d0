//! The hook of `prolong`. Whatever the hook does, `prolong` ends, and the next run goes on.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::{Child, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;

use super::certificate::text;
use super::host::{Host, Transport, eventually};

const ID: &str = "user#project@copr.example.org";

/// A host with a key that expires soon, and with this script as the hook. `$here` is the scratch directory.
fn host(script: &str) -> Host {
    let mut host = Host::start_with(Transport::PassedUnix, &[("COPR_KEYGEN_QUEUE_TIMEOUT", "60s")]);
    let reply = host.gen_key_patiently(ID, &json!({"expire": 30}));
    assert_eq!(reply.status, 201, "{}", host.log());
    write(&host, script);
    host.set("COPR_KEYGEN_HOOK", host.scratch().join("hook").display());
    host
}

fn write(host: &Host, script: &str) {
    let hook = host.scratch().join("hook");
    fs::write(&hook, format!("#!/bin/sh\nhere=${{0%/*}}\n{script}\n")).unwrap();
    fs::set_permissions(&hook, Permissions::from_mode(0o700)).unwrap();
}

/// A hook that never ends and neither does its child. It writes both process IDs to the file `pids`.
const ENDLESS: &str = r#"sleep 600 & echo $! >"$here/pids.new"; echo $$ >>"$here/pids.new"
    mv "$here/pids.new" "$here/pids"; wait"#;

/// Waits until an endless hook runs, and returns its process IDs.
fn processes(host: &Host) -> Vec<String> {
    let pids = host.scratch().join("pids");
    let text = eventually("the hook to run", || fs::read_to_string(&pids).ok());
    text.lines().map(str::to_owned).collect()
}

fn assert_gone(pids: &[String]) {
    assert_eq!(pids.len(), 2);
    for pid in pids {
        eventually("the hook to be gone", || {
            (!Path::new("/proc").join(pid).exists()).then_some(())
        });
    }
}

fn prolong(host: &Host) -> Child {
    host.mode(&["prolong"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

/// Asserts that the next run tells the hook what the previous run could not.
fn assert_told_by_the_next_run(host: &Host) {
    write(host, r#"cat >"$here/told""#);
    let output = host.run(&["prolong"]);
    assert!(output.status.success(), "{}", text(&output));
    assert_eq!(fs::read_to_string(host.scratch().join("told")).unwrap(), format!("{ID}\n"));
}

#[test]
fn one_that_hangs_is_ended_at_its_deadline_with_all_it_has_started() {
    for ignores in ["", "trap '' TERM\n"] {
        let mut host = host(&format!("{ignores}{ENDLESS}"));
        host.set("COPR_KEYGEN_HOOK_TIMEOUT", "1s");
        let run = prolong(&host);
        let pids = processes(&host);
        let output = run.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{}", text(&output));
        let words = "was killed, as it ran for longer than 1s (setting hook_timeout); the next run tells it";
        assert!(text(&output).contains(words), "{}", text(&output));
        assert_gone(&pids);
        assert_told_by_the_next_run(&host);
    }
}

#[test]
fn with_a_wrong_deadline_no_key_is_prolonged() {
    let mut host = host(r#"cat >"$here/told""#);
    host.set("COPR_KEYGEN_HOOK_TIMEOUT", "1 parsec");
    let record = || fs::read_to_string(host.home(ID).join("key.json")).unwrap();
    let before = record();
    let output = host.run(&["prolong"]);
    assert_eq!(output.status.code(), Some(78), "{}", text(&output));
    assert_eq!(record(), before);
    assert!(!host.scratch().join("told").exists());
}

#[test]
fn one_that_hangs_is_ended_by_a_signal() {
    for (signal, status) in [(Signal::SIGINT, 130), (Signal::SIGTERM, 143)] {
        let host = host(ENDLESS);
        let run = prolong(&host);
        let pids = processes(&host);
        kill(Pid::from_raw(run.id().try_into().unwrap()), signal).unwrap();
        let output = run.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(status), "{}", text(&output));
        let words = format!("interrupted by {signal}: the hook was ended; the next run tells it");
        assert!(text(&output).contains(&words), "{}", text(&output));
        assert_gone(&pids);
        assert_told_by_the_next_run(&host);
    }
}

#[test]
fn one_that_is_told_to_end_may_clear_up() {
    // Use bash. dash unblocks signals by itself, and so would hide that they are blocked.
    let host = host(
        r#"export here; exec bash -c 'trap "echo got >>\"$here/got\"; exit 0" TERM
        grep SigBlk /proc/self/status >"$here/mask.new"; mv "$here/mask.new" "$here/mask"
        while :; do sleep 0.1; done'"#,
    );
    let run = prolong(&host);
    let mask = host.scratch().join("mask");
    let mask = eventually("the hook to run", || fs::read_to_string(&mask).ok());
    assert_eq!(mask, "SigBlk:\t0000000000000000\n");
    kill(Pid::from_raw(run.id().try_into().unwrap()), Signal::SIGTERM).unwrap();
    let output = run.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(143), "{}", text(&output));
    assert_eq!(fs::read_to_string(host.scratch().join("got")).unwrap(), "got\n");
    assert_told_by_the_next_run(&host);
}

#[test]
fn one_that_reads_nothing_is_none_the_worse() {
    let host = host("exec <&-; exit 0");
    let output = host.run(&["prolong"]);
    assert!(output.status.success(), "{}", text(&output));
}

#[test]
fn whatever_else_fails_is_said_too() {
    let mut host = host("exit 3");
    host.set("COPR_KEYGEN_METRICS_FILE", "/nonexistent/copr-keygen.prom");
    let output = host.run(&["prolong"]);
    assert_eq!(output.status.code(), Some(1));
    for words in ["failed (exit status 3); the next run", "/nonexistent/copr-keygen.prom"] {
        assert!(text(&output).contains(words), "{}", text(&output));
    }
}

#[test]
fn the_stamp_leads_to_no_file_of_somebody_else() {
    let host = host("exit 0");
    let (stamp, theirs) = (host.state().join("hook-stamp"), host.scratch().join("theirs"));
    fs::write(&theirs, "precious").unwrap();
    symlink(&theirs, &stamp).unwrap();
    let output = host.run(&["prolong"]);
    assert_eq!(output.status.code(), Some(1), "{}", text(&output));
    assert_eq!(fs::read(&theirs).unwrap(), b"precious");
    fs::remove_file(&stamp).unwrap();
    assert!(host.run(&["prolong"]).status.success());
}
