//! Secret keys made in advance: each is taken once and replaced, and discarded if it is not as it must be.

use std::collections::BTreeSet;
use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::process::Stdio;
use std::time::{Duration, Instant, SystemTime};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;

use super::certificate::{assert_signs, text};
use super::host::{Host, Transport, eventually, within};

fn name(number: usize) -> String {
    format!("user#p{number}@copr.example.org")
}

/// A host with a running service and `count` keys of 2048 bits in its pool.
fn host_with_pool(count: usize) -> Host {
    let host = Host::start(Transport::PassedUnix);
    fill(&host, &format!("2048:{count}"));
    host
}

fn fill(host: &Host, stock: &str) {
    let output = host.mode(&["fill-pool"]).env("COPR_KEYGEN_POOL", stock).output().unwrap();
    assert!(output.status.success(), "{}", text(&output));
}

fn entries(host: &Host) -> Vec<String> {
    match host.state().join("pool/rsa2048").exists() {
        true => host.entries("pool/rsa2048"),
        false => Vec::new(),
    }
}

fn keygrip(host: &Host, id: &str) -> String {
    host.json(&["show", "--json", id])["keygrip"].as_str().unwrap().into()
}

#[test]
fn a_request_takes_its_key_from_the_pool() {
    let host = host_with_pool(2);
    let ready = entries(&host);
    assert_eq!(ready.len(), 2);
    for entry in &ready {
        let home = host.state().join("pool/rsa2048").join(entry);
        assert_eq!(home.metadata().unwrap().mode() & 0o7777, 0o700);
        let mut files: Vec<_> = fs::read_dir(&home)
            .unwrap()
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect();
        files.sort();
        assert_eq!(files, ["passphrase", "private-keys-v1.d"]);
        assert_eq!(home.join("passphrase").metadata().unwrap().mode() & 0o7777, 0o600);
        let key = fs::read(home.join(format!("private-keys-v1.d/{entry}.key"))).unwrap();
        assert!(String::from_utf8_lossy(&key).contains("protected-private-key"));
    }

    assert_eq!(
        host.gen_key(&name(1), json!({"expire": "2y"})).unwrap().status,
        201,
        "{}",
        host.log()
    );
    assert!(ready.contains(&keygrip(&host, &name(1))));
    assert_eq!(entries(&host).len(), 1);
    assert_signs(&host, &name(1));
    assert!(host.gpg(&name(1), &["--with-colons", "-k"]).contains("::scSC:"));

    // The pool has no key of this length, and then none at all.
    assert_eq!(host.gen_key(&name(2), json!({"key_length": 3072})).unwrap().status, 201);
    assert_eq!(entries(&host).len(), 1);
    for number in 3..5 {
        assert_eq!(host.gen_key(&name(number), json!({})).unwrap().status, 201, "{}", host.log());
    }
    assert_eq!(entries(&host), [""; 0]);
    assert_eq!(host.entries("staging"), [""; 0]);
}

#[test]
fn no_key_of_the_pool_serves_two_identities() {
    let host = host_with_pool(6);
    std::thread::scope(|scope| {
        for number in 0..10 {
            let host = &host;
            scope.spawn(move || {
                assert_eq!(host.gen_key_patiently(&name(number), &json!({})).status, 201);
            });
        }
    });
    let grips: BTreeSet<_> = (0..10).map(|number| keygrip(&host, &name(number))).collect();
    assert_eq!(grips.len(), 10);
    assert_eq!(entries(&host), [""; 0]);
}

#[test]
fn what_is_not_as_it_must_be_is_discarded_and_the_request_served() {
    let host = host_with_pool(1);
    let pool = host.state().join("pool/rsa2048");
    let good = pool.join(&entries(&host)[0]);
    let away = host.scratch().join("good");
    fs::rename(&good, &away).unwrap();
    let grip = good.file_name().unwrap().to_str().unwrap();
    let key = format!("private-keys-v1.d/{grip}.key");
    let copy = || {
        let copied = std::process::Command::new("cp").arg("-a").arg(&away).arg(&good).status();
        assert!(copied.unwrap().success());
    };
    let old = SystemTime::now() - Duration::from_secs(91 * 86_400);
    let damages: [(&str, &dyn Fn()); 9] = [
        ("is missing", &|| fs::remove_file(good.join(&key)).unwrap()),
        ("is empty", &|| fs::write(good.join(&key), "").unwrap()),
        ("others could read it", &|| {
            fs::set_permissions(good.join(&key), Permissions::from_mode(0o644)).unwrap();
        }),
        ("it holds", &|| fs::remove_file(good.join("passphrase")).unwrap()),
        ("it holds", &|| fs::write(good.join("gpg.conf"), "sq").unwrap()),
        ("91 days old", &|| {
            fs::File::open(good.join(&key)).unwrap().set_modified(old).unwrap();
        }),
        ("its name is no keygrip", &|| fs::rename(&good, pool.join("x")).unwrap()),
        // The passphrase is of another key.
        ("of the pool was discarded", &|| fs::write(good.join("passphrase"), "0123\n").unwrap()),
        ("of the pool was discarded", &|| {
            fs::write(good.join(&key), "(protected-private-key)").unwrap()
        }),
    ];
    for (number, (words, damage)) in damages.iter().enumerate() {
        copy();
        damage();
        let before = host.log().len();
        assert_eq!(host.gen_key(&name(number), json!({})).unwrap().status, 201, "{}", host.log());
        assert!(host.log()[before..].contains(words), "{words}: {}", &host.log()[before..]);
        assert_ne!(keygrip(&host, &name(number)), grip, "{words}");
        assert_eq!(entries(&host), [""; 0], "{words}");
        assert_signs(&host, &name(number));
    }
    // A file among the keys of the pool is never taken. It stays and does no harm.
    fs::write(pool.join("file"), "").unwrap();
    assert_eq!(host.gen_key(&name(20), json!({})).unwrap().status, 201, "{}", host.log());

    // `fill-pool` discards bad keys as well.
    copy();
    fs::remove_file(good.join("passphrase")).unwrap();
    fill(&host, "2048:2");
    assert!(!good.exists());
}

