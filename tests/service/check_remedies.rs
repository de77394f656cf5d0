//! The remedies of `check`: run exactly as printed, each command makes its finding go away.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use super::check_host::{ID, OTHER, SignHost};
use super::programs;

fn write(path: &Path, content: &[u8]) {
    let _ = fs::remove_file(path);
    fs::write(path, content).unwrap();
    fs::set_permissions(path, Permissions::from_mode(0o600)).unwrap();
}

/// Returns the content of every file that a remedy has moved aside.
fn kept(sign_host: &SignHost) -> Vec<Vec<u8>> {
    let entries = sign_host.host.entries("").into_iter().filter(|name| name.starts_with("kept."));
    let directories = entries.map(|name| sign_host.path(&name));
    let files = directories.flat_map(|directory| fs::read_dir(directory).unwrap());
    let mut kept: Vec<_> = files.map(|file| fs::read(file.unwrap().path()).unwrap()).collect();
    kept.sort();
    kept
}

#[test]
fn what_check_repairs_is_repaired_by_the_command_it_prints() {
    let sign_host = SignHost::with_keys(&[ID, OTHER]);
    let home = sign_host.host.home(ID);
    fs::set_permissions(home.join("passphrase"), Permissions::from_mode(0o644)).unwrap();
    sign_host.assert_remedy_mends("passphrase", "has mode 0644");
    fs::remove_file(home.join("key.json")).unwrap();
    sign_host.assert_remedy_mends("key.json", "is missing");
    fs::remove_file(sign_host.path("phrases").join(ID)).unwrap();
    sign_host.assert_remedy_mends(ID, "the link is missing");
    fs::remove_file(sign_host.secret_link(ID)).unwrap();
    sign_host.assert_remedy_mends(".key", "signd cannot sign");
    fs::remove_dir_all(sign_host.path("pool")).unwrap();
    sign_host.assert_remedy_mends("pool", "is missing");
    fs::remove_file(sign_host.path("gnupg/gpg-agent.conf")).unwrap();
    sign_host.assert_remedy_mends("gpg-agent.conf", "is missing");
    write(&sign_host.path("gnupg/trustdb.gpg"), b"corrupt");
    sign_host.assert_remedy_mends("gnupg/trustdb.gpg", "signing fails");
    fs::remove_file(sign_host.path("gnupg/pubring.kbx")).unwrap();
    fs::create_dir(sign_host.path("gnupg/pubring.kbx")).unwrap();
    sign_host.assert_remedy_mends("gnupg/pubring.kbx", "those of another service");
    write(&home.join("trustdb.gpg"), b"corrupt");
    sign_host.assert_remedy_mends("trustdb.gpg", "can be deleted");
    let tag = super::state::tag_of_this_host(&sign_host.host);
    let dead = sign_host.path("staging").join(format!("{tag}-00000001"));
    fs::create_dir(&dead).unwrap();
    fs::set_permissions(&dead, Permissions::from_mode(0o700)).unwrap();
    sign_host.assert_remedy_mends("00000001", "was left behind");
    write(&home.join("passphrase~"), b"an old one\n");
    sign_host.assert_remedy_mends("passphrase~", "in the clear");
    // A hard link and a symbolic link to the passphrase: the command that destroys copies must spare the
    // passphrase.
    fs::hard_link(home.join("passphrase"), home.join("passphrase.old")).unwrap();
    sign_host.assert_remedy_mends("passphrase.old", "in the clear");
    symlink("passphrase", home.join("passphrase.link")).unwrap();
    sign_host.assert_remedy_mends("passphrase.link", "in the clear");
    sign_host.assert_well(&["--deep"]);
}

