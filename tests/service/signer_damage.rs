//! Damaged homes, and a state that is not what it was. `signd` answers with a sentence that names the key,
//! makes no signature, and never says `unknown key`. The other keys go on signing.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use super::certificate::succeed;
use super::host::{Host, Transport};
use super::old_host::{OldHost, plain};
use super::signer_client::{old, probe};
use super::signer_host::{ABSENT, ID, OTHER, SignerHost, host_with};

/// A copy of the home of a key, to put it back.
struct Saved {
    home: PathBuf,
    copy: PathBuf,
}

impl Saved {
    fn of(host: &SignerHost, id: &str) -> Self {
        let saved = Self { home: host.keys.home(id), copy: host.keys.scratch().join("saved") };
        succeed(Command::new("cp").arg("-a").arg(&saved.home).arg(&saved.copy));
        saved
    }

    fn bring_back(&self) {
        fs::remove_dir_all(&self.home).unwrap();
        succeed(Command::new("cp").arg("-a").arg(&self.copy).arg(&self.home));
    }
}

fn secret_key(home: &Path) -> PathBuf {
    fs::read_dir(home.join("private-keys-v1.d")).unwrap().next().unwrap().unwrap().path()
}

fn write(path: &Path, bytes: &[u8]) {
    fs::write(path, bytes).unwrap();
}

fn cut(path: &Path, part: usize) {
    let bytes = fs::read(path).unwrap();
    write(path, &bytes[..bytes.len() * part / 100]);
}

/// A name, the damage to a home, and words of the refusal.
type Damage<'a> = (&'a str, &'a dyn Fn(&Path), &'a str);

#[test]
fn a_damaged_home_signs_nothing_and_is_named() {
    let host = SignerHost::with_keys(&[ID, OTHER], Transport::ListenUnix, &[]);
    let other = host.keys.home(OTHER);
    let saved = Saved::of(&host, ID);
    let other_secret = fs::read(secret_key(&other)).unwrap();
    let damages: [Damage; 21] = [
        ("wrong passphrase", &|home| write(&home.join("passphrase"), b"wrong\n"), "passphrase"),
        ("empty passphrase", &|home| write(&home.join("passphrase"), b""), "passphrase"),
        ("only a line end", &|home| write(&home.join("passphrase"), b"\n"), "passphrase"),
        ("no passphrase", &|home| fs::remove_file(home.join("passphrase")).unwrap(), "passphrase"),
        ("long passphrase", &|home| write(&home.join("passphrase"), &[b'x'; 9000]), "passphrase"),
        (
            "sealed out of place",
            &|home| write(&home.join("passphrase"), b"sealed:0011\n"),
            "passphrase",
        ),
        ("cut key", &|home| cut(&secret_key(home), 50), "secret key"),
        ("cut key at the end", &|home| cut(&secret_key(home), 99), "secret key"),
        ("empty key", &|home| write(&secret_key(home), b""), ""),
        ("key is text", &|home| write(&secret_key(home), b"hello\n"), "secret key is damaged"),
        ("key is zeros", &|home| write(&secret_key(home), &[0; 1000]), "secret key is damaged"),
        ("huge key", &|home| write(&secret_key(home), &vec![b'('; 100_000]), ""),
        ("deep key", &|home| write(&secret_key(home), &vec![b'('; 60_000]), "is damaged"),
        ("another key", &|home| write(&secret_key(home), &other_secret), "secret key"),
        (
            "key is a link",
            &|home| {
                let key = secret_key(home);
                fs::rename(&key, home.join("moved")).unwrap();
                symlink(home.join("moved"), key).unwrap();
            },
            "",
        ),
        (
            "pubring of another",
            &|home| write(&home.join("pubring.kbx"), &fs::read(other.join("pubring.kbx")).unwrap()),
            "",
        ),
        ("empty pubring", &|home| write(&home.join("pubring.kbx"), b""), "pubring.kbx"),
        ("cut pubring", &|home| cut(&home.join("pubring.kbx"), 50), "keyring"),
        ("pubring is text", &|home| write(&home.join("pubring.kbx"), b"hello"), "keyring"),
        ("no pubring", &|home| fs::remove_file(home.join("pubring.kbx")).unwrap(), "pubring.kbx"),
        ("no keys", &|home| fs::remove_dir_all(home.join("private-keys-v1.d")).unwrap(), ""),
    ];
    for (what, damage, words) in damages {
        damage(&saved.home);
        let refused = host.sign(ID, b"data").expect_err(what);
        assert!(refused.contains(ID) && refused.contains(words), "{what}: {refused}");
        assert!(!refused.contains("unknown key") && refused.len() < 600, "{what}: {refused}");
        // A probe makes no signature and a certificate is no secret, so both may be answered.
        for request in [old(ID, format!("SHA256:{}", probe(8))), old(ID, "PUBKEY")] {
            if let Err(refused) = host.ask(&request) {
                assert!(!refused.contains("unknown key"), "{what}: {refused}");
            }
        }
        host.assert_signs(OTHER);
        saved.bring_back();
        host.assert_signs(ID);
    }
    assert_eq!(host.log_of(" sign failed ").iter().filter(|line| line.contains(OTHER)).count(), 0);
}

