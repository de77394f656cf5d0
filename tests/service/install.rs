//! `make install`: beside a host of the old service, and under programs that are in use.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use tempfile::TempDir;

const DROP_IN: &str = "usr/lib/systemd/system/signd.service.d/10-copr-keygen.conf";

fn install(root: &Path) -> String {
    let mut make = Command::new("make");
    make.args(["--no-print-directory", "-C", env!("CARGO_MANIFEST_DIR"), "install"]);
    make.arg(format!("DESTDIR={}", root.display()));
    make.arg(format!("BINARY={}", env!("CARGO_BIN_EXE_copr-keygen")));
    let output = make.env_remove("MAKEFLAGS").output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn scratch() -> TempDir {
    tempfile::Builder::new().prefix("ckg-install-").tempdir_in("/tmp").unwrap()
}

#[test]
fn an_install_beside_the_old_service_keeps_its_programs_and_its_signd() {
    let root = scratch();
    let at = |path: &str| root.path().join(path);
    for (path, content) in [
        ("var/lib/copr-keygen/gnupg/pubring.kbx", "keys"),
        ("usr/bin/gpg-copr", "the old one"),
        ("usr/bin/gpg_copr.sh", "the old script"),
    ] {
        fs::create_dir_all(at(path).parent().unwrap()).unwrap();
        fs::write(at(path), content).unwrap();
    }
    for _ in 0..2 {
        let said = install(root.path());
        assert!(said.contains("has the keys of the old service"), "{said}");
        assert!(!at(DROP_IN).exists(), "signd would run otherwise after its next start");
        assert!(at("usr/share/copr-keygen/10-copr-keygen.conf").is_file());
        for (name, content) in [("gpg-copr", "the old one"), ("gpg_copr.sh", "the old script")] {
            assert_eq!(fs::read_link(at("usr/bin").join(name)).unwrap(), Path::new("copr-keygen"));
            let kept = at("usr/bin").join(format!("{name}.before-copr-keygen"));
            assert_eq!(fs::read_to_string(kept).unwrap(), content);
        }
    }
    assert_eq!(fs::read_to_string(at("var/lib/copr-keygen/gnupg/pubring.kbx")).unwrap(), "keys");
    let new = scratch();
    install(new.path());
    assert!(new.path().join(DROP_IN).is_file());
}

#[test]
fn programs_can_be_started_at_any_moment_of_an_install() {
    let root = scratch();
    install(root.path());
    fs::create_dir(root.path().join("state")).unwrap();
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let caller = scope.spawn(|| {
            let mut calls = 0;
            while !done.load(Ordering::Relaxed) {
                let mut call = Command::new(root.path().join("usr/bin/gpg-copr"));
                call.arg("--version").env("COPR_KEYGEN_CONFIG", "/dev/null");
                call.env("COPR_KEYGEN_STATE_DIR", root.path().join("state"));
                let status = call.stdout(Stdio::null()).status();
                assert!(status.as_ref().is_ok_and(|status| status.success()), "{status:?}");
                calls += 1;
            }
            calls
        });
        for _ in 0..3 {
            install(root.path());
        }
        done.store(true, Ordering::Relaxed);
        assert!(caller.join().unwrap() > 0);
    });
}