#[test]
fn what_may_be_an_only_copy_is_kept_by_the_command_that_moves_it_away() {
    let sign_host = SignHost::with_keys(&[ID]);
    let gnupg = sign_host.path("gnupg");
    let phrase = sign_host.path("phrases").join(ID);
    let secret = fs::read(sign_host.secret_key(ID)).unwrap();
    write(&phrase, b"precious\n");
    sign_host.assert_remedy_mends(ID, "content of its own");
    // The second time, the file that was kept the first time is not overwritten.
    write(&phrase, b"precious too\n");
    sign_host.assert_remedy_mends(ID, "content of its own");
    write(&sign_host.secret_link(ID), &secret);
    sign_host.assert_remedy_mends(".key", "or the only one");
    for odd in ["\x1b[2Jodd\n  ok", "it's $HOME \"%s\\", "\u{202e}back"] {
        write(&sign_host.path("phrases").join(odd), b"odd\n");
    }
    for shown in [r"\u{1b}[2Jodd\n  ok", "it's $HOME \"%s\\", r"\u{202e}back"] {
        sign_host.assert_remedy_mends(&format!("phrases/{shown}"), "content of its own");
    }
    write(&gnupg.join("gpg.conf"), b"digest-algo SHA1\n");
    sign_host.assert_remedy_mends("gpg.conf", "changes how everything is signed");
    write(&gnupg.join("gpg-agent.conf"), b"no-allow-loopback-pinentry\n");
    sign_host.assert_remedy_mends("gpg-agent.conf", "no-allow-loopback-pinentry");
    fs::remove_dir_all(sign_host.path("staging")).unwrap();
    write(&sign_host.path("staging"), b"a file\n");
    sign_host.assert_remedy_mends("staging", "is not a directory");
    sign_host.assert_well(&["--deep"]);
    let mut expected: Vec<&[u8]> = vec![b"precious\n", b"precious too\n", &secret, b"a file\n"];
    expected.extend([&b"odd\n"[..]; 3]);
    expected.extend([&b"digest-algo SHA1\n"[..], b"no-allow-loopback-pinentry\n"]);
    expected.sort_unstable();
    let kept = kept(&sign_host);
    // Compare only the beginning: options may have been appended to gpg-agent.conf before it was moved.
    assert_eq!(kept.len(), expected.len());
    for (kept, expected) in kept.iter().zip(expected) {
        assert!(kept.starts_with(expected), "{:?}", String::from_utf8_lossy(kept));
    }
}

#[test]
fn a_sign_conf_that_leads_astray_is_put_right_by_the_commands() {
    let mut sign_host = SignHost::with_keys(&[ID]);
    // As in an installation, all programs are in one directory.
    let directory = sign_host.host.scratch().join("bin");
    fs::create_dir(&directory).unwrap();
    sign_host.program = programs::install(&directory);
    let gpg_copr = sign_host.program.with_file_name("gpg-copr");
    symlink(&sign_host.program, &gpg_copr).unwrap();
    let text = fs::read_to_string(sign_host.sign_conf()).unwrap();
    let of_scratch = format!("gpg: {}/gpg-copr", sign_host.host.scratch().display());
    let good = text.replace(&of_scratch, &format!("gpg: {}", gpg_copr.display()));
    assert_ne!(good, text);
    let line = |name: &str| good.lines().find(|line| line.starts_with(name)).unwrap();
    for (from, to, words) in [
        (line("phrases:"), "phrases: /tmp", "our keys are elsewhere"),
        (line("phrases:"), "", "has no phrases:"),
        (line("gpg:"), "gpg: /usr/bin/gpg", "is not gpg-copr"),
        (line("gpg:"), "", "has no gpg:"),
        (line("gnupghome:"), "gnupghome: /root/.gnupg", "not our agent's home"),
        (line("gnupghome:"), "", "has no gnupghome:"),
        (line("tmpdir:"), "tmpdir: /nonexistent", "tmpdir: /nonexistent"),
        (line("pidfile:"), "pidfile: run/signd.pid", "no absolute path"),
        (line("allow:"), "allow: ::1\nserver: 192.0.2.1", "never hears"),
    ] {
        // The last line has no line feed.
        fs::write(sign_host.sign_conf(), good.replace(from, to).trim_end()).unwrap();
        sign_host.assert_remedy_mends("sign.conf", words);
    }
    fs::set_permissions(sign_host.sign_conf(), Permissions::from_mode(0o644)).unwrap();
    fs::write(sign_host.sign_conf(), good).unwrap();
    sign_host.assert_well(&[]);
}