#[test]
fn what_is_not_a_home_is_no_unknown_key() {
    let host = SignerHost::with_keys(&[ID, OTHER], Transport::ListenUnix, &[]);
    let home = host.keys.home(ID);
    let away = host.keys.scratch().join("away");
    fs::rename(&home, &away).unwrap();
    host.assert_refuses(ID, "its home is missing");
    symlink(&away, &home).unwrap();
    host.assert_refuses(ID, "is not a directory");
    fs::remove_file(&home).unwrap();
    fs::write(&home, "x").unwrap();
    host.assert_refuses(ID, "is not a directory");
    fs::remove_file(&home).unwrap();
    fs::rename(&away, &home).unwrap();
    // Only root can give files away.
    if nix::unistd::geteuid().is_root() {
        chown(&home, Some(12345), Some(12345)).unwrap();
        host.assert_refuses(ID, "belongs to uid 12345");
        chown(&home, Some(0), Some(0)).unwrap();
    }
    host.assert_signs(ID);
    host.assert_signs(OTHER);
}

#[test]
fn key_json_is_a_cache() {
    let host = SignerHost::with_keys(&[ID, OTHER], Transport::ListenUnix, &[]);
    let [record, other] = [ID, OTHER].map(|id| host.keys.home(id).join("key.json"));
    let right = fs::read_to_string(&record).unwrap();
    let certificate = host.pubkey(ID).unwrap();
    let check = |what: &str| {
        let packet = host.sign(ID, b"data").unwrap_or_else(|e| panic!("{what}: {e}"));
        super::signer_client::verify(&certificate, b"data", &packet).unwrap();
        assert_eq!(host.pubkey(ID).unwrap(), certificate, "{what}");
        fs::write(&record, &right).unwrap();
    };
    for (what, text) in [
        ("of another key", fs::read_to_string(other).unwrap()),
        ("empty", String::new()),
        ("no JSON", "{".into()),
        ("other dates", right.replace("\"expires\":null", "\"expires\":1")),
        ("of no known age", right.replace("\"created\":", "\"created\":0,\"x\":")),
        ("long", " ".repeat(10_000) + &right),
    ] {
        fs::write(&record, text).unwrap();
        check(what);
    }
    fs::remove_file(&record).unwrap();
    check("missing");
}

