//! `check` on what obs-signd sees: links, strange files, leftovers. No file with content of its own is
//! removed.

use std::fs;
use std::os::unix::fs::symlink;

use nix::fcntl::{Flock, FlockArg};

use super::check_host::{ID, OTHER, SignHost};
use super::host::DoneWhenDropped;

#[test]
fn missing_and_wrong_links_are_made_right() {
    let sign_host = SignHost::with_keys(&[ID, OTHER]);
    let phrase = sign_host.path("phrases").join(ID);
    let secret = sign_host.secret_link(ID);
    let (phrase_name, secret_name) = (format!("phrases/{ID}"), secret.file_name().unwrap());
    let secret_name = secret_name.to_str().unwrap();

    fs::remove_file(&phrase).unwrap();
    sign_host.check(&[]).assert_failed(&phrase_name, "signd does not know", "check --repair");
    sign_host.assert_mended(&phrase_name, ID);
    fs::remove_file(&secret).unwrap();
    sign_host.check(&[]).assert_failed(secret_name, "signd cannot sign", "check --repair");
    sign_host.assert_mended(secret_name, ID);

    for (link, name) in [(&phrase, phrase_name.as_str()), (&secret, secret_name)] {
        fs::remove_file(link).unwrap();
        symlink("/etc/hostname", link).unwrap();
        sign_host.check(&[]).assert_failed(name, "leads elsewhere", "check --repair");
        sign_host.assert_mended(name, ID);
    }

    // Remove all links, as if keys/ alone had been restored from a backup.
    for directory in ["phrases", "gnupg/private-keys-v1.d"] {
        for entry in fs::read_dir(sign_host.path(directory)).unwrap() {
            fs::remove_file(entry.unwrap().path()).unwrap();
        }
    }
    let repaired = sign_host.check(&["--repair"]);
    let subjects: Vec<_> = repaired
        .lines
        .iter()
        .filter(|line| line["level"] == "repaired")
        .map(|line| line["subject"].as_str().unwrap().starts_with("phrases/"))
        .collect();
    assert_eq!(subjects, [false, false, true, true], "phrases come last");
    sign_host.assert_mended_nothing();
}

impl SignHost {
    fn assert_mended_nothing(&self) {
        let again = self.check(&["--repair", "--deep"]);
        assert!(!again.has("repaired", "", ""), "{again:#?}");
        self.assert_well(&["--deep"]);
    }
}

#[test]
fn a_service_that_makes_keys_meanwhile_is_well() {
    let sign_host = SignHost::with_keys(&[]);
    let done = std::sync::atomic::AtomicBool::new(false);
    let order = std::sync::atomic::Ordering::SeqCst;
    std::thread::scope(|scope| {
        let guard = DoneWhenDropped(&done);
        let makers: Vec<_> = (0..3)
            .map(|maker| {
                let host = &sign_host.host;
                scope.spawn(move || {
                    for number in 0..5 {
                        let id = format!("user#made{maker}-{number}@copr.example.org");
                        let made = host.gen_key_patiently(&id, &serde_json::json!({}));
                        assert_eq!(made.status, 201, "{}", host.log());
                    }
                })
            })
            .collect();
        let checker = scope.spawn(|| {
            let mut checks = 0;
            while checks < 3 || !done.load(order) {
                let arguments = [&[][..], &["--repair"], &["--deep"]][checks % 3];
                sign_host.assert_well(arguments);
                checks += 1;
            }
        });
        let made: Vec<_> = makers.into_iter().map(|maker| maker.join()).collect();
        drop(guard);
        checker.join().unwrap();
        assert!(made.iter().all(Result::is_ok));
    });
    assert_eq!(sign_host.host.entries("phrases").len(), 15);
    sign_host.assert_well(&["--deep"]);
}

