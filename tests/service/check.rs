//! `check` on the homes of keys, each broken on purpose. `check` prints a line with a remedy. `--repair`
//! mends what can be mended, and afterwards the key signs.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::process::Command;

use serde_json::Value;

use super::check_host::{ID, OTHER, SignHost, snapshot};
use super::host::{Host, Transport};

#[test]
fn a_host_that_is_well_is_told_so_and_left_as_it_is() {
    let sign_host = SignHost::with_keys(&[ID, OTHER]);
    let before = snapshot(&sign_host.host.state());
    sign_host.assert_well(&[]);
    sign_host.assert_well(&["--deep"]);
    let (code, page) = sign_host.page(&["--deep"]);
    assert_eq!(code, Some(0), "{page}");
    assert!(page.ends_with("\nThis host is well.\n") && !page.contains('\x1b'), "{page}");
    for words in [
        "state_dir: ",
        "(environment variable COPR_KEYGEN_STATE_DIR)",
        "gpg-agent: version 2.",
        "neither haveged nor rngd is needed",
        "2 keys: every certificate is whole, every secret key signs",
        "2 keys, each with both links, and no others",
        "signd answers",
        "copr-keygen answers",
        "not under systemd",
        "none expires within a year",
        "signs by the agent in gnupg/, verified apart",
    ] {
        assert!(page.contains(words), "{words}: {page}");
    }
    // Settings that have their default value are not listed.
    assert!(!page.contains("the default") && !page.contains("idle_timeout"), "{page}");
    assert_eq!(snapshot(&sign_host.host.state()), before);
    sign_host.assert_well(&["--repair"]);
    assert_eq!(snapshot(&sign_host.host.state()), before, "there was nothing to repair");
}

#[test]
fn without_repair_nothing_is_changed_however_bad_it_is() {
    let sign_host = SignHost::with_keys(&[ID, OTHER]);
    let home = sign_host.host.home(ID);
    fs::remove_file(home.join("key.json")).unwrap();
    fs::set_permissions(home.join("passphrase"), Permissions::from_mode(0o644)).unwrap();
    fs::remove_file(sign_host.path("phrases").join(OTHER)).unwrap();
    fs::write(sign_host.path("phrases/x.lock"), "").unwrap();
    fs::write(sign_host.path("gnupg/trustdb.gpg"), "").unwrap();
    fs::remove_dir(sign_host.path("pool")).unwrap();
    let before = snapshot(&sign_host.host.state());
    for arguments in [&[][..], &["--deep"]] {
        assert_eq!(sign_host.check(arguments).code, Some(1));
        assert_eq!(snapshot(&sign_host.host.state()), before);
    }
    sign_host.assert_mended("key.json", ID);
}

#[test]
fn modes_that_let_others_in_are_mended() {
    let sign_host = SignHost::with_keys(&[ID]);
    let home = format!("keys/{ID}");
    let secret = sign_host.secret_key(ID);
    let secret = secret.strip_prefix(sign_host.host.state()).unwrap().to_str().unwrap();
    let cases = [
        ("keys", 0o755, "0755 instead of 0700"),
        ("gnupg/gpg-agent.conf", 0o664, "0664 instead of 0600"),
        (&home, 0o750, "0750 instead of 0700"),
        (&format!("{home}/passphrase"), 0o644, "0644 instead of 0600"),
        (&format!("{home}/openpgp-revocs.d"), 0o777, "0777 instead of 0700"),
        (secret, 0o604, "0604 instead of 0600"),
        // Closed even to the owner.
        (&format!("{home}/private-keys-v1.d"), 0o000, "0000 instead of 0700"),
    ];
    for (path, mode, words) in cases {
        let full = sign_host.path(path);
        fs::set_permissions(&full, Permissions::from_mode(mode)).unwrap();
        sign_host.check(&[]).assert_failed(path, words, "check --repair");
        sign_host.assert_mended(path, ID);
    }
}

