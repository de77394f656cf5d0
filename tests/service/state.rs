//! Hostile files in the state directory. They must not make anything wait, lead a write elsewhere, or be
//! taken for a key.

use std::fs;
use std::os::unix::fs::{FileTypeExt, symlink};
use std::path::Path;

use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use serde_json::json;

use super::host::{Host, Transport, eventually};

const ID: &str = "user#project@copr.example.org";

fn put_fifo(path: &Path) {
    let _ = fs::remove_file(path);
    mkfifo(path, Mode::S_IRUSR | Mode::S_IWUSR).unwrap();
}

#[test]
fn a_pipe_in_place_of_a_file_makes_nobody_wait() {
    let mut host = Host::start(Transport::PassedUnix);
    let made = host.gen_key_patiently(ID, &json!({}));
    assert_eq!(made.status, 201, "{}", host.log());
    for _ in 0..20 {
        put_fifo(&host.home(ID).join("key.json"));
        assert_eq!(host.gen_key(ID, json!({})).unwrap().status, 200, "{}", host.log());
    }
    put_fifo(&host.home(ID).join("pubring.kbx"));
    assert_eq!(host.gen_key(ID, json!({})).unwrap().status, 500);

    // The marker for signd is replaced, whatever it is.
    let marker = host.state().join("gnupg/pubring.kbx");
    put_fifo(&marker);
    let other = "other#project@copr.example.org";
    assert_eq!(host.gen_key_patiently(other, &json!({})).status, 201, "{}", host.log());
    assert!(!fs::symlink_metadata(&marker).unwrap().file_type().is_fifo());
    assert!(host.stop().success());
}

#[test]
fn links_in_the_state_lead_no_write_elsewhere() {
    let mut host = Host::start(Transport::PassedUnix);
    assert!(host.stop().success());
    let victim = host.scratch().join("victim");
    fs::write(&victim, "precious").unwrap();
    let gnupg = host.state().join("gnupg");
    for name in ["pubring.kbx", "gpg-agent.conf"] {
        fs::remove_file(gnupg.join(name)).unwrap();
        for suffix in ["", ".new"] {
            symlink(&victim, gnupg.join(format!("{name}{suffix}"))).unwrap();
        }
    }
    host.launch();
    assert_eq!(host.gen_key_patiently(ID, &json!({})).status, 201, "{}", host.log());
    assert_eq!(fs::read(&victim).unwrap(), b"precious");
    assert!(host.stop().success());

    // If the service followed this link, it would write to a directory of somebody else and close it to
    // others. So it does not start.
    let pool = host.state().join("pool");
    fs::remove_dir(&pool).unwrap();
    symlink(host.scratch(), &pool).unwrap();
    host.spawn();
    assert_eq!(host.wait().code(), Some(78), "{}", host.log());
}

#[test]
fn odd_entries_of_staging_keep_nothing_from_being_cleared() {
    let mut host = Host::start(Transport::PassedUnix);
    assert!(host.stop().success());
    // What a killed process of this host would leave. The tag in the names is learnt from a real staging
    // directory.
    let staging = host.state().join("staging");
    let tag = tag_of_this_host(&host);
    for (name, is_dead_home) in [("00000001", true), ("00000002", false), ("00000003", true)] {
        let path = staging.join(format!("{tag}-{name}"));
        if is_dead_home {
            fs::create_dir_all(path.join("h/private-keys-v1.d")).unwrap();
        } else {
            put_fifo(&path);
        }
    }
    host.launch();
    eventually("staging to be cleared", || {
        (host.entries("staging") == [format!("{tag}-00000002")]).then_some(())
    });
    assert_eq!(host.gen_key_patiently(ID, &json!({})).status, 201, "{}", host.log());
}

/// Returns the first part of the names of this host's staging directories.
pub fn tag_of_this_host(host: &Host) -> String {
    let other = Host::start(Transport::PassedUnix);
    assert!(host.entries("staging").is_empty());
    std::thread::scope(|scope| {
        let asking = scope.spawn(|| other.gen_key_patiently(ID, &json!({"key_length": 4096})));
        // Until the directory is locked, its name begins with a dot.
        let is_named = |name: &String| !name.starts_with('.');
        let name = eventually("a staging directory", || {
            other.entries("staging").into_iter().rfind(is_named)
        });
        asking.join().unwrap();
        name.split('-').next().unwrap().to_owned()
    })
}
