//! Everything external fails once: gpg, its agent, the disk, descriptors, clients.

use std::fs::{self, Permissions};
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::sync::Barrier;
use std::thread;

use nix::sys::signal::Signal;
use serde_json::json;

use super::host::{Host, Reply, Transport, eventually, gen_key_request};
use super::programs::write_script;

const ID: &str = "user#project@copr.example.org";
const OTHER: &str = "user#other@copr.example.org";

/// A stand-in for gpg. It creates the file `began`, waits for the file `go`, and then becomes gpg. `$here` is
/// the host's scratch directory.
pub const GATED: &str =
    r#"touch "$here/began"; until [ -e "$here/go" ]; do sleep 0.05; done; exec gpg "$@""#;

#[test]
fn without_gpg_it_starts_and_says_what_is_missing() {
    for setting in ["gpg", "gpg_agent"] {
        let variable = format!("COPR_KEYGEN_{}", setting.to_uppercase());
        let host = Host::start_with(Transport::PassedUnix, &[(&variable, "/nonexistent/program")]);
        assert_eq!(host.get("/ping").unwrap().status, 200);
        assert_failure(&host, "/nonexistent/program could not be started");
        assert!(host.log().contains(&format!("setting `{setting}`")), "{}", host.log());
    }
}

#[test]
fn a_gpg_that_hangs_is_killed_with_its_children() {
    let host = host_with_gpg(
        r#"echo $$ >"$here/pids"; sleep 600 & echo $! >>"$here/pids"; wait"#,
        &[("COPR_KEYGEN_GPG_TIMEOUT", "1s")],
    );
    assert_failure(&host, "gpg was killed after ");
    let pids = fs::read_to_string(host.scratch().join("pids")).unwrap();
    assert_eq!(pids.lines().count(), 2);
    for pid in pids.lines() {
        assert!(!Path::new("/proc").join(pid).exists(), "{pid} of {pids:?} lives");
    }
    assert_eq!(processes_of(&host), [""; 0]);
}

