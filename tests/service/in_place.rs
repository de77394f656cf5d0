//! Import in place: the keys of the old service are taken over in the state directory itself. The old files
//! are kept, and signing goes on with them until every key has been proved.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::faults::{SPOILED, stand_in};
use super::host::{Host, Transport, eventually, gen_key_request, kill_child};
use super::old_host::{OldHost, parameters, plain, quick, report, values, words};
use super::signing::signd_client;

const COMMAND: &str = "copr-keygen import --state-dir";

/// A state directory in which the old service has its keys, and a keyring of their certificates.
struct InPlace {
    host: Host,
    keyring: PathBuf,
    ids: Vec<String>,
}

impl InPlace {
    /// Makes the keys `ids` as the old service made them, and whatever `more` adds.
    fn new(ids: Vec<String>, more: impl FnOnce(&OldHost)) -> Self {
        let old = OldHost::new(&ids);
        more(&old);
        let host = Host::new(Transport::ListenUnix, &[]);
        let keyring = host.scratch().join("old.gpg");
        old.gpg(&["--output", keyring.to_str().unwrap(), "--export"]);
        old.rest();
        fs::create_dir(host.state()).unwrap();
        for (directory, name) in [(old.gnupg(), "gnupg"), (old.phrases(), "phrases")] {
            fs::rename(directory, host.state().join(name)).unwrap();
        }
        symlink(env!("CARGO_BIN_EXE_copr-keygen"), host.scratch().join("gpg-copr")).unwrap();
        Self { host, keyring, ids }
    }

    fn import(&self, options: &[&str]) -> Output {
        self.host.run(&[&["import"], options].concat())
    }

    /// Returns a command that runs `program` in the environment of signd's children.
    fn signd(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command.env_clear().env("PATH", "/usr/bin:/bin").stdin(Stdio::null());
        command.env("GNUPGHOME", self.host.state().join("gnupg"));
        command.env("COPR_KEYGEN_STATE_DIR", self.host.state());
        command.env("COPR_KEYGEN_CONFIG", "/dev/null");
        command.env("SIGND_PHRASES", self.host.state().join("phrases"));
        command.env("SIGND_GPG", self.host.scratch().join("gpg-copr"));
        command
    }

    /// Asserts that the key signs the way signd does it. gpgv verifies with the old certificates only.
    fn assert_signs(&self, id: &str) {
        let name = format!("{:016x}", rand::random::<u64>());
        let [data, signature] =
            ["data", "sig"].map(|end| self.host.scratch().join(format!("{name}.{end}")));
        fs::write(&data, &name).unwrap();
        let mut sign = self.signd(&signd_client());
        let signed = sign.args(["sign", id]).arg(&data).output().unwrap();
        assert!(signed.status.success(), "{id}: {}", words(&signed));
        fs::write(&signature, signed.stdout).unwrap();
        let mut verify = Command::new("gpgv");
        verify.arg("--keyring").args([&self.keyring, &signature, &data]);
        let verified = verify.output().unwrap();
        assert!(verified.status.success(), "{id}: {}", words(&verified));
    }

    fn assert_all_sign(&self) {
        self.ids.iter().for_each(|id| self.assert_signs(id));
    }

    fn end_agent(&self) {
        let mut kill = self.signd(Path::new("gpgconf"));
        assert!(kill.args(["--kill", "gpg-agent"]).status().unwrap().success());
        eventually("the agent to end", || {
            let mut ask = self.signd(Path::new("gpg-connect-agent"));
            let asked = ask.args(["--no-autostart", "/bye"]).output().unwrap();
            String::from_utf8_lossy(&asked.stderr).contains("no gpg-agent running").then_some(())
        });
    }

    /// Returns every file of the state with mode and content, except for those that gpg and gpg-agent write
    /// and remove.
    fn picture(&self) -> BTreeMap<PathBuf, (u32, Vec<u8>)> {
        picture(&self.host.state())
    }

    /// Returns the directory in which the import has set the old directories aside.
    fn kept(&self) -> PathBuf {
        let entries = self.host.entries("trash");
        assert_eq!(entries.len(), 1, "{entries:?}");
        assert!(entries[0].ends_with("-old-service"), "{entries:?}");
        self.host.state().join("trash").join(&entries[0])
    }
}

