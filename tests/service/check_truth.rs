//! `check` tells the truth: it makes a signature, does not fail where nothing is wrong, and prints no more
//! than it is asked for.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

use super::check_host::{ID, OTHER, SignHost, snapshot};
use super::programs::write_script;

/// Returns a command that runs copr-keygen with these arguments and an /etc of its own, with these files in
/// /etc/gnupg.
fn with_etc(sign_host: &SignHost, files: &[(&str, &str)], words: &[&str]) -> Command {
    let etc = sign_host.host.scratch().join("etc");
    fs::create_dir_all(etc.join("gnupg")).unwrap();
    for (name, text) in files {
        fs::write(etc.join("gnupg").join(name), text).unwrap();
    }
    let script = r#"cp -r /etc/. "$1" 2>/dev/null; mount --bind "$1" /etc && shift && exec "$@""#;
    let mut unshare = sign_host.command(Path::new("unshare"));
    unshare.arg("--mount");
    if !nix::unistd::geteuid().is_root() {
        unshare.args(["--user", "--map-root-user"]);
    }
    unshare.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").args(["sh", "-c", script, "sh"]).arg(etc);
    unshare.arg(&sign_host.program).args(words);
    unshare
}

#[test]
fn a_host_that_looks_well_and_cannot_sign_is_not_well() {
    let sign_host = SignHost::with_keys(&[ID, OTHER]);
    let staging = || fs::metadata(sign_host.path("staging")).unwrap().modified().unwrap();
    let alive = staging();
    let found = sign_host.check(&[]);
    assert!(found.has("ok", "", "signs by the agent in gnupg/"), "{found:#?}");
    assert_eq!(staging(), alive, "who only looks gives no sign of life");
    // With two passphrases swapped, every file is there. Only an attempt to sign shows that they do not fit
    // their keys.
    let passphrases = [ID, OTHER].map(|id| sign_host.host.home(id).join("passphrase"));
    let good = passphrases.each_ref().map(|path| fs::read(path).unwrap());
    fs::write(&passphrases[0], &good[1]).unwrap();
    fs::write(&passphrases[1], &good[0]).unwrap();
    let before = snapshot(&sign_host.host.state());
    let found = sign_host.check(&[]);
    found.assert_failed("copr.example.org", "cannot sign as signd does", "check --deep");
    assert!(found.has("failed", "", "Bad passphrase"), "{found:#?}");
    assert_eq!(snapshot(&sign_host.host.state()), before);
    for (path, content) in passphrases.iter().zip(good) {
        fs::write(path, content).unwrap();
    }
    sign_host.assert_well(&["--deep"]);
}

#[test]
fn a_key_that_is_removed_while_it_is_tried_is_no_failure() {
    let mut sign_host = SignHost::with_keys(&[ID]);
    let (home, gpg) = (sign_host.host.home(ID), sign_host.host.scratch().join("gpg"));
    let aside = sign_host.host.scratch().join("aside");
    let phrase = sign_host.path("phrases").join(ID);
    let removal = format!(
        "mv '{}' '{}' && rm '{}' '{}'",
        home.display(),
        aside.display(),
        phrase.display(),
        sign_host.secret_link(ID).display()
    );
    let signs = format!("case \"$*\" in *--detach-sign*) {removal} ;; esac");
    write_script(&gpg, &format!("{signs}\nexec /usr/bin/gpg \"$@\""));
    sign_host.set("COPR_KEYGEN_GPG", gpg.to_str().unwrap());
    let found = sign_host.check(&[]);
    assert!(aside.exists(), "it was not removed meanwhile");
    assert!(found.has("note", "keys", "no key that signd knows could be tried"), "{found:#?}");
    assert_eq!(found.code, Some(0), "{found:#?}");
}

#[test]
fn the_agent_that_runs_is_the_one_that_is_tried() {
    let sign_host = SignHost::with_keys(&[ID]);
    // An agent that somebody has started by hand. Its configuration is right, but it refuses passphrases.
    let mut agent = sign_host.command(Path::new("gpg-agent"));
    agent.arg("--homedir").arg(sign_host.path("gnupg"));
    agent.args(["--no-allow-loopback-pinentry", "--daemon"]).stdout(Stdio::null());
    assert!(agent.status().unwrap().success());
    let found = sign_host.check(&[]);
    found.assert_failed(ID, "cannot sign as signd does", "kill ");
    sign_host.assert_remedy_mends(ID, "cannot sign as signd does");
    sign_host.assert_well(&[]);
}

#[test]
fn a_state_that_somebody_tries_something_with_needs_no_signd() {
    if Path::new("/etc/sign.conf").exists() {
        println!("not run: this host has obs-signd");
        return;
    }
    let sign_host = SignHost::with_keys(&[ID]);
    let mut check = sign_host.command(&sign_host.program);
    check.env_remove("COPR_KEYGEN_STATE_DIR").arg("check").arg("--state-dir");
    let output = check.arg(sign_host.host.state()).output().unwrap();
    let page = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0), "{page}");
    assert!(page.contains("/etc/sign.conf: is not there, and this state is of no unit"), "{page}");
    assert!(page.contains("not under systemd") && page.ends_with("This host is well.\n"), "{page}");
}