#[test]
fn what_belongs_to_somebody_else_is_given_back_by_root() {
    let mut sign_host = SignHost::with_keys(&[ID]);
    if !nix::unistd::geteuid().is_root() {
        // Only root can give files away. Other users test that a state of somebody else is reported: /tmp
        // belongs to root.
        let mut foreign = SignHost::around(Host::new(Transport::ListenUnix, &[]));
        foreign.set("COPR_KEYGEN_STATE_DIR", "/tmp");
        foreign.check(&[]).assert_failed("/tmp", "belongs to root", "run check as root");
        return;
    }
    let home = format!("keys/{ID}");
    for path in ["gnupg", &home, &format!("{home}/pubring.kbx"), &format!("{home}/key.json")] {
        chown(sign_host.path(path), Some(65534), Some(65534)).unwrap();
        let found = sign_host.check(&[]);
        found.assert_failed(path, "not to root", "copr-keygen check --repair");
        sign_host.assert_mended(path, ID);
        assert_eq!(fs::metadata(sign_host.path(path)).unwrap().uid(), 0);
    }

    // A state that belongs to another user: run by root, `check` becomes that user, and no file belongs to
    // root afterwards.
    let state = sign_host.host.state();
    let chowned = Command::new("chown").args(["-R", "65534:65534"]).arg(state).status();
    assert!(chowned.unwrap().success());
    fs::set_permissions(sign_host.host.scratch(), Permissions::from_mode(0o777)).unwrap();
    // The directory of the build may be closed to that user, so copy the program from there.
    let link = sign_host.host.scratch().join("gpg-copr");
    let copy = super::programs::install(sign_host.host.scratch());
    fs::remove_file(&link).unwrap();
    symlink(&copy, &link).unwrap();
    sign_host.program = copy;
    sign_host.assert_well(&["--deep"]);
    fs::remove_file(sign_host.host.home(ID).join("key.json")).unwrap();
    chown(sign_host.host.home(ID), Some(0), Some(0)).unwrap();
    let repaired = sign_host.check(&["--repair", "--deep"]);
    assert_eq!(repaired.code, Some(0), "{repaired:#?}");
    assert!(repaired.has("repaired", ID, "belongs to root"), "{repaired:#?}");
    assert!(repaired.has("repaired", "key.json", "is missing"), "{repaired:#?}");
    let roots = snapshot(&sign_host.host.state());
    let links = |line: &String| line.starts_with("120777 ");
    let roots: Vec<_> =
        roots.iter().filter(|(_, line)| line.contains(" 0 ") && !links(line)).collect();
    assert_eq!(roots, []);
    sign_host.assert_well(&["--deep"]);
}

#[test]
fn a_link_leads_no_repair_out_of_the_state() {
    let sign_host = SignHost::with_keys(&[ID]);
    let victim = sign_host.host.scratch().join("victim");
    fs::create_dir(&victim).unwrap();
    fs::write(victim.join("passphrase"), "precious").unwrap();
    for path in [victim.clone(), victim.join("passphrase")] {
        fs::set_permissions(path, Permissions::from_mode(0o755)).unwrap();
    }
    let before = snapshot(&victim);
    symlink(&victim, sign_host.path("keys").join(OTHER)).unwrap();
    symlink(victim.join("passphrase"), sign_host.host.home(ID).join("strange")).unwrap();
    let found = sign_host.check(&["--repair", "--deep"]);
    found.assert_failed(&format!("keys/{OTHER}"), "is not a directory", "restore");
    assert!(found.has("note", "strange", "does not belong into a home"), "{found:#?}");
    assert_eq!(snapshot(&victim), before);

    for part in ["staging", "pool", "keys", "phrases", "gnupg"] {
        let (path, away) = (sign_host.path(part), sign_host.host.scratch().join("away"));
        fs::rename(&path, &away).unwrap();
        symlink(&victim, &path).unwrap();
        let found = sign_host.check(&["--repair", "--deep"]);
        found.assert_failed(part, "is not a directory", "mv ");
        assert_eq!(snapshot(&victim), before, "{part}");
        fs::remove_file(&path).unwrap();
        fs::rename(&away, &path).unwrap();
    }
}

#[test]
fn a_half_deleted_home_is_named_and_left_alone() {
    let sign_host = SignHost::with_keys(&[ID, OTHER]);
    let secret = sign_host.secret_key(ID);
    let secret = secret.strip_prefix(sign_host.host.home(ID)).unwrap().to_str().unwrap();
    for file in ["pubring.kbx", "passphrase", secret] {
        let path = sign_host.host.home(ID).join(file);
        let away = sign_host.host.scratch().join("away");
        fs::rename(&path, &away).unwrap();
        let before = snapshot(&sign_host.host.state());
        let found = sign_host.check(&["--repair", "--deep"]);
        found.assert_failed(&format!("keys/{ID}/{file}"), "is missing", "from a backup");
        assert_eq!(snapshot(&sign_host.host.state()), before, "{file}");
        fs::write(&path, "").unwrap();
        let found = sign_host.check(&[]);
        found.assert_failed(&format!("keys/{ID}/{file}"), "is empty", "from a backup");
        fs::rename(&away, &path).unwrap();
        sign_host.assert_well(&[]);
    }
    fs::remove_dir_all(sign_host.host.home(ID).join("openpgp-revocs.d")).unwrap();
    let found = sign_host.check(&[]);
    assert!(found.has("warning", "openpgp-revocs.d", "signs without it"), "{found:#?}");
    assert_eq!(found.code, Some(0));
}