impl Drop for InPlace {
    fn drop(&mut self) {
        self.end_agent();
    }
}

fn picture(root: &Path) -> BTreeMap<PathBuf, (u32, Vec<u8>)> {
    let mut picture = BTreeMap::new();
    let mut directories = vec![root.to_owned()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(&directory).unwrap() {
            let path = entry.unwrap().path();
            let found = fs::symlink_metadata(&path).unwrap();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            let is_of_agents = name.starts_with("S.") || name.starts_with(".#");
            // gpg writes these whenever it runs, even to read keys.
            let is_of_gpg = ["trustdb.gpg", "random_seed"].contains(&&*name) || name.ends_with('~');
            if found.is_dir() {
                directories.push(path.clone());
            } else if !is_of_agents && !is_of_gpg && !name.ends_with(".lock") {
                let content = match found.is_symlink() {
                    true => fs::read_link(&path).unwrap().into_os_string().into_encoded_bytes(),
                    false => fs::read(&path).unwrap(),
                };
                let below = path.strip_prefix(root).unwrap().to_owned();
                picture.insert(below, (found.mode(), content));
            }
        }
    }
    picture
}

#[test]
fn the_keys_of_the_old_service_are_taken_over_where_they_are() {
    let closed = "closed#project@copr.example.org".to_owned();
    let mut ids = plain(4);
    let mut old = InPlace::new(ids.clone(), |old| {
        let protected = parameters(&closed, "Passphrase: old secret\n");
        old.generate("", [protected]);
        fs::write(old.phrases().join(&closed), "old secret\n").unwrap();
    });
    ids.push(closed);
    old.ids = ids.clone();
    let before = old.picture();
    old.assert_all_sign();

    let (planned, status) = report(&old.import(&["--dry-run", "--json"]));
    assert_eq!((values(&planned, "imported", "name_email"), status), (ids.clone(), Some(0)));
    assert!(planned["left_to_do"].as_array().is_some_and(|steps| !steps.is_empty()), "{planned:#}");
    assert_eq!(old.picture(), before, "a dry run changed the state");

    let imported = old.import(&[]);
    let said = String::from_utf8_lossy(&imported.stdout).into_owned();
    assert!(imported.status.success(), "{}", words(&imported));
    assert!(said.contains("5 keys imported") && said.contains("left to do"), "{said}");
    assert!(said.contains("copr-keygen check") && said.contains("copr-keygen purge"), "{said}");
    // Signing goes on at once, with the agent of before or with a new one.
    old.assert_all_sign();
    old.end_agent();
    old.assert_all_sign();
    let kept = picture(&old.kept());
    assert_eq!(kept, before, "what was there is not what is kept");
    assert_eq!(old.host.entries("phrases"), old.host.entries("keys"));
    assert!(!old.host.state().join("importing").exists());

    old.host.launch();
    for id in &ids {
        assert_eq!(old.host.gen_key(id, json!({})).unwrap().status, 200, "{}", old.host.log());
    }
    // The import runs once more, as after a kill at the last moment. It says that all is done, and what is
    // left to do.
    let again = old.import(&[]);
    assert!(again.status.success() && words(&again).contains("been taken over"), "{again:?}");
    assert!(String::from_utf8_lossy(&again.stdout).contains("left to do"), "{again:?}");

    let purged = old.host.run(&["purge", "--older-than", "1d", "--yes"]);
    assert!(purged.status.success() && old.kept().exists(), "{}", words(&purged));
    let purged = old.host.run(&["purge", "--older-than", "0d", "--yes"]);
    assert!(purged.status.success(), "{}", words(&purged));
    assert_eq!(old.host.entries("trash"), [""; 0]);
    old.assert_all_sign();
    let again = old.import(&[]);
    assert_eq!(again.status.code(), Some(2), "{}", words(&again));
    assert!(words(&again).contains("holds no keyring of another service"), "{}", words(&again));
}