#[test]
fn a_directory_of_keys_that_is_gone_or_another_one_makes_no_key_unknown() {
    let host = SignerHost::with_key();
    let [keys, away, empty] = ["keys", "away", "empty"].map(|name| host.keys.state().join(name));
    assert_eq!(host.sign(ABSENT, b"data").unwrap_err(), format!("unknown key: {ABSENT}"));
    let check = |words: &str| {
        for id in [ID, ABSENT] {
            host.assert_refuses(id, words);
            let refused = host.pubkey(id).unwrap_err();
            assert!(refused.contains(id) && !refused.contains("unknown key"), "{refused}");
        }
    };
    fs::rename(&keys, &away).unwrap();
    check("the directory of the keys is not there");
    fs::create_dir(&keys).unwrap();
    fs::set_permissions(&keys, Permissions::from_mode(0o700)).unwrap();
    check("the directory of the keys is not the one that was opened");
    fs::rename(&keys, &empty).unwrap();
    fs::write(&keys, "").unwrap();
    check("");
    fs::remove_file(&keys).unwrap();
    fs::rename(&away, &keys).unwrap();
    host.assert_signs(ID);
    assert_eq!(host.sign(ABSENT, b"data").unwrap_err(), format!("unknown key: {ABSENT}"));
    // The whole state is gone, as if its file system were not mounted.
    let state = host.keys.state();
    let away = host.keys.scratch().join("state-away");
    fs::rename(&state, &away).unwrap();
    check("");
    fs::create_dir(&state).unwrap();
    check("");
    fs::remove_dir(&state).unwrap();
    fs::rename(&away, &state).unwrap();
    host.assert_signs(ID);
}

#[test]
fn a_key_of_which_only_the_link_is_there_is_not_unknown() {
    let host = SignerHost::with_keys(&[ID, OTHER], Transport::ListenUnix, &[]);
    fs::rename(host.keys.home(ID), host.keys.scratch().join("home")).unwrap();
    let said = host.assert_refuses(ID, "its home is missing");
    assert!(host.pubkey(ID).unwrap_err().contains("its home is missing"));
    // If the home was destroyed on purpose, the command in the refusal makes the key unknown.
    let repair = said.split("on purpose: copr-keygen ").nth(1).unwrap().trim();
    host.keys.run(&repair.split(' ').collect::<Vec<_>>());
    assert_eq!(host.sign(ID, b"data").unwrap_err(), format!("unknown key: {ID}"));
}

#[test]
fn the_keyring_of_the_old_service_makes_no_key_unknown() {
    let keys = host_with(&[ID]);
    let old_host = OldHost::new(&plain(1));
    let gnupg = keys.state().join("gnupg");
    let place = || fs::copy(old_host.gnupg().join("pubring.kbx"), gnupg.join("pubring.kbx"));
    // The keyring appears while signd runs.
    let mut host = SignerHost::around(keys, Transport::PassedUnix, &[]);
    place().unwrap();
    let refused = host.sign(&plain(1)[0], b"data").unwrap_err();
    assert!(!refused.contains("unknown key") && refused.contains("import"), "{refused}");
    host.assert_signs(ID);
    assert!(host.signd.stop().success());
    // With this keyring, signd does not start.
    host.signd.spawn();
    let ended = host.signd.wait();
    assert_eq!(ended.code(), Some(78), "{}", host.signd.log());
    assert!(host.signd.log().lines().last().unwrap().contains("import"), "{}", host.signd.log());
    fs::remove_file(gnupg.join("pubring.kbx")).unwrap();
    host.signd.launch();
    host.assert_signs(ID);
}

#[test]
fn a_state_that_is_none_ends_it_at_once() {
    let mut keys = Host::new(Transport::ListenUnix, &[]);
    for (what, make) in [
        ("missing", &(|_: &Path| ()) as &dyn Fn(&Path)),
        ("a file", &|state: &Path| fs::write(state, "").unwrap()),
    ] {
        make(&keys.state());
        let mut signd = Host::signd(&keys, Transport::ListenUnix, &[]);
        signd.spawn();
        let ended = signd.wait();
        assert_eq!(ended.code(), Some(78), "{what}: {}", signd.log());
        assert_eq!(signd.log().lines().count(), 1, "{what}: {}", signd.log());
        let _ = fs::remove_file(keys.state());
    }
    keys.launch();
}

#[test]
fn a_home_under_the_name_of_another_identity_does_not_sign() {
    let host = SignerHost::with_key();
    let copy = host.keys.home(OTHER);
    succeed(Command::new("cp").arg("-a").arg(host.keys.home(ID)).arg(&copy));
    host.assert_refuses(OTHER, "holds the certificate of another identity");
    host.assert_signs(ID);
}