#[test]
fn whatever_gpg_does_wrong_no_key_appears_and_the_log_says_why() {
    let fingerprint = "C736DB1B28C783E150C8F0BCF189EC9B614804D3";
    let created = format!("echo '[GNUPG:] KEY_CREATED P {fingerprint}'");
    let forged = format!("echo '[GNUPG:] KEY_CREATED P ../../{fingerprint}'");
    let host = host_with_gpg("", &[]);
    for (script, words) in [
        ("echo 'gpg: the moon is full' >&2; exit 2", "the moon is full"),
        ("exit 0", "did not report one created key"),
        ("kill -SEGV $$", "killed by SIGSEGV"),
        ("exec yes", "printed more than 256 KiB"),
        ("exec yes >&2", "printed more than 256 KiB"),
        ("exec head -c 100000 /dev/urandom", "did not report one created key"),
        (&forged, "did not report one created key"),
        (&format!("{created}; exit 1"), "exit status 1"),
        // gpg lies. It reports a key that it has not made, then a second key beside the one that it has made.
        // Then it leaves no keyring.
        (&created, "did not make exactly one secret key"),
        (&format!(r#"gpg "$@"; {created}"#), "did not report one created key"),
        (r#"gpg "$@"; rm "$2/pubring.kbx""#, "pubring.kbx"),
        // The key is not protected. The first line of the input is the passphrase, so the statement becomes
        // the second.
        (r#"sed "2i %no-protection" | gpg "$@""#, "left the secret key unprotected"),
    ] {
        stand_in(&host, script);
        assert_failure(&host, words);
    }
    stand_in(&host, r#"exec gpg "$@""#);
    assert_eq!(host.gen_key(ID, json!({})).unwrap().status, 201, "{}", host.log());
}

#[test]
fn a_full_disk_is_a_reason_to_come_back_later() {
    // "No space left on device" from gpg-agent, as libgpg-error encodes it.
    let host = host_with_gpg("echo '[GNUPG:] ERROR key_generate 67141723'; exit 2", &[]);
    let refused = host.gen_key(ID, json!({})).unwrap();
    assert_busy(&refused);
    assert!(refused.body.contains("no space left"), "{}", refused.body);
    assert_nothing_made(&host);
}

#[test]
fn an_agent_killed_half_way_costs_one_request() {
    let find_agent = r#"agent=$(gpg-connect-agent --no-autostart --homedir "$2" 'GETINFO pid' /bye)
        agent=$(echo "$agent" | sed -n 's/^D //p')"#;
    let host = host_with_gpg("", &[]);
    for kill in [
        "kill -KILL $agent",
        // The agent is stopped first, so that gpg is waiting for its answer when it is killed.
        "kill -STOP $agent; (sleep 0.3; kill -KILL $agent) &",
    ] {
        stand_in(&host, &format!("{find_agent}\n{kill}\nexec gpg \"$@\""));
        assert_failure(&host, "gpg failed (exit status 2)");
        assert_eq!(processes_of(&host), [""; 0]);
    }
    stand_in(&host, r#"exec gpg "$@""#);
    assert_eq!(host.gen_key(ID, json!({})).unwrap().status, 201, "{}", host.log());
}

/// A stand-in for gpg when its agent has spoiled a key: it prints what gpg prints and fails as gpg fails.
pub const SPOILED: &str = "echo 'gpg: key generation failed: Corrupted protection' >&2; exit 2";

/// A stand-in for gpg that runs `failure` the first time, and becomes gpg from then on.
fn fails_once(failure: &str) -> String {
    format!(r#"[ -e "$here/failed" ] || {{ touch "$here/failed"; {failure}; }}; exec gpg "$@""#)
}

#[test]
fn a_key_that_gpg_spoils_is_made_once_more() {
    let host = host_with_gpg("", &[]);
    for words in ["Corrupted protection", "Unmatched parentheses in S-expression"] {
        stand_in(&host, &fails_once(&SPOILED.replace("Corrupted protection", words)));
        let id = format!("{}#project@copr.example.org", words.len());
        assert_eq!(host.gen_key(&id, json!({})).unwrap().status, 201, "{}", host.log());
        // The agent's own words may follow those of gpg.
        let says = |line: &str| line.contains(words) && line.contains("; another one is made");
        assert!(host.log().lines().any(says), "{}", host.log());
        fs::remove_file(host.scratch().join("failed")).unwrap();
    }
    // If that fails twice in a row, the request fails.
    stand_in(&host, SPOILED);
    let refused = host.gen_key("other#project@copr.example.org", json!({})).unwrap();
    assert_eq!(refused.status, 500, "{}", host.log());
}

#[test]
fn one_key_that_gpg_spoils_does_not_end_the_filling_of_the_pool() {
    let host = host_with_gpg("", &[]);
    let failed = host.scratch().join("failed");
    let fill = |stock: &str| {
        let output = host.mode(&["fill-pool"]).env("COPR_KEYGEN_POOL", stock).output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    stand_in(&host, &fails_once("exit 2"));
    let (status, said) = fill("2048:2");
    assert_eq!((status, host.entries("pool/rsa2048").len()), (Some(0), 2), "{said}");
    assert!(failed.exists() && said.contains("another one is made"), "{said}");
    stand_in(&host, "exit 2");
    let (status, said) = fill("2048:3");
    assert_eq!((status, host.entries("pool/rsa2048").len()), (Some(1), 2), "{said}");
}

#[test]
fn directories_that_cannot_be_used_cost_no_more_than_the_requests_meanwhile() {
    let host = Host::start(Transport::PassedUnix);
    for directory in ["staging", "keys", "gnupg/private-keys-v1.d"] {
        let path = host.state().join(directory);
        let away = host.scratch().join("away");
        // A file in place of the directory stops root as well. A mode would not.
        fs::rename(&path, &away).unwrap();
        fs::write(&path, "").unwrap();
        let refused = host.gen_key(ID, json!({})).unwrap();
        assert_eq!(refused.status, 500, "{directory}");
        assert!(host.log().contains(path.to_str().unwrap()), "{}", host.log());
        fs::remove_file(&path).unwrap();
        fs::rename(&away, &path).unwrap();
        assert_nothing_made(&host);
    }
    if !nix::unistd::geteuid().is_root() {
        let staging = host.state().join("staging");
        fs::set_permissions(&staging, Permissions::from_mode(0o500)).unwrap();
        assert_failure(&host, "Permission denied");
        fs::set_permissions(&staging, Permissions::from_mode(0o700)).unwrap();
    }
    assert_eq!(host.gen_key(ID, json!({})).unwrap().status, 201, "{}", host.log());
}

#[test]
fn a_state_directory_that_others_may_read_is_closed_to_them() {
    let mut host = Host::new(Transport::PassedUnix, &[]);
    for directory in [host.state(), host.state().join("keys")] {
        fs::create_dir(&directory).unwrap();
        fs::set_permissions(&directory, Permissions::from_mode(0o755)).unwrap();
    }
    host.launch();
    for directory in [host.state(), host.state().join("keys")] {
        assert_eq!(fs::metadata(&directory).unwrap().permissions().mode() & 0o7777, 0o700);
        assert!(host.log().contains(directory.to_str().unwrap()), "{}", host.log());
    }
}

#[test]
fn a_state_directory_that_cannot_be_one_is_a_clear_error() {
    let mut file = Host::new(Transport::PassedUnix, &[]);
    fs::write(file.state(), "").unwrap();
    let mut below = Host::new(Transport::PassedUnix, &[]);
    fs::create_dir(below.state()).unwrap();
    fs::write(below.state().join("keys"), "").unwrap();
    let mut foreign = Host::new(Transport::PassedUnix, &[]);
    if nix::unistd::geteuid().is_root() {
        // Started by root, the service changes to the user who owns the state. It refuses a part that belongs
        // to somebody else.
        fs::create_dir_all(foreign.state().join("keys")).unwrap();
        chown(foreign.state().join("keys"), Some(65534), None).unwrap();
    } else {
        foreign.set("COPR_KEYGEN_STATE_DIR", "/tmp");
    }
    for (host, words) in [
        (&mut file, "ot a directory"),
        (&mut below, "/keys: is not a directory"),
        (&mut foreign, "belongs to uid"),
    ] {
        host.spawn();
        assert_eq!(host.wait().code(), Some(78), "{}", host.log());
        assert!(host.log().contains(words), "{}", host.log());
    }
}

#[test]
fn a_client_that_leaves_gets_its_key_all_the_same() {
    let host = Host::start(Transport::PassedTcp);
    let body = json!({"name_real": "user_project", "name_email": ID}).to_string();
    let mut client = host.connect().unwrap();
    client.write_all(&gen_key_request(body.as_bytes())).unwrap();
    drop(client);
    eventually("the key is made", || host.home(ID).exists().then_some(()));
    assert_eq!(host.gen_key(ID, json!({})).unwrap().status, 200);
    eventually("the log says so", || host.log().contains(" 201 ").then_some(()));
}

#[test]
fn clients_that_never_read_are_in_nobodys_way() {
    let host = Host::start(Transport::PassedTcp);
    let clients: Vec<_> = (0..600)
        .map(|number| {
            let mut client = host.connect().unwrap();
            let request: &[u8] =
                if number % 2 == 0 { b"GET /ping HTTP/1.1\r\n\r\n" } else { b"nonsense\r\n\r\n" };
            client.write_all(request).unwrap();
            client
        })
        .collect();
    assert_eq!(host.get("/ping").unwrap().status, 200);
    assert_eq!(host.gen_key(ID, json!({})).unwrap().status, 201);
    drop(clients);
}

#[test]
fn running_out_of_descriptors_is_survived() {
    let mut host = Host::new(Transport::PassedUnix, &[]);
    host.limit_files(24);
    host.launch();
    let idle: Vec<_> = (0..100).map(|_| host.connect().unwrap()).collect();
    let complaint = "warn: accepting connections: Too many open";
    eventually("it ran out", || host.log().contains(complaint).then_some(()));
    assert_eq!(host.get("/ping").unwrap().status, 200);
    // While idle clients hold descriptors, a request may be refused as busy. It must not fail in any other
    // way.
    eventually("a key is made", || match host.gen_key(ID, json!({})).unwrap() {
        made if made.status == 201 => Some(()),
        refused => {
            assert_busy(&refused);
            None
        }
    });
    drop(idle);
    assert_eq!(host.gen_key(OTHER, json!({})).unwrap().status, 201);
    assert!(host.stop().success());
    assert_eq!(host.entries("staging"), [""; 0]);
}

#[test]
fn who_waits_too_long_for_a_turn_is_asked_to_come_back() {
    let host =
        host_with_gpg(GATED, &[("COPR_KEYGEN_JOBS", "1"), ("COPR_KEYGEN_QUEUE_TIMEOUT", "500ms")]);
    thread::scope(|scope| {
        let first = scope.spawn(|| host.gen_key(ID, json!({})).unwrap());
        eventually("gpg runs", || is_there(&host, "began").then_some(()));
        let others: Vec<_> = (0..30)
            .map(|number| {
                // Every third request is for the very key that is being made.
                let id = format!("user#project{}@copr.example.org", number / 3);
                let id = if number % 3 == 0 { ID.to_owned() } else { id };
                let host = &host;
                scope.spawn(move || host.gen_key(&id, json!({})).unwrap())
            })
            .collect();
        others.into_iter().for_each(|other| assert_busy(&other.join().unwrap()));
        fs::write(host.scratch().join("go"), "").unwrap();
        assert_eq!(first.join().unwrap().status, 201, "{}", host.log());
    });
    assert_eq!(host.gen_key(OTHER, json!({})).unwrap().status, 201);
    assert_eq!(host.entries("keys").len(), 2);
}

#[test]
fn two_processes_on_one_state_make_one_key_of_each_identity() {
    let host = Host::start(Transport::PassedUnix);
    let rival = beside(&host);
    let start = Barrier::new(40);
    let answers: Vec<(String, u16)> = thread::scope(|scope| {
        let clients: Vec<_> = (0..40)
            .map(|number| {
                let (start, host) = (&start, if number % 2 == 0 { &host } else { &rival });
                let id = format!("user#project{}@copr.example.org", number / 2 % 5);
                scope.spawn(move || {
                    start.wait();
                    let answer = host.gen_key_when_free(&id);
                    (id, answer.status)
                })
            })
            .collect();
        clients.into_iter().map(|client| client.join().unwrap()).collect()
    });
    assert!(answers.iter().all(|(_, status)| matches!(status, 200 | 201)), "{answers:?}");
    let keys = host.entries("keys");
    assert_eq!(keys.len(), 5);
    for id in &keys {
        let made = answers.iter().filter(|(of, status)| of == id && *status == 201).count();
        assert_eq!(made, 1, "{id}: {answers:?}");
        super::certificate::assert_signs(&host, id);
    }
    assert_eq!(host.entries("phrases"), keys);
    let links = host.entries("gnupg/private-keys-v1.d");
    assert_eq!(links.len(), 5);
    for link in links {
        assert!(host.state().join("gnupg/private-keys-v1.d").join(&link).exists(), "{link}");
    }
    assert_eq!(host.entries("staging"), [""; 0]);
}

#[test]
fn a_start_clears_up_after_dead_processes_of_this_host_only() {
    let mut host = host_with_gpg(GATED, &[]);
    let foreign = host.state().join("staging/anotherhost-0123456789abcdef");
    fs::create_dir_all(foreign.join("h")).unwrap();
    thread::scope(|scope| {
        let request = scope.spawn(|| host.gen_key(ID, json!({})));
        eventually("gpg runs", || is_there(&host, "began").then_some(()));
        assert!(beside(&host).stop().success());
        assert_eq!(host.entries("staging").len(), 2, "of a living process, of another host");
        host.signal(Signal::SIGKILL);
        assert!(request.join().unwrap().is_err());
    });
    host.wait();
    assert_eq!(host.entries("staging").len(), 2);

    fs::write(host.scratch().join("go"), "").unwrap();
    host.launch();
    assert_eq!(host.entries("staging"), ["anotherhost-0123456789abcdef"]);
    assert_eq!(host.gen_key(ID, json!({})).unwrap().status, 201, "{}", host.log());
    assert!(host.stop().success());
    assert_eq!(host.entries("staging"), ["anotherhost-0123456789abcdef"]);
}

fn is_there(host: &Host, file: &str) -> bool {
    host.scratch().join(file).exists()
}

/// A service whose gpg is a shell script.
pub fn host_with_gpg(script: &str, environment: &[(&str, &str)]) -> Host {
    let mut host = Host::new(Transport::PassedUnix, environment);
    let gpg = stand_in(&host, script);
    host.set("COPR_KEYGEN_GPG", gpg.display());
    host.launch();
    host
}

/// Writes the script that runs in place of gpg.
pub fn stand_in(host: &Host, script: &str) -> PathBuf {
    let path = host.scratch().join("gpg");
    write_script(&path, &format!("here=${{0%/*}}\n{script}"));
    path
}

/// Starts another service on the state of `host`.
fn beside(host: &Host) -> Host {
    let state = host.state();
    let state = state.to_str().unwrap();
    Host::start_with(Transport::PassedUnix, &[("COPR_KEYGEN_STATE_DIR", state)])
}

/// Asserts that a request for a key fails. The log has the reason, the client only the ID under which to find
/// it.
fn assert_failure(host: &Host, words: &str) {
    let before = host.log().len();
    let refused = host.gen_key(ID, json!({})).unwrap();
    assert_eq!(refused.status, 500, "{}", host.log());
    let request_id = refused.header("X-Request-Id").unwrap();
    let told = format!("the sign host failed; its log has the reason under {request_id}\n");
    assert_eq!(refused.body, told);
    let log = &host.log()[before..];
    let reason = log.lines().find(|line| line.contains(words)).unwrap_or_else(|| panic!("{log}"));
    assert!(reason.contains(request_id) && reason.contains(ID), "{reason}");
    assert_nothing_made(host);
}

fn assert_busy(refused: &Reply) {
    assert_eq!(refused.status, 503, "{refused:?}");
    assert!(refused.header("Retry-After").is_some(), "{refused:?}");
}

fn assert_nothing_made(host: &Host) {
    for directory in ["keys", "phrases", "gnupg/private-keys-v1.d", "staging"] {
        assert_eq!(host.entries(directory), [""; 0], "{directory}");
    }
}

/// Returns the command lines of the gpg processes that work in the state of `host`.
pub fn processes_of(host: &Host) -> Vec<String> {
    let state = host.state();
    let lines = fs::read_dir("/proc").unwrap().filter_map(|entry| {
        // A process may be gone by now, or not be ours to look at.
        let line = fs::read(entry.unwrap().path().join("cmdline")).ok()?;
        Some(String::from_utf8_lossy(&line).replace('\0', " "))
    });
    lines.filter(|line| line.contains(state.to_str().unwrap())).collect()
}