#[test]
fn a_wrong_record_is_written_anew() {
    let sign_host = SignHost::with_keys(&[ID, OTHER]);
    let record = sign_host.host.home(ID).join("key.json");
    let good = fs::read_to_string(&record).unwrap();
    let other = fs::read_to_string(sign_host.host.home(OTHER).join("key.json")).unwrap();
    for (bad, words) in [
        (None, "is missing"),
        (Some(""), "cannot be understood"),
        (Some("{\"fingerprint\": 5}"), "cannot be understood"),
        (Some(&*other), "names another secret key"),
    ] {
        fs::remove_file(&record).unwrap();
        if let Some(bad) = bad {
            fs::write(&record, bad).unwrap();
            fs::set_permissions(&record, Permissions::from_mode(0o600)).unwrap();
        }
        sign_host.check(&[]).assert_failed(&format!("{ID}/key.json"), words, "check --repair");
        sign_host.assert_mended("key.json", ID);
        let same = |text: &str| {
            let mut value: Value = serde_json::from_str(text).unwrap();
            value["changed"].take();
            value
        };
        assert_eq!(same(&fs::read_to_string(&record).unwrap()), same(&good));
    }
    // Only gpg can read the expiry from the certificate, so only `--deep` finds this.
    let wrong = good.replace("\"expires\":null", "\"expires\":4000000000");
    assert_ne!(wrong, good);
    fs::write(&record, wrong).unwrap();
    sign_host.assert_well(&[]);
    sign_host.check(&["--deep"]).assert_failed(
        "key.json",
        "the certificate says never",
        "--repair",
    );
    let repaired = sign_host.check(&["--deep", "--repair"]);
    assert!(repaired.has("repaired", "key.json", "the certificate says never"), "{repaired:#?}");
    sign_host.assert_well(&["--deep"]);
}

#[test]
fn a_deep_check_finds_what_cannot_sign() {
    let sign_host = SignHost::with_keys(&[ID, OTHER]);
    let (home, other) = (sign_host.host.home(ID), sign_host.host.home(OTHER));
    let swap = |file: &str| {
        let good = fs::read(home.join(file)).unwrap();
        fs::write(home.join(file), fs::read(other.join(file)).unwrap()).unwrap();
        good
    };
    let subject = format!("keys/{ID}");
    for (file, words, remedy) in [
        ("passphrase", "Bad passphrase", "the file passphrase is not the one of this key"),
        ("pubring.kbx", "is the certificate of another secret key", "from a backup"),
    ] {
        let good = swap(file);
        sign_host.assert_well(&[]);
        let found = sign_host.check(&["--deep", "--repair"]);
        found.assert_failed(&subject, words, remedy);
        assert!(!found.has("failed", OTHER, ""), "{found:#?}");
        assert_eq!(sign_host.host.entries("staging"), [""; 0]);
        fs::write(home.join(file), good).unwrap();
    }
    let secret = sign_host.secret_key(ID);
    let good = fs::read(&secret).unwrap();
    fs::write(&secret, &good[..good.len() / 2]).unwrap();
    sign_host.check(&["--deep"]).assert_failed(&subject, "cannot be used", "from a backup");
    fs::write(&secret, good).unwrap();

    let renamed = "user#renamed@copr.example.org";
    fs::rename(&home, sign_host.host.home(renamed)).unwrap();
    sign_host.check(&["--repair"]);
    let found = sign_host.check(&["--deep"]);
    assert!(found.has("failed", renamed, "no user ID"), "{found:#?}");
}

#[test]
fn one_secret_key_of_two_identities_is_named_under_both() {
    let sign_host = SignHost::with_keys(&[ID, OTHER]);
    let (home, copy) = (sign_host.host.home(ID), sign_host.host.home(OTHER));
    fs::remove_dir_all(&copy).unwrap();
    let copied = Command::new("cp").arg("-a").args([&home, &copy]).status().unwrap();
    assert!(copied.success());
    for arguments in [&[][..], &["--repair"], &["--deep"]] {
        let found = sign_host.check(arguments);
        for (one, other) in [(ID, OTHER), (OTHER, ID)] {
            let words = format!("holds the same secret key as {other}");
            found.assert_failed(&format!("keys/{one}"), &words, "outside of keys/");
        }
    }
    fs::remove_dir_all(&copy).unwrap();
    sign_host.check(&["--repair"]);
    sign_host.assert_well(&["--deep"]);
}