#[test]
fn a_key_in_the_trash_is_no_concern() {
    let sign_host = SignHost::with_keys(&[ID, OTHER]);
    for arguments in [&["remove", "--yes", ID][..], &["undo", ID]] {
        sign_host.keygen(arguments);
        sign_host.assert_well(&["--deep"]);
    }
    // As if a removal had been interrupted after it removed the links.
    for link in [sign_host.path("phrases").join(ID), sign_host.secret_link(ID)] {
        fs::remove_file(link).unwrap();
    }
    sign_host.assert_mended(ID, ID);
}

#[test]
fn links_of_no_key_are_removed() {
    let sign_host = SignHost::with_keys(&[ID]);
    let nobody = "user#nobody@copr.example.org";
    let grip = format!("{}.key", "A".repeat(40));
    let phrase = sign_host.path("phrases").join(nobody);
    let elsewhere = sign_host.path("phrases/elsewhere");
    let secret = sign_host.path("gnupg/private-keys-v1.d").join(&grip);
    let lock = sign_host.path("phrases").join(format!("{ID}.lock"));
    symlink(format!("../keys/{nobody}/passphrase"), &phrase).unwrap();
    symlink("/etc/hostname", &elsewhere).unwrap();
    symlink(format!("../../keys/{ID}/private-keys-v1.d/{grip}"), &secret).unwrap();
    fs::write(&lock, "").unwrap();

    let found = sign_host.check(&[]);
    found.assert_failed(&format!("phrases/{nobody}"), "is of no key", "check --repair");
    found.assert_failed("phrases/elsewhere", "leads to /etc/hostname", "check --repair");
    found.assert_failed(&grip, "is of no key", "check --repair");
    found.assert_failed(".lock", "signd takes for a user", "check --repair");
    sign_host.assert_mended(".lock", ID);
    for path in [phrase, elsewhere, secret, lock] {
        assert!(fs::symlink_metadata(&path).is_err(), "{}", path.display());
    }
}

#[test]
fn a_file_with_content_is_never_removed() {
    let sign_host = SignHost::with_keys(&[ID, OTHER]);
    let phrase = sign_host.path("phrases").join(ID);
    let secret = sign_host.secret_link(ID);
    let orphan = sign_host.path("gnupg/private-keys-v1.d").join(format!("{}.key", "A".repeat(40)));
    let stranger = sign_host.path("phrases/user_old");

    // A copy of the passphrase in place of the link: nothing is lost with it.
    let copy = fs::read(&phrase).unwrap();
    fs::remove_file(&phrase).unwrap();
    fs::write(&phrase, copy).unwrap();
    sign_host.check(&[]).assert_failed(ID, "with nothing of its own", "check --repair");
    sign_host.assert_mended(ID, ID);
    assert!(fs::symlink_metadata(&phrase).unwrap().is_symlink());

    let bytes = fs::read(&secret).unwrap();
    for path in [&phrase, &secret] {
        fs::remove_file(path).unwrap();
    }
    for (path, content) in
        [(&phrase, &b"precious\n"[..]), (&secret, &bytes), (&orphan, b"key"), (&stranger, b"1\n")]
    {
        fs::write(path, content).unwrap();
        let private = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        fs::set_permissions(path, private).unwrap();
    }
    for arguments in [&[][..], &["--repair", "--deep"]] {
        let found = sign_host.check(arguments);
        found.assert_failed(&format!("phrases/{ID}"), "content of its own", "mv ");
        found.assert_failed("user_old", "content of its own", "mv ");
        let name = secret.file_name().unwrap().to_str().unwrap();
        found.assert_failed(name, "or the only one", "mv ");
        let name = orphan.file_name().unwrap().to_str().unwrap();
        found.assert_failed(name, "somebody's only one", "import --from");
    }
    assert_eq!(fs::read(&phrase).unwrap(), b"precious\n");
    assert_eq!(fs::read(&secret).unwrap(), bytes);
    assert_eq!(fs::read(&orphan).unwrap(), b"key");
    assert_eq!(fs::read(&stranger).unwrap(), b"1\n");

    // The remedy: move them away.
    for (number, path) in [&phrase, &secret, &orphan, &stranger].into_iter().enumerate() {
        fs::rename(path, sign_host.host.scratch().join(format!("away{number}"))).unwrap();
    }
    sign_host.assert_mended(&format!("phrases/{ID}"), ID);
}