#[test]
fn a_state_with_the_keyring_of_another_service_makes_no_keys() {
    let mut old = InPlace::new(plain(1), |_| {});
    let elsewhere = OldHost::new(&[]);
    elsewhere.generate("%no-protection\n", [quick("else#where@copr.example.org", "")]);
    let from = elsewhere.gnupg();
    old.end_agent();
    let before = old.picture();
    let id = &old.ids[0];
    let archive = old.host.scratch().join("archive");
    fs::write(&archive, "").unwrap();
    let modes: [&[&str]; 9] = [
        &["serve"],
        &["fill-pool"],
        &["prolong"],
        &["import", "--from", from.to_str().unwrap()],
        &["restore", "--from", archive.to_str().unwrap()],
        &["remove", "--yes", id],
        &["undo", id],
        &["purge", "--older-than", "0d", "--yes"],
        &["phrases"],
    ];
    for mode in modes {
        let output = old.host.run(mode);
        assert_eq!(output.status.code(), Some(78), "{mode:?}: {}", words(&output));
        let said = words(&output);
        assert!(said.contains(COMMAND) && said.contains("pubring.kbx"), "{mode:?}: {said}");
        assert_eq!(old.picture(), before, "{mode:?} changed the state");
    }
    let check = old.host.run(&["check", "--no-units", "--repair", "--json"]);
    let page: Value = serde_json::from_slice(&check.stdout).unwrap();
    let mut lines = page.as_array().unwrap().iter();
    let line =
        lines.find(|line| line["subject"] == "gnupg/pubring.kbx" && line["level"] == "failed");
    let remedy = line.unwrap_or_else(|| panic!("{page:#}"))["remedy"].as_str().unwrap();
    assert!(remedy.starts_with(COMMAND), "{remedy}");
    let after = old.picture();
    for (path, (_, content)) in &before {
        assert_eq!(after.get(path).map(|(_, content)| content), Some(content), "{path:?}");
    }

    // The keyring of the old service comes back into a state that is ours. It is not replaced, and the client
    // is told.
    assert!(old.import(&[]).status.success());
    old.host.launch();
    let keyring = old.kept().join("gnupg/pubring.kbx");
    let marker = old.host.state().join("gnupg/pubring.kbx");
    fs::copy(&keyring, &marker).unwrap();
    let reply = old.host.send(&gen_key_request(
        &serde_json::to_vec(&json!({"name_real": "x", "name_email": "new#one@copr.example.org"}))
            .unwrap(),
    ));
    let reply = reply.unwrap();
    assert_eq!(reply.status, 503, "{}", old.host.log());
    assert!(reply.body.contains("copr-keygen import"), "{}", reply.body);
    assert!(old.host.log().contains(COMMAND), "{}", old.host.log());
    assert_eq!(fs::read(&marker).unwrap(), fs::read(&keyring).unwrap());
}

#[test]
fn a_key_that_cannot_be_taken_over_leaves_the_old_service_in_place() {
    let mut old = InPlace::new(plain(2), |old| {
        let subkey =
            quick("sub#key@copr.example.org", "Subkey-Type: ECDH\nSubkey-Curve: cv25519\n");
        old.generate("%no-protection\n", [subkey]);
    });
    let before = old.picture();
    for options in [&["--json"][..], &["--dry-run", "--json"]] {
        let (left, status) = report(&old.import(options));
        assert_eq!(status, Some(1), "{left:#}");
        assert_eq!(values(&left, "left_out", "name_email"), ["sub#key@copr.example.org"]);
        let gnupg = |path: &Path| path.starts_with("gnupg") || path.starts_with("phrases");
        let mut now = old.picture();
        now.retain(|path, _| gnupg(path));
        assert_eq!(now, before, "the old service was touched");
        old.assert_all_sign();
        let serve = old.host.run(&["serve"]);
        assert_eq!(serve.status.code(), Some(78), "{}", words(&serve));
    }
    let (left, status) = report(&old.import(&["--leave-out", "--json"]));
    assert_eq!(status, Some(1), "{left:#}");
    assert_eq!(values(&left, "already", "name_email"), old.ids);
    old.assert_all_sign();
    assert_eq!(picture(&old.kept()), before);
    old.host.launch();
    assert_eq!(old.host.gen_key(&old.ids[0].clone(), json!({})).unwrap().status, 200);
}