#[test]
fn two_fillers_do_not_overfill() {
    let host = Host::start(Transport::PassedUnix);
    let start = || host.mode(&["fill-pool"]).env("COPR_KEYGEN_POOL", "2048:3").spawn().unwrap();
    for mut filler in [start(), start()] {
        assert!(filler.wait().unwrap().success());
    }
    assert_eq!(entries(&host).len(), 3);
    fill(&host, "2048:3");
    assert_eq!(entries(&host).len(), 3);
}

#[test]
fn a_filler_ends_at_once_when_told_to_and_leaves_nothing_half_made() {
    let host = Host::start(Transport::PassedUnix);
    for (signal, clean) in [(Signal::SIGTERM, true), (Signal::SIGKILL, false)] {
        let mut filler = host.mode(&["fill-pool"]);
        filler.env("COPR_KEYGEN_POOL", "4096:50").stderr(Stdio::null());
        let mut filler = filler.spawn().unwrap();
        eventually("a key to be begun", || (!host.entries("staging").is_empty()).then_some(()));
        let told = Instant::now();
        kill(Pid::from_raw(filler.id().try_into().unwrap()), signal).unwrap();
        assert_eq!(filler.wait().unwrap().code(), clean.then_some(143));
        assert!(told.elapsed() < Duration::from_secs(10), "{:?}", told.elapsed());
        assert_eq!(host.entries("staging").is_empty(), clean);
    }
    // A directory to which gpg still writes, after its parent was killed, is left for the next run.
    eventually("staging to be empty", || {
        fill(&host, "2048:1");
        host.entries("staging").is_empty().then_some(())
    });
    assert_eq!(entries(&host).len(), 1);
}

#[test]
fn a_service_on_its_own_fills_the_pool_itself() {
    let pool = [("COPR_KEYGEN_POOL", "2048:2")];
    let mut host = Host::start_with(Transport::ListenTcp, &pool);
    // Keys at idle priority take long on a busy machine.
    let filled = |what: &str, host: &Host| {
        within(Duration::from_secs(120), what, || (entries(host).len() == 2).then_some(()));
    };
    filled("the pool to be full", &host);
    let ready = entries(&host);
    assert_eq!(host.gen_key(&name(0), json!({})).unwrap().status, 201, "{}", host.log());
    assert!(ready.contains(&keygrip(&host, &name(0))));
    filled("the pool to be full again", &host);
    let told = Instant::now();
    assert!(host.stop().success());
    assert!(told.elapsed() < Duration::from_secs(10));

    // With systemd, another unit fills the pool.
    let host = Host::start_with(Transport::PassedTcp, &pool);
    assert_eq!(host.gen_key(&name(0), json!({})).unwrap().status, 201, "{}", host.log());
    assert_eq!(entries(&host), [""; 0]);
}

#[test]
fn a_file_in_place_of_the_pool_of_a_length_is_named_and_keys_are_made_without_it() {
    let host = Host::start(Transport::PassedUnix);
    let odd = host.state().join("pool/rsa2048");
    fs::write(&odd, "").unwrap();
    assert_eq!(host.gen_key_patiently(&name(1), &json!({})).status, 201, "{}", host.log());
    let words = format!("{}: Not a directory", odd.display());
    assert!(host.log().contains(&words), "{}", host.log());
    assert_signs(&host, &name(1));
}

#[test]
fn what_is_no_key_of_the_pool_is_left_alone() {
    let host = host_with_pool(1);
    let mine = host.state().join("pool/rsa2048/mine");
    fs::create_dir(&mine).unwrap();
    fs::write(mine.join("secret.txt"), "precious").unwrap();
    fill(&host, "2048:1");
    for number in 1..3 {
        assert_eq!(host.gen_key(&name(number), json!({})).unwrap().status, 201);
    }
    fill(&host, "2048:2");
    assert_eq!(entries(&host).len(), 3);
    assert_eq!(fs::read(mine.join("secret.txt")).unwrap(), b"precious");
}