#[test]
fn a_state_that_was_moved_away_is_put_back_by_the_command() {
    let sign_host = SignHost::with_keys(&[ID]);
    let state = sign_host.host.state();
    // As long as the state has its keys, a copy next to it is not reported.
    let aside = state.with_file_name("state.aside");
    let copied = std::process::Command::new("cp").arg("-a").args([&state, &aside]).status();
    assert!(copied.unwrap().success());
    sign_host.assert_well(&[]);
    fs::remove_dir_all(&state).unwrap();
    for part in ["", "keys", "gnupg", "gnupg/private-keys-v1.d", "phrases", "pool", "staging"] {
        fs::create_dir(state.join(part)).unwrap();
        fs::set_permissions(state.join(part), Permissions::from_mode(0o700)).unwrap();
    }
    sign_host.check(&["--repair"]).assert_failed("state.aside", "was moved away", "mv -T ");
    sign_host.assert_remedy_mends("state.aside", "keys that exist would be made anew");
    sign_host.assert_well(&["--deep"]);
    assert!(state.with_file_name("state.empty").is_dir());

    // The state inside the new one: `mv` does that if its target is an existing directory.
    let outer = sign_host.host.scratch().join("outer");
    fs::rename(state.with_file_name("state.empty"), &outer).unwrap();
    fs::rename(&state, outer.join("state.new")).unwrap();
    fs::rename(&outer, &state).unwrap();
    sign_host.assert_remedy_mends("state.new", "inside of this one");
    sign_host.assert_well(&["--deep"]);
}

#[test]
fn no_command_takes_keys_out_of_use() {
    let sign_host = SignHost::with_keys(&[ID]);
    let (state, keys) = (sign_host.host.state(), sign_host.path("keys"));
    let assert_is_prose = |subject: &str, words: &str| {
        let found = sign_host.check(&[]);
        let line = found.line("failed", subject, words);
        let line = line.or_else(|| found.line("warning", subject, words));
        let line = line.unwrap_or_else(|| panic!("{subject}: {words}: {found:#?}"));
        assert_eq!(line["is_command"], false, "{line}");
    };
    let inner = state.join("copy");
    fs::create_dir(&inner).unwrap();
    let copied = std::process::Command::new("cp").arg("-a").args([&keys, &inner]).status();
    assert!(copied.unwrap().success());
    assert_is_prose("copy", "inside of this one");
    fs::remove_dir_all(&inner).unwrap();
    // keys/ was moved to another disk, and a symbolic link replaces it.
    let elsewhere = state.with_file_name("elsewhere");
    fs::rename(&keys, &elsewhere).unwrap();
    symlink(&elsewhere, &keys).unwrap();
    assert_is_prose("keys", "is not a directory");
    fs::remove_file(&keys).unwrap();
    fs::rename(&elsewhere, &keys).unwrap();
    sign_host.assert_well(&["--deep"]);
}

#[test]
fn a_remedy_names_the_configuration_file_of_the_run() {
    let sign_host = SignHost::with_keys(&[ID]);
    let file = sign_host.host.scratch().join("of this run.toml");
    fs::write(&file, format!("state_dir = \"{}\"\n", sign_host.host.state().display())).unwrap();
    fs::remove_file(sign_host.host.home(ID).join("key.json")).unwrap();
    let mut check = sign_host.command(&sign_host.program);
    check.env_remove("COPR_KEYGEN_STATE_DIR").args(["check", "--no-units", "--config"]).arg(&file);
    let page = check.output().unwrap();
    let page = String::from_utf8_lossy(&page.stdout);
    let expected = format!("copr-keygen check --repair --config '{}'\n", file.display());
    assert!(page.contains(&expected), "{page}");
}

#[test]
fn no_line_of_sign_conf_is_printed_that_it_cannot_hold() {
    let sign_host = SignHost::with_keys(&[ID]);
    let odd = sign_host.host.scratch().join("a b");
    fs::rename(sign_host.host.state(), &odd).unwrap();
    let mut check = sign_host.command(&sign_host.program);
    check.env("COPR_KEYGEN_STATE_DIR", &odd).args(["check", "--no-units", "--sign-conf"]);
    let page = check.arg(sign_host.sign_conf()).output().unwrap();
    let page = String::from_utf8_lossy(&page.stdout);
    assert!(page.contains("sign.conf can name no path with white space"), "{page}");
    assert!(!page.contains(">>"), "{page}");
}