#[test]
fn the_links_of_a_damaged_home_wait_for_it() {
    let sign_host = SignHost::with_keys(&[ID]);
    let away = sign_host.host.scratch().join("away");
    let secret = sign_host.secret_link(ID);
    for file in ["passphrase", "private-keys-v1.d"] {
        let path = sign_host.host.home(ID).join(file);
        fs::rename(&path, &away).unwrap();
        let found = sign_host.check(&["--repair"]);
        found.assert_failed(file, "is missing", "from a backup");
        assert!(fs::symlink_metadata(&secret).is_ok(), "{file}");
        assert_eq!(sign_host.host.entries("phrases"), [ID], "{file}");
        fs::rename(&away, &path).unwrap();
    }
    sign_host.assert_well(&["--deep"]);
}

#[test]
fn names_that_speak_to_terminals_are_shown_as_they_are() {
    let sign_host = SignHost::with_keys(&[ID]);
    let odd = "\x1b[2Jodd\n  ok";
    fs::create_dir(sign_host.path("keys").join(odd)).unwrap();
    fs::write(sign_host.path("phrases").join(odd), "x").unwrap();
    symlink(odd, sign_host.path("phrases/link")).unwrap();
    let found = sign_host.check(&[]);
    let shown = r"\u{1b}[2Jodd\n  ok";
    assert!(found.has("note", &format!("keys/{shown}"), "is no name of an identity"), "{found:#?}");
    found.assert_failed(&format!("phrases/{shown}"), "content of its own", "mv ");
    found.assert_failed("phrases/link", &format!("leads to {shown}"), "check --repair");
    for line in &found.lines {
        for text in [&line["subject"], &line["message"], &line["remedy"]] {
            assert!(!text.as_str().unwrap_or_default().contains(char::is_control), "{line}");
        }
    }
}

#[test]
fn work_of_dead_processes_is_told_from_that_of_others() {
    let sign_host = SignHost::with_keys(&[ID]);
    let staging = sign_host.path("staging");
    let tag = super::state::tag_of_this_host(&sign_host.host);
    let (dead, alive) = (staging.join(format!("{tag}-00000001")), staging.join(format!("{tag}-2")));
    let foreign = staging.join("anotherhost-00000003");
    let grip = format!("{}.key", "B".repeat(40));
    for directory in [&dead, &alive, &foreign] {
        let made = std::process::Command::new("mkdir").args(["-m", "700"]).arg(directory).status();
        assert!(made.unwrap().success());
    }
    // A key that is being made has its link before it has its home.
    let secret = alive.join("h/private-keys-v1.d");
    fs::create_dir_all(&secret).unwrap();
    fs::write(secret.join(&grip), "key").unwrap();
    let link = sign_host.path("gnupg/private-keys-v1.d").join(&grip);
    symlink(format!("../../keys/{OTHER}/private-keys-v1.d/{grip}"), &link).unwrap();
    let held = fs::File::open(&alive).unwrap();
    let held = Flock::lock(held, FlockArg::LockExclusiveNonblock).unwrap();

    let found = sign_host.check(&[]);
    assert_eq!(found.code, Some(0), "{found:#?}");
    assert!(found.has("warning", &format!("{tag}-00000001"), "left behind"), "{found:#?}");
    assert!(found.has("note", "staging", "of another host (anotherhost)"), "{found:#?}");
    let remedy = format!("gone for good: rm -r {}", foreign.display());
    assert!(found.has("note", "staging", &remedy), "{found:#?}");
    let whole = staging.join("foreign");
    fs::create_dir(&whole).unwrap();
    let named = sign_host.check(&[]);
    let remedy = format!("gone for good: rm -r {}", whole.display());
    assert!(named.has("note", "staging", &remedy), "{named:#?}");
    fs::remove_dir(&whole).unwrap();
    assert!(found.has("note", "staging", "1 process is at work"), "{found:#?}");
    let repaired = sign_host.check(&["--repair"]);
    assert!(repaired.has("repaired", "staging", "1 unfinished key"), "{repaired:#?}");
    assert!(!dead.exists() && alive.exists() && foreign.exists());
    assert!(fs::symlink_metadata(&link).is_ok(), "the link of a key in the making is gone");
    drop(held);
    sign_host.check(&["--repair"]);
    assert!(!alive.exists() && fs::symlink_metadata(&link).is_err());
    assert_eq!(sign_host.host.entries("staging"), ["anotherhost-00000003"]);
}

