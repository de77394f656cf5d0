//! `make install` on a host of the old service, and while the programs are in use.

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use tempfile::TempDir;

use super::host::DoneWhenDropped;
use super::safekeeping::tree;

const DROP_IN: &str = "usr/lib/systemd/system/signd.service.d/10-copr-keygen.conf";

fn make(target: &str, root: &Path) -> Output {
    let mut make = Command::new("make");
    make.args(["--no-print-directory", "-C", env!("CARGO_MANIFEST_DIR"), target]);
    make.arg(format!("DESTDIR={}", root.display()));
    make.arg(format!("BINARY={}", env!("CARGO_BIN_EXE_copr-keygen")));
    make.env_remove("MAKEFLAGS").output().unwrap()
}

fn make_well(target: &str, root: &Path) -> String {
    let output = make(target, root);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn install(root: &Path) -> String {
    make_well("install", root)
}

/// Returns a DESTDIR whose own name begins like that of a directory that `make install` makes.
fn scratch() -> TempDir {
    tempfile::Builder::new().prefix("copr-keygen-install-").tempdir_in("/tmp").unwrap()
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
fn a_mode_whose_program_is_missing_says_which() {
    let root = scratch();
    install(root.path());
    let program = root.path().join("usr/bin/copr-keygen");
    let other = root.path().join("usr/bin/copr-keygen-signd");
    let state = root.path().join("state");
    let run = |program: &Path, arguments: &[&str]| {
        let mut command = Command::new(program);
        command.args(arguments).arg("--state-dir").arg(&state).env_clear();
        command.output().unwrap()
    };
    let said = |output: &Output| String::from_utf8(output.stderr.clone()).unwrap();
    let check = run(&program, &["check", "--quiet"]);
    assert!(String::from_utf8_lossy(&check.stdout).contains("does not exist"), "{}", said(&check));
    let list = run(&other, &["list"]);
    assert_eq!(list.status.code(), Some(2));
    assert!(said(&list).contains("copr-keygen has the others"), "{}", said(&list));
    fs::remove_file(&other).unwrap();
    for mode in ["check", "signd"] {
        let output = run(&program, &[mode]);
        assert_eq!(output.status.code(), Some(1));
        let words = format!("running {}, which has this mode: No such file", other.display());
        assert!(said(&output).contains(&words), "{}", said(&output));
    }
}

#[test]
fn every_unit_is_installed_and_none_is_enabled() {
    let root = scratch();
    install(root.path());
    let units = Path::new(env!("CARGO_MANIFEST_DIR")).join("units");
    let files = fs::read_dir(units).unwrap().map(|entry| entry.unwrap());
    let files = files.filter(|entry| entry.file_type().unwrap().is_file());
    let names: Vec<_> = files.map(|entry| entry.file_name().into_string().unwrap()).collect();
    assert!(names.iter().any(|name| name == "copr-keygen-signd.socket"), "{names:?}");
    for name in names {
        let directory = if name.ends_with(".catalog") { "catalog" } else { "system" };
        let installed = root.path().join("usr/lib/systemd").join(directory).join(&name);
        assert!(installed.is_file(), "make install leaves out {name}");
    }
    let wanted =
        tree(root.path()).into_keys().find(|path| path.to_string_lossy().contains(".wants"));
    assert_eq!(wanted, None);
}

#[test]
fn programs_can_be_started_at_any_moment_of_an_install() {
    let root = scratch();
    install(root.path());
    fs::create_dir(root.path().join("state")).unwrap();
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let guard = DoneWhenDropped(&done);
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
        drop(guard);
        assert!(caller.join().unwrap() > 0);
    });
}

#[test]
fn an_uninstall_takes_away_what_an_install_put_and_nothing_else() {
    let root = scratch();
    let put = |path: &str, content: &str| {
        let path = root.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    };
    put("usr/bin/gpg-copr", "the old one");
    put("usr/bin/make", "of somebody");
    put("usr/share/man/man1/make.1", "of somebody");
    put("usr/lib/systemd/system/signd.service.d/local.conf", "of somebody");
    let empty = root.path().join("usr/lib/sysusers.d");
    fs::create_dir_all(&empty).unwrap();
    let before = tree(root.path());
    install(root.path());
    assert!(tree(root.path()).len() > before.len() + 50);
    let kept = [
        "var/lib/copr-keygen/keys/user#project@copr.example.org/pubring.kbx",
        "var/lib/copr-keygen-backup/archive",
        "etc/copr-keygen/config.toml",
        "etc/credstore/copr-keygen.tokens",
        "etc/systemd/system/copr-keygen-prolong.service.d/hook.conf",
    ];
    kept.iter().for_each(|path| put(path, "precious"));

    // `make uninstall` refuses while a unit is enabled.
    put("etc/systemd/system/timers.target.wants/copr-keygen-prolong.timer", "");
    let all = tree(root.path());
    let refused = make("uninstall", root.path());
    let words = String::from_utf8_lossy(&refused.stderr);
    let command = "systemctl disable --now copr-keygen-prolong.timer";
    assert!(!refused.status.success() && words.contains(command), "{words}");
    assert_eq!(tree(root.path()), all);
    fs::remove_file(
        root.path().join("etc/systemd/system/timers.target.wants/copr-keygen-prolong.timer"),
    )
    .unwrap();

    for _ in 0..2 {
        let said = make_well("uninstall", root.path());
        let mut left = tree(root.path());
        for path in kept {
            assert_eq!(left.remove(Path::new(path)).unwrap(), b"precious", "{path}");
        }
        assert_eq!(left, before);
        assert!(!root.path().join("usr/share/doc/copr-keygen").exists() && empty.is_dir());
        assert!(!root.path().join("usr/lib/systemd/system/copr-keygen-.service.d").exists());
        for directory in
            ["var/lib/copr-keygen", "etc/copr-keygen", "etc/credstore/copr-keygen.tokens"]
        {
            let line = format!("left: {}", root.path().join(directory).display());
            assert!(said.lines().any(|said| said == line), "{line} is not in {said}");
        }
    }
}

#[test]
fn a_link_of_somebody_to_what_is_not_mounted_comes_back() {
    let root = scratch();
    let link = root.path().join("usr/bin/gpg_copr.sh");
    fs::create_dir_all(link.parent().unwrap()).unwrap();
    std::os::unix::fs::symlink("/not/mounted", &link).unwrap();
    install(root.path());
    make_well("uninstall", root.path());
    assert_eq!(fs::read_link(&link).unwrap(), Path::new("/not/mounted"));
}
