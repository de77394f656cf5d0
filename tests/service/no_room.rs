//! An error names what could not be written: the output or the file, and not the disk of the state.

use std::fs::{self, File};
use std::process::{Command, Stdio};

use serde_json::Value;

use super::host::{Host, Transport};
use super::old_host::keygen;
use super::safekeeping::{Said, copr_keygen};

const ID: &str = "user#project@copr.example.org";

fn host() -> Host {
    let mut host = Host::start(Transport::PassedUnix);
    assert_eq!(host.gen_key_patiently(ID, &Value::Null).status, 201, "{}", host.log());
    assert!(host.stop().success());
    host
}

#[test]
fn an_output_that_is_full_is_not_the_disk_of_the_state() {
    let host = host();
    for mode in [
        &["list"][..],
        &["list", "--json"],
        &["show", ID],
        &["pubkey", ID],
        &["prolong", "--json"],
        &["check", "--no-units"],
    ] {
        let full = File::options().write(true).open("/dev/full").unwrap();
        let mut command = copr_keygen(&host, mode);
        let said: Said = command.stdout(full).stderr(Stdio::piped()).output().unwrap().into();
        assert_eq!(said.code, Some(1), "{mode:?}: {}", said.stderr);
        assert!(said.stderr.contains("no space left: writing to stdout"), "{}", said.stderr);
        assert!(!said.stderr.contains("state directory"), "{mode:?}: {}", said.stderr);
    }
}

#[test]
fn a_limit_on_files_is_told_in_words() {
    let host = host();
    let out = host.scratch().join("out");
    // With a limit of 0, the mode cannot write one byte to a file. (The shell counts in blocks.)
    let limited = |mode: &[&str]| {
        let command = keygen(&host);
        let mut shell = Command::new("/bin/sh");
        shell.arg("-c").arg(r#"ulimit -f 0; exec "$@" >"$0""#).arg(&out);
        shell.arg(command.get_program()).args(mode).env_clear();
        shell.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
        Said::from(shell.stderr(Stdio::piped()).output().unwrap())
    };
    let to = host.scratch().join("exported");
    for (mode, what) in [
        (&["list"][..], "writing to stdout: File too large"),
        (&["export", "--to", to.to_str().unwrap()], "INCOMPLETE: File too large"),
    ] {
        let said = limited(mode);
        assert_eq!(said.code, Some(1), "{mode:?}: {}", said.stderr);
        assert!(said.stderr.contains(what), "{mode:?}: {}", said.stderr);
        assert!(said.stderr.contains("ulimit -f"), "{mode:?}: {}", said.stderr);
    }
    assert_eq!(fs::metadata(&out).unwrap().len(), 0);
}

#[test]
fn a_stderr_that_is_full_changes_no_exit_status() {
    let host = host();
    for (mode, code) in [
        (&["gpg", "--", "--no-such-option"][..], 2),
        (&["gpg", "--", "-u", "nobody#project@copr.example.org", "--detach-sign"], 2),
        (&["show", "nobody#project@copr.example.org"], 1),
    ] {
        let full = File::options().write(true).open("/dev/full").unwrap();
        let ended = copr_keygen(&host, mode).stdout(Stdio::null()).stderr(full).status().unwrap();
        assert_eq!(ended.code(), Some(code), "{mode:?}");
    }
}