#[test]
fn a_killed_import_in_place_loses_nothing_and_goes_on() {
    let old = InPlace::new(plain(3), |_| {});
    old.assert_all_sign();
    old.end_agent();
    let before = old.picture();
    let saved = old.host.scratch().join("saved");
    let copy = |from: &Path, to: &Path| {
        let _ = fs::remove_dir_all(to);
        let status = Command::new("cp").arg("-a").args([from, to]).status().unwrap();
        assert!(status.success());
    };
    copy(&old.host.state(), &saved);
    let started = Instant::now();
    let import = || old.host.mode(&["import"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    assert!(import().unwrap().wait().unwrap().success());
    let whole = started.elapsed();
    for round in 0..8_u32 {
        old.end_agent();
        copy(&saved, &old.host.state());
        // Kill the import later in each round, and once more while it goes on.
        for _ in 0..2 {
            let mut child = import().unwrap();
            let least = whole.mul_f64(f64::from(round) / 8.0);
            thread::sleep(least + Duration::from_millis(rand::random_range(0..40)));
            kill_child(&mut child);
        }
        // A process that the killed import has just forked holds the lock until it executes gpg.
        let report = eventually("the lock of the killed import to be free", || {
            let report = old.import(&[]);
            (!words(&report).contains("another import is at work")).then_some(report)
        });
        let said = words(&report);
        assert!(report.status.success(), "round {round}: {said}");
        old.end_agent();
        old.assert_all_sign();
        assert_eq!(picture(&old.kept()), before, "round {round}: what was there is not kept");
        assert_eq!(old.host.entries("keys").len(), old.ids.len());
        assert_eq!(old.host.entries("staging"), [""; 0]);
    }
}

#[test]
fn what_the_old_service_makes_meanwhile_is_taken_over_too() {
    let old = InPlace::new(plain(1), |_| {});
    // The old service makes one more key while the import is at work.
    let late = "late#comer@copr.example.org";
    let gnupg = old.host.state().join("gnupg");
    let file = old.host.scratch().join("parameters");
    assert!(old.import(&["--dry-run"]).status.success());
    let stop = old.host.scratch().join("stop");
    let script = old.host.scratch().join("gpg-once");
    // This script runs in place of gpg. When the first signature is tried, it makes a key in the old keyring.
    fs::write(&file, format!("%no-protection\n{}", parameters(late, ""))).unwrap();
    fs::write(
        &script,
        format!(
            "#!/bin/sh\ncase \"$*\" in *--detach-sign*) if mkdir '{}' 2>/dev/null; then \
             gpg --homedir '{}' --batch --quiet --gen-key '{}' && echo 1 >'{}'; fi;; esac\n\
             exec /usr/bin/gpg \"$@\"\n",
            stop.display(),
            gnupg.display(),
            file.display(),
            old.host.state().join("phrases").join(late).display()
        ),
    )
    .unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(&script, mode).unwrap();
    let mut import = old.host.mode(&["import", "--json"]);
    let (done, status) = report(&import.env("COPR_KEYGEN_GPG", &script).output().unwrap());
    assert_eq!(status, Some(0), "{done:#}");
    let mut imported = values(&done, "imported", "name_email");
    imported.sort();
    assert_eq!(imported, [late, &old.ids[0]], "{done:#}");
    assert_eq!(old.host.entries("phrases"), [late, &old.ids[0]]);
}

#[test]
fn a_key_that_gpg_spoils_is_taken_over_by_the_second_try() {
    let old = InPlace::new(plain(2), |_| {});
    let script = format!(
        r#"case "$*" in *--detach-sign*) [ -e "$here/failed" ] || {{ touch "$here/failed"; {SPOILED}; }};; esac
        exec gpg "$@""#
    );
    let gpg = stand_in(&old.host, &script);
    let mut import = old.host.mode(&["import", "--json"]);
    let output = import.env("COPR_KEYGEN_GPG", gpg).output().unwrap();
    let (done, status) = report(&output);
    assert_eq!(status, Some(0), "{done:#}");
    assert_eq!(values(&done, "imported", "name_email").len(), 2, "{done:#}");
    assert!(words(&output).contains("tried once more"), "{}", words(&output));
}

#[test]
fn secret_keys_without_a_keyring_are_named() {
    let old = InPlace::new(plain(2), |_| {});
    // An empty keyring, left by a service that did not know of the old one.
    fs::write(old.host.state().join("gnupg/pubring.kbx"), "").unwrap();
    let refused = old.import(&[]);
    assert_eq!(refused.status.code(), Some(1), "{}", words(&refused));
    assert!(words(&refused).contains("2 secret keys of no home"), "{}", words(&refused));
}

#[test]
fn secret_keys_of_another_service_without_its_keyring_keep_keys_from_being_made() {
    let old = InPlace::new(plain(2), |_| {});
    fs::remove_file(old.host.state().join("gnupg/pubring.kbx")).unwrap();
    let refused = old.host.run(&["serve"]);
    assert_eq!(refused.status.code(), Some(78), "{}", words(&refused));
    assert!(words(&refused).contains("2 secret keys of no home"), "{}", words(&refused));
    assert!(!old.host.state().join("keys").exists());
}

#[test]
fn a_state_that_was_moved_into_another_is_named_and_no_key_made() {
    let mut host = Host::start(Transport::ListenUnix);
    let id = "user#project@copr.example.org";
    assert_eq!(host.gen_key(id, json!({})).unwrap().status, 201);
    host.stop();
    // The result of `mv NEW OLD` while OLD was still there.
    let outer = host.scratch().join("outer");
    for part in ["", "keys", "gnupg", "phrases"] {
        fs::create_dir(outer.join(part)).unwrap();
    }
    fs::rename(host.state(), outer.join("state.new")).unwrap();
    fs::rename(&outer, host.state()).unwrap();
    let refused = host.run(&["serve"]);
    let said = words(&refused);
    assert_eq!(refused.status.code(), Some(78), "{said}");
    let command = said.trim().rsplit_once("put it in place with: ").unwrap().1;
    let check = host.run(&["check", "--no-units"]);
    let page = String::from_utf8_lossy(&check.stdout).into_owned();
    assert!(page.contains("state.new: is a state with keys inside of this one"), "{page}");
    assert!(Command::new("sh").args(["-c", command]).status().unwrap().success(), "{command}");
    host.launch();
    assert_eq!(host.gen_key(id, json!({})).unwrap().status, 200, "{}", host.log());
}

#[test]
fn the_second_key_of_an_identity_is_passed_over_however_often_the_import_begins() {
    let id = "twice#made@copr.example.org";
    let old = InPlace::new(plain(1), |old| {
        old.generate("%no-protection\n", [quick(id, ""), quick(id, "")]);
        let subkey =
            quick("sub#key@copr.example.org", "Subkey-Type: ECDH\nSubkey-Curve: cv25519\n");
        old.generate("%no-protection\n", [subkey]);
    });
    // The first import stops because of another key, after it has made the home of this identity.
    let (stopped, status) = report(&old.import(&["--json"]));
    assert_eq!(status, Some(1), "{stopped:#}");
    assert_eq!(values(&stopped, "left_out", "name_email").len(), 2, "{stopped:#}");
    let (again, _) = report(&old.import(&["--leave-out", "--json"]));
    let reasons = values(&again, "left_out", "reason");
    let is_passed_over = |reason: &String| reason.contains("gpg signs with");
    assert_eq!(reasons.iter().filter(|reason| is_passed_over(reason)).count(), 1, "{again:#}");
    assert!(!reasons.iter().any(|reason| reason.contains("has another key")), "{again:#}");
    assert_eq!(values(&again, "already", "name_email").len(), 2, "{again:#}");
}

#[test]
fn what_is_kept_of_the_old_service_is_purged_apart() {
    let old = InPlace::new(plain(2), |_| {});
    assert!(old.import(&[]).status.success());
    assert!(old.host.run(&["remove", "--yes", &old.ids[0]]).status.success());
    assert_eq!(old.host.entries("trash").len(), 2);
    let purged = old.host.run(&["purge", "--older-than", "0d", "--old-service", "--yes"]);
    assert!(purged.status.success(), "{}", words(&purged));
    assert!(old.host.run(&["undo", &old.ids[0]]).status.success());
    old.assert_all_sign();
}

#[test]
fn a_certificate_that_somebody_put_into_gnupg_stops_no_signature() {
    let old = InPlace::new(plain(2), |_| {});
    assert!(old.import(&[]).status.success());
    let stray = OldHost::new(&[]);
    stray.generate("%no-protection\n", [quick("stray#key@copr.example.org", "")]);
    let file = old.host.scratch().join("stray.pgp");
    stray.gpg(&["--output", file.to_str().unwrap(), "--export"]);
    let mut import = old.signd(Path::new("gpg"));
    assert!(import.args(["--batch", "--quiet", "--import"]).arg(&file).status().unwrap().success());
    old.assert_all_sign();
    assert_eq!(old.host.run(&["serve"]).status.code(), Some(78));
    // The command in the message repairs this and loses the keys of neither side.
    let healed = old.import(&[]);
    assert!(healed.status.success(), "{}", words(&healed));
    old.assert_all_sign();
    assert_eq!(old.host.entries("trash").len(), 2);
}

#[test]
fn directories_that_are_elsewhere_are_not_taken_for_set_aside() {
    let old = InPlace::new(plain(1), |_| {});
    let (gnupg, elsewhere) = (old.host.state().join("gnupg"), old.host.scratch().join("disk"));
    old.end_agent();
    fs::rename(&gnupg, &elsewhere).unwrap();
    symlink(&elsewhere, &gnupg).unwrap();
    for options in [&[][..], &["--dry-run"]] {
        let refused = old.import(options);
        assert_eq!(refused.status.code(), Some(1), "{}", words(&refused));
        assert!(words(&refused).contains("is a symbolic link"), "{}", words(&refused));
    }
    assert_eq!(fs::read_link(&gnupg).unwrap(), elsewhere);
    let said = words(&old.import(&[]));
    let command = said.trim().rsplit_once("in its place: ").unwrap().1;
    assert!(Command::new("sh").args(["-c", command]).status().unwrap().success(), "{command}");
    assert!(old.import(&[]).status.success());
    old.assert_all_sign();
}

#[test]
fn secret_keys_on_a_volume_that_is_not_mounted_stop_the_import() {
    let old = InPlace::new(plain(2), |_| {});
    old.end_agent();
    let secret_keys = old.host.state().join("gnupg/private-keys-v1.d");
    let volume = old.host.scratch().join("volume");
    fs::rename(&secret_keys, &volume).unwrap();
    symlink("/not/mounted", &secret_keys).unwrap();
    let (stopped, status) = report(&old.import(&["--json"]));
    assert_eq!(status, Some(1), "{stopped:#}");
    assert_eq!(values(&stopped, "left_out", "name_email"), old.ids);
    assert!(!old.host.state().join("trash").exists());
    fs::remove_file(&secret_keys).unwrap();
    fs::rename(&volume, &secret_keys).unwrap();
    let (done, status) = report(&old.import(&["--json"]));
    assert_eq!(status, Some(0), "{done:#}");
    old.assert_all_sign();
}

#[test]
fn what_an_import_did_not_make_is_not_destroyed_with_its_directory() {
    let host = Host::start(Transport::ListenUnix);
    let id = "user#project@copr.example.org";
    assert_eq!(host.gen_key(id, json!({})).unwrap().status, 201);
    let importing = host.state().join("importing/gnupg/private-keys-v1.d");
    fs::create_dir_all(&importing).unwrap();
    let precious = importing.join(format!("{}.key", "A".repeat(40)));
    fs::write(&precious, "precious").unwrap();
    let imported = host.run(&["import"]);
    assert!(imported.status.success(), "{}", words(&imported));
    let entry = host.state().join("trash").join(&host.entries("trash")[0]);
    let kept = entry.join("gnupg/private-keys-v1.d").join(precious.file_name().unwrap());
    assert_eq!(fs::read(kept).unwrap(), b"precious");
    assert!(!host.state().join("importing").exists());
}

#[test]
fn an_exchange_that_cannot_be_done_takes_the_phrases_back() {
    if !nix::unistd::geteuid().is_root() {
        println!("not run: needs root");
        return; // to mount something
    }
    let closed = "closed#project@copr.example.org".to_owned();
    let mut old = InPlace::new(plain(1), |old| {
        old.generate("", [parameters(&closed, "Passphrase: old secret\n")]);
        fs::write(old.phrases().join(&closed), "old secret\n").unwrap();
    });
    old.ids.push(closed);
    old.end_agent();
    let state = old.host.state();
    // The import would refuse an earlier mount at once, so mount this when it tries the keys.
    let mount = format!(
        r#"case "$*" in *--detach-sign*) mkdir "$here/mounted" 2>/dev/null && /bin/mount --bind '{0}' '{0}' ;; esac
        exec gpg "$@""#,
        state.join("gnupg").display()
    );
    let gpg = stand_in(&old.host, &mount);
    let command = old.host.mode(&["import"]);
    let mut import = Command::new("unshare");
    import.arg("--mount").arg(command.get_program()).arg("import").env_clear();
    import.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let failed = import.env("COPR_KEYGEN_GPG", gpg).output().unwrap();
    assert!(words(&failed).contains("is a mount point"), "{}", words(&failed));
    assert_eq!(failed.status.code(), Some(1), "{}", words(&failed));
    old.assert_all_sign();
    assert!(old.import(&[]).status.success());
    old.end_agent();
    old.assert_all_sign();
}

#[test]
fn what_a_link_in_the_old_directories_leads_to_is_not_taken_for_set_aside() {
    let old = InPlace::new(plain(1), |_| {});
    old.end_agent();
    let state = old.host.state();
    let secret_keys = state.join("gnupg/private-keys-v1.d");
    fs::rename(&secret_keys, state.join("pk")).unwrap();
    symlink("../pk", &secret_keys).unwrap();
    for options in [&["--dry-run"][..], &[]] {
        let refused = old.import(options);
        let said = words(&refused);
        assert_eq!(refused.status.code(), Some(1), "{said}");
        assert!(said.contains("private-keys-v1.d is a symbolic link"), "{said}");
    }
    let said = words(&old.import(&[]));
    let command = said.trim().rsplit_once("in its place: ").unwrap().1;
    assert!(Command::new("sh").args(["-c", command]).status().unwrap().success(), "{command}");
    // A link that leads to another file in the same directory is no obstacle.
    let phrases = state.join("phrases");
    let phrase = phrases.join(&old.ids[0]);
    fs::rename(&phrase, phrases.join(".real")).unwrap();
    symlink(".real", &phrase).unwrap();
    let done = old.import(&[]);
    assert!(done.status.success(), "{}", words(&done));
    old.assert_all_sign();
    let purged = old.host.run(&["purge", "--older-than", "0d", "--old-service", "--yes"]);
    assert!(purged.status.success(), "{}", words(&purged));
}

#[test]
fn what_a_link_led_to_is_not_said_to_be_destroyed() {
    let old = InPlace::new(plain(1), |_| {});
    assert!(old.import(&[]).status.success());
    // Set aside as by an import of an earlier version.
    let (kept, elsewhere) = (old.kept(), old.host.scratch().join("elsewhere"));
    let secret_keys = kept.join("gnupg/private-keys-v1.d");
    fs::rename(&secret_keys, &elsewhere).unwrap();
    symlink(&elsewhere, &secret_keys).unwrap();
    let purge = || old.host.run(&["purge", "--older-than", "0d", "--old-service", "--yes"]);
    let purged = purge();
    let said = words(&purged);
    assert_eq!(purged.status.code(), Some(1), "{said}");
    assert!(said.contains(elsewhere.to_str().unwrap()), "{said}");
    assert!(!said.contains("destroyed 1 entry"), "{said}");
    assert_eq!(fs::read_dir(&elsewhere).unwrap().count(), 1);
    assert!(!kept.exists());
    // The whole entry is elsewhere, because an administrator has moved it.
    symlink(&elsewhere, &kept).unwrap();
    let purged = purge();
    let said = words(&purged);
    assert_eq!(purged.status.code(), Some(1), "{said}");
    assert!(said.contains(elsewhere.to_str().unwrap()), "{said}");
    assert_eq!(fs::read_dir(&elsewhere).unwrap().count(), 1);
    assert!(purge().status.success());
}

#[test]
fn directories_that_are_mount_points_are_named_before_anything_changes() {
    if !nix::unistd::geteuid().is_root() {
        println!("not run: needs root");
        return; // to mount something
    }
    let old = InPlace::new(plain(1), |_| {});
    old.end_agent();
    let state = old.host.state();
    let command = old.host.mode(&["import"]);
    let program = command.get_program().to_str().unwrap().to_owned();
    for part in ["gnupg", "phrases"] {
        // The files are on the mounted volume, and the directory below its mount point is empty.
        let script = r#"cp -a "$1/$2" "$1/../volume"; mv "$1/$2" "$1/../below"; mkdir -m 0700 "$1/$2"
            mount --bind "$1/../volume" "$1/$2"
            for option in --dry-run --json; do
                if said=$("$3" import $option 2>&1); then echo "not refused: $said"; exit 9; fi
                echo "$said"
            done
            [ ! -e "$1/importing" ]
            [ ! -e "$1/keys" ]
            said=${said##*in its place: }
            sh -euc "$said" >&2
            mountpoint -q "$1/$2" && exit 8
            rm -r "$1/../volume" "$1/../below""#;
        let mut import = Command::new("unshare");
        import.args(["--mount", "sh", "-euc", script, "sh"]).arg(&state).args([part, &program]);
        import.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        import.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
        let output = import.output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{part}: {said} {}", words(&output));
        let named = format!("{} is a mount point", state.join(part).display());
        assert_eq!(said.matches(&named).count(), 2, "{said}");
    }
    let done = old.import(&[]);
    assert!(done.status.success(), "{}", words(&done));
    old.assert_all_sign();
}

#[test]
fn secret_keys_that_are_not_there_stop_the_import() {
    let old = InPlace::new(plain(2), |_| {});
    old.end_agent();
    let state = old.host.state();
    let (directory, aside) =
        (state.join("gnupg/private-keys-v1.d"), old.host.scratch().join("aside"));
    // The phrases of the old service were in a directory of its own.
    let phrases = old.host.scratch().join("phrases");
    fs::rename(state.join("phrases"), &phrases).unwrap();
    fs::rename(&directory, &aside).unwrap();
    let assert_stopped = |options: &[&str], reason: &str| {
        let stopped = old.import(options);
        assert_eq!(stopped.status.code(), Some(1), "{}", words(&stopped));
        let said = words(&stopped) + &String::from_utf8_lossy(&stopped.stdout);
        assert!(said.contains(reason), "{said}");
        assert!(state.join("gnupg/pubring.kbx").metadata().unwrap().len() > 0);
        assert!(!state.join("trash").exists());
    };
    symlink(old.host.scratch().join("not/mounted"), &directory).unwrap();
    assert_stopped(&["--dry-run"], "there is no secret key of it");
    assert_stopped(&[], "stays in place");
    fs::remove_file(&directory).unwrap();
    fs::create_dir(&directory).unwrap();
    assert_stopped(&["--dry-run"], "there is no secret key of it");
    assert_stopped(&[], "stays in place");
    fs::remove_dir(&directory).unwrap();
    fs::rename(&aside, &directory).unwrap();
    fs::rename(&phrases, state.join("phrases")).unwrap();
    let done = old.import(&[]);
    assert!(done.status.success(), "{}", words(&done));
    old.assert_all_sign();
}

#[test]
fn a_link_to_a_keyring_that_is_not_there_stays() {
    let old = InPlace::new(plain(1), |_| {});
    old.end_agent();
    let (keyring, aside) =
        (old.host.state().join("gnupg/pubring.kbx"), old.host.scratch().join("aside"));
    fs::rename(&keyring, &aside).unwrap();
    let elsewhere = old.host.scratch().join("not/mounted");
    symlink(&elsewhere, &keyring).unwrap();
    fs::create_dir(old.host.state().join("keys")).unwrap();
    for mode in
        [&["make", "new#project@copr.example.org", "--real", "x"][..], &["prolong"], &["serve"]]
    {
        let refused = old.host.run(mode);
        assert_eq!(refused.status.code(), Some(78), "{mode:?}: {}", words(&refused));
    }
    let refused = old.import(&[]);
    assert_eq!(refused.status.code(), Some(1), "{}", words(&refused));
    assert!(words(&refused).contains("leads nowhere"), "{}", words(&refused));
    assert_eq!(fs::read_link(&keyring).unwrap(), elsewhere);
    fs::rename(&aside, &keyring).unwrap();
    assert!(old.import(&[]).status.success());
    old.assert_all_sign();
}