#[test]
fn trust_databases_and_shared_keyrings_are_named() {
    let sign_host = SignHost::with_keys(&[ID]);
    let in_home = sign_host.host.home(ID).join("trustdb.gpg");
    let private = || std::os::unix::fs::PermissionsExt::from_mode(0o600);
    for path in [sign_host.path("gnupg/trustdb.gpg"), in_home.clone()] {
        fs::write(&path, "corrupt").unwrap();
        fs::set_permissions(&path, private()).unwrap();
    }
    let found = sign_host.check(&[]);
    found.assert_failed("gnupg/trustdb.gpg", "signing fails", "check --repair");
    assert!(found.has("warning", &format!("{ID}/trustdb.gpg"), "can be deleted"), "{found:#?}");

    // Next to the keyring of another service, the trust database belongs to that service.
    let shared = sign_host.path("gnupg/pubring.gpg");
    fs::write(&shared, "keys of old").unwrap();
    fs::set_permissions(&shared, private()).unwrap();
    for arguments in [&[][..], &["--repair"]] {
        let found = sign_host.check(arguments);
        found.assert_failed(
            "gnupg/pubring.gpg",
            "holds keys that no home has",
            "copr-keygen import",
        );
        assert!(!found.has("repaired", "gnupg/trustdb.gpg", ""), "{found:#?}");
        assert!(sign_host.path("gnupg/trustdb.gpg").exists() && shared.exists());
    }
    fs::remove_file(shared).unwrap();
    let repaired = sign_host.check(&["--repair"]);
    assert!(repaired.has("repaired", "gnupg/trustdb.gpg", ""), "{repaired:#?}");
    assert!(!sign_host.path("gnupg/trustdb.gpg").exists());
    assert!(in_home.exists());
    fs::remove_file(in_home).unwrap();
    fs::write(sign_host.path("gnupg/trustdb.gpg"), "corrupt").unwrap();
    sign_host.assert_mended("gnupg/trustdb.gpg", ID);
}

#[test]
fn what_misleads_the_agent_is_named() {
    let sign_host = SignHost::with_keys(&[ID]);
    let gnupg = sign_host.path("gnupg");
    fs::write(gnupg.join("gpg.conf"), "digest-algo SHA1\n").unwrap();
    let conf = gnupg.join("gpg-agent.conf");
    let text = fs::read_to_string(&conf).unwrap();
    fs::write(&conf, format!("{text} no-allow-loopback-pinentry\n")).unwrap();
    let found = sign_host.check(&["--repair"]);
    found.assert_failed("gnupg/gpg.conf", "changes how everything is signed", "mv ");
    found.assert_failed("gnupg/gpg-agent.conf", "keeps signd from giving passphrases", "mv ");
    fs::remove_file(gnupg.join("gpg.conf")).unwrap();
    // gpg reads the first of these files that exists, and gpg.conf only if none does.
    for name in ["gpg.conf-2.2.40", "gpg.conf-2.2", "gpg.conf-2"] {
        fs::write(gnupg.join(name), "agent-program /bin/false\n").unwrap();
        let found = sign_host.check(&[]);
        let subject = format!("gnupg/{name}");
        found.assert_failed(&subject, "changes how everything is signed", "mv ");
        fs::remove_file(gnupg.join(name)).unwrap();
    }
    fs::remove_file(conf).unwrap();
    sign_host.check(&["--repair"]);
    sign_host.assert_well(&[]);
}