#[test]
fn quiet_prints_nothing_but_what_is_wrong() {
    let sign_host = SignHost::with_keys(&[ID]);
    assert_eq!(sign_host.page(&["--quiet"]), (Some(0), String::new()));
    assert_eq!(sign_host.page(&["--quiet", "--json"]), (Some(0), "[]\n".into()));
    fs::remove_file(sign_host.path("phrases").join(ID)).unwrap();
    let database = sign_host.host.home(ID).join("trustdb.gpg");
    fs::write(&database, "x").unwrap();
    fs::set_permissions(database, fs::Permissions::from_mode(0o600)).unwrap();
    let (code, page) = sign_host.page(&["--quiet"]);
    assert_eq!(code, Some(1), "{page}");
    for words in ["FAILED    phrases/", "warning   keys/", "-> rm ", "1 failed, 1 warning,"] {
        assert!(page.contains(words), "{words}: {page}");
    }
    assert!(!page.contains("  ok  ") && !page.contains("  note  "), "{page}");
    assert!(!page.contains("settings\n") && !page.contains("1 warnings"), "{page}");
}

#[test]
fn colours_are_for_terminals_that_have_them_and_people_who_want_them() {
    let sign_host = SignHost::with_keys(&[ID]);
    let page = |variables: &[(&str, &str)]| {
        let program = sign_host.program.display();
        let check =
            format!("{program} check --no-units --sign-conf {}", sign_host.sign_conf().display());
        let mut terminal = sign_host.command(Path::new("script"));
        terminal.args(["--quiet", "--return", "--command", &check, "/dev/null"]);
        let output = terminal.envs(variables.iter().copied()).stdin(Stdio::null()).output();
        String::from_utf8(output.expect("script is missing; install bsdutils").stdout).unwrap()
    };
    let coloured = "\x1b[32mok";
    let found = page(&[("TERM", "xterm")]);
    assert!(found.contains(coloured), "{found}");
    assert!(page(&[("TERM", "xterm"), ("NO_COLOR", "")]).contains(coloured));
    for variables in [&[("TERM", "dumb")][..], &[("TERM", "xterm"), ("NO_COLOR", "1")]] {
        let found = page(variables);
        assert!(found.contains("This host is well") && !found.contains(coloured), "{found}");
    }
}

#[test]
fn what_the_host_tells_every_gpg_is_overruled_or_named() {
    let mut sign_host = SignHost::with_keys(&[ID]);
    // gpg-agent reads this file before the configuration in its home, and before the options that we pass.
    let refuses = ("gpg-agent.conf", "no-allow-loopback-pinentry\n");
    sign_host.set("COPR_KEYGEN_POOL", "2048:1");
    let filled = with_etc(&sign_host, &[refuses], &["fill-pool"]).output().unwrap();
    assert!(filled.status.success(), "{}", String::from_utf8_lossy(&filled.stderr));
    assert_eq!(sign_host.host.entries("pool/rsa2048").len(), 1);
    let conf = sign_host.sign_conf();
    let check = ["check", "--deep", "--no-units", "--sign-conf", conf.to_str().unwrap()];
    let output = with_etc(&sign_host, &[refuses], &check).output().unwrap();
    let page = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0), "{page}");
    // No option overrules this one.
    let keyboxd = ("common.conf", "use-keyboxd\n");
    let output = with_etc(&sign_host, &[keyboxd], &check).output().unwrap();
    let page = String::from_utf8(output.stdout).unwrap();
    assert!(page.contains("/etc/gnupg/common.conf: says use-keyboxd"), "{page}");
    assert!(page.contains("-> sed -i "), "{page}");
}

#[test]
fn an_option_for_every_gpg_of_the_host_is_named() {
    let sign_host = SignHost::with_keys(&[ID]);
    let conf = sign_host.sign_conf();
    let check = ["check", "--no-units", "--sign-conf", conf.to_str().unwrap()];
    let page = |text: &str| {
        let output = with_etc(&sign_host, &[("gpg.conf", text)], &check).output().unwrap();
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    };
    for text in ["import-options import-clean\n", "export-filter drop-subkey=secret==0\n"] {
        let (code, page) = page(text);
        let words = format!("/etc/gnupg/gpg.conf: says {}", text.split_once(' ').unwrap().0);
        assert!(page.contains(&words) && page.contains("-> sed -i "), "{text}: {page}");
        assert_eq!(code, Some(1), "{text}: {page}");
    }
    // This option is only a warning. It may be meant for people who use gpg.
    let (code, said) = page("no-greeting\n");
    assert!(said.contains("warning   /etc/gnupg/gpg.conf: says no-greeting"), "{said}");
    assert_eq!(code, Some(0), "{said}");
    let (code, said) = page("# default-sig-expire 1d\n\n");
    assert!(!said.contains("/etc/gnupg") && code == Some(0), "{said}");
}

#[test]
fn a_signature_lasts_whatever_the_host_tells_every_gpg() {
    let sign_host = SignHost::with_keys(&[ID]);
    let signature = sign_host.host.scratch().join("signature");
    let phrase = fs::File::open(sign_host.path("phrases").join(ID)).unwrap();
    let arguments = ["gpg", "--", "--batch", "--yes", "--pinentry-mode=loopback"];
    let more = ["--passphrase-fd=0", "-u", ID, "-o", signature.to_str().unwrap(), "-sb"];
    let words = [&arguments[..], &more, &["/etc/hostname"]].concat();
    let expires = [("gpg.conf", "default-sig-expire 1d\n")];
    let output = with_etc(&sign_host, &expires, &words).stdin(phrase).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let mut packets = Command::new("gpg");
    let packets = packets.arg("--list-packets").arg(&signature).output().unwrap();
    let packets = String::from_utf8(packets.stdout).unwrap();
    assert!(packets.contains(":signature packet:"), "{packets}");
    assert!(!packets.contains("expires after"), "{packets}");
    let prolong = ["prolong", "--within", "6y", "--by", "7y"];
    let output = with_etc(&sign_host, &expires, &prolong).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    sign_host.assert_well(&["--deep"]);
}
