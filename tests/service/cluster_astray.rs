//! Several hosts whose followers lag, are started twice, or find in etcd what none of the hosts has put
//! there.

use std::fs;
use std::path::PathBuf;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use nix::fcntl::{Flock, FlockArg};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use super::cluster::{Following, fingerprint, follow, member, until};
use super::etcd::{Etcd, Relay, key};
use super::faults::stand_in;
use super::old_host::words;
use super::sealing::{SealedHost, name};

/// Two hosts. The second one follows.
fn followed() -> (Etcd, [SealedHost; 2], Following) {
    let etcd = Etcd::start();
    let hosts = ["a", "b"].map(|host| member(&etcd.url(), host));
    let following = Following::start(&hosts[1]);
    until("b follows", || Following::log(&hosts[1]).contains("whole up to"));
    (etcd, hosts, following)
}

impl Following {
    fn signal(&self, signal: Signal) {
        let number = i32::try_from(self.0.id()).unwrap();
        kill(Pid::from_raw(number), signal).unwrap();
    }
}

#[test]
fn a_follower_that_lags_brings_no_removed_key_back() {
    let (_etcd, hosts, following) = followed();
    following.signal(Signal::SIGSTOP);
    for number in 1..9 {
        hosts[0].make(&name(number), json!({}));
    }
    assert_eq!(hosts[1].host.gen_key(&name(8), json!({})).unwrap().status, 200);
    hosts[1].well(&["remove", "--yes", &name(8)]);
    following.signal(Signal::SIGCONT);
    until("b has the others", || {
        assert!(!hosts[1].host.home(&name(8)).exists());
        hosts[1].host.entries("keys").len() == 7
    });
    thread::sleep(Duration::from_secs(1));
    assert!(!hosts[1].host.home(&name(8)).exists());
    let log = Following::log(&hosts[1]);
    assert!(!log.contains("was removed by another host"), "{log}");
}

/// Lets the second host follow through `endpoint` and take over the key that the first one makes. Its gpg waits
/// meanwhile, until the file that is returned is removed.
fn held_at_a_key(etcd: &Etcd, endpoint: &str, hosts: &mut [SealedHost; 2]) -> (Following, PathBuf) {
    let waits =
        r#": >"$here/begun"; while [ -e "$here/hold" ]; do sleep 0.05; done; exec gpg "$@""#;
    let gpg = stand_in(&hosts[1].host, waits);
    hosts[1].host.set("COPR_KEYGEN_GPG", gpg.display());
    hosts[1].host.set("COPR_KEYGEN_CLUSTER_ENDPOINTS", endpoint);
    let following = Following::start(&hosts[1]);
    hosts[1].host.set("COPR_KEYGEN_CLUSTER_ENDPOINTS", etcd.url());
    until("b follows", || Following::log(&hosts[1]).contains("whole up to"));
    let [begun, hold] = ["begun", "hold"].map(|file| hosts[1].host.scratch().join(file));
    fs::write(&hold, "").unwrap();
    let _ = fs::remove_file(&begun);
    hosts[0].make(&name(1), json!({}));
    until("b takes it over", || begun.exists());
    (following, hold)
}

#[test]
fn a_key_that_is_removed_while_a_follower_takes_it_over_is_not_published() {
    let etcd = Etcd::start();
    let mut hosts = ["a", "b"].map(|host| member(&etcd.url(), host));
    let (_following, hold) = held_at_a_key(&etcd, &etcd.url(), &mut hosts);
    hosts[0].well(&["remove", "--yes", &name(1)]);
    fs::remove_file(hold).unwrap();
    hosts[0].make(&name(2), json!({}));
    until("b has the next key", || hosts[1].host.home(&name(2)).exists());
    let log = Following::log(&hosts[1]);
    assert!(!hosts[1].host.state().join("trash").exists(), "{log}");
    assert!(!hosts[1].host.home(&name(1)).exists() && !log.contains("was removed"), "{log}");
}

#[test]
fn a_key_that_is_removed_after_a_follower_has_asked_for_it_is_not_published() {
    let etcd = Etcd::start();
    let relay = Relay::to(&etcd);
    let mut hosts = ["a", "b"].map(|host| member(&etcd.url(), host));
    let (_following, hold) = held_at_a_key(&etcd, &relay.url(), &mut hosts);
    let found = hosts[1].host.gen_key_patiently(&name(1), &json!({}));
    assert_eq!(found.status, 200, "{}", hosts[1].host.log());
    // The follower asks whether the key is removed. It hears that it is not when it is.
    let (ask, asked) = mpsc::channel();
    relay.judge(move |_| ask.send(()).is_ok());
    relay.delay(Duration::from_millis(1200));
    fs::remove_file(hold).unwrap();
    asked.recv().unwrap();
    hosts[1].well(&["remove", "--yes", &name(1)]);
    relay.delay(Duration::ZERO);
    hosts[0].make(&name(2), json!({}));
    until("b has the next key", || hosts[1].host.home(&name(2)).exists());
    let log = Following::log(&hosts[1]);
    assert!(!hosts[1].host.home(&name(1)).exists(), "{log}");
    assert!(!log.contains("was removed"), "{log}");
}

#[test]
fn an_undo_has_done_its_work_although_follow_was_faster() {
    let (etcd, hosts, _following) = followed();
    let relay = Relay::to(&etcd);
    hosts[1].make(&name(1), json!({}));
    let made = fingerprint(&hosts[1], &name(1));
    hosts[1].well(&["remove", "--yes", &name(1)]);
    // `undo` hears later than `follow` that etcd has accepted the change.
    relay.delay(Duration::from_millis(700));
    let mut undo = hosts[1].host.mode(&["undo", &name(1)]);
    let undone = undo.env("COPR_KEYGEN_CLUSTER_ENDPOINTS", relay.url()).output().unwrap();
    assert!(undone.status.success(), "{}", words(&undone));
    assert_eq!(fingerprint(&hosts[1], &name(1)), made);
    let left = hosts[1].host.entries("trash");
    assert_eq!(left, [""; 0], "{}\n{}", words(&undone), Following::log(&hosts[1]));
    hosts[1].assert_signs(&name(1));
}

#[test]
fn a_key_in_use_keeps_no_other_from_being_followed() {
    let (_etcd, hosts, _following) = followed();
    hosts[0].make(&name(1), json!({}));
    until("b has the key", || hosts[1].host.home(&name(1)).exists());
    let home = fs::File::open(hosts[1].host.home(&name(1))).unwrap();
    let held = Flock::lock(home, FlockArg::LockExclusive).unwrap();
    hosts[0].well(&["remove", "--yes", &name(1)]);
    hosts[0].make(&name(2), json!({}));
    until("b has the other key", || hosts[1].host.home(&name(2)).exists());
    // `follow --once` does not wait for the key in use, and reports it.
    let once = hosts[1].run(&["follow", "--once"]);
    assert_eq!(once.status.code(), Some(1), "{}", words(&once));
    assert!(words(&once).contains(&name(1)), "{}", words(&once));
    drop(held);
    until("b has removed the key", || !hosts[1].host.home(&name(1)).exists());
}

#[test]
fn a_host_is_followed_by_one_process() {
    let (etcd, hosts, _following) = followed();
    let second = hosts[1].run(&["follow"]);
    assert_eq!(second.status.code(), Some(78), "{}", words(&second));
    assert!(words(&second).contains("another `copr-keygen follow` of this host"));
    let found = hosts[1].page(&[]);
    assert!(found.contains("hosts that follow"), "{found}");
    // A copy of the state has the same host number (cluster.json), so that host takes over the name.
    let copied = member(&etcd.url(), "b");
    let file = |sealed: &SealedHost| sealed.host.state().join("cluster.json");
    fs::copy(file(&hosts[1]), file(&copied)).unwrap();
    let _copied = Following::start(&copied);
    let words = "another host with the name and the state of this one";
    until("b says so", || Following::log(&hosts[1]).contains(words));
}

#[test]
fn what_is_deleted_from_etcd_is_refused_no_more() {
    let (etcd, hosts, _following) = followed();
    etcd.put(&name(1), "nonsense");
    until("b refuses it", || Following::log(&hosts[1]).contains("is not understood"));
    let seeded = hosts[0].run(&["remove", "--yes", &name(1)]);
    assert!(words(&seeded).contains(&name(1)), "{}", words(&seeded));
    etcd.run(&["del", &key(&name(1))]);
    let found = || hosts[1].page(&[]);
    let deadline = Instant::now() + Duration::from_secs(30);
    while found().contains("could not be taken over") {
        assert!(Instant::now() < deadline, "{}", found());
        thread::sleep(Duration::from_secs(1));
    }
    assert!(!Following::log(&hosts[1]).contains("this host keeps it"));
}

#[test]
fn a_secret_key_of_nobody_is_not_taken_over() {
    let etcd = Etcd::start();
    let hosts = ["a", "b"].map(|host| member(&etcd.url(), host));
    for number in 1..4 {
        hosts[0].make(&name(number), json!({}));
    }
    let value = |number| serde_json::from_str::<Value>(&etcd.value(&name(number))).unwrap();
    // GnuPG writes the salt as raw bytes, so some secret keys are not text. Those are stored as base64.
    let secret = |value: &Value| {
        let is_secret = |name: &str| name.starts_with("private-keys-v1.d/");
        ["files", "base64"].into_iter().find_map(|kind| {
            let (name, file) = value[kind].as_object()?.iter().find(|(name, _)| is_secret(name))?;
            Some((kind, name.clone(), file.clone()))
        })
    };
    // Three bad values: one with the secret key of another identity, one with an unprotected secret key, and
    // one whose own key is listed as removed.
    let (mut foreign, mut clear, mut contrary) = (value(1), value(2), value(3));
    let (kind, name_of_other, other) = secret(&value(3)).unwrap();
    foreign[kind][&name_of_other] = other;
    let grip = "private-keys-v1.d/0123456789ABCDEF0123456789ABCDEF01234567.key";
    clear["files"][grip] = json!("Key: (private-key (rsa (n #00#)))\n");
    contrary["removed"] = json!([fingerprint(&hosts[0], &name(3))]);
    for (number, value) in [(1, foreign), (2, clear), (3, contrary)] {
        etcd.put(&name(number), &value.to_string());
    }
    let once = hosts[1].run(&["follow", "--once"]);
    assert_eq!(once.status.code(), Some(1), "{}", words(&once));
    assert!(words(&once).contains("a secret key that is not protected"), "{}", words(&once));
    assert!(words(&once).contains("among those that were removed"), "{}", words(&once));
    assert_eq!(hosts[1].host.entries("keys"), [name(1)]);
    let secrets = fs::read_dir(hosts[1].host.home(&name(1)).join("private-keys-v1.d")).unwrap();
    assert_eq!(secrets.count(), 1);
}

#[test]
fn keys_without_the_proof_of_their_sealing_are_nobodys() {
    let etcd = Etcd::start();
    let first = member(&etcd.url(), "a");
    first.make(&name(1), json!({}));
    etcd.run(&["del", "/copr-keygen/sealing"]);
    let second = member(&etcd.url(), "b");
    let once = second.run(&["follow", "--once"]);
    assert!(words(&once).contains("copr-keygen follow --seed"), "{}", words(&once));
    first.well(&["follow", "--seed"]);
    follow(&second);
    assert_eq!(fingerprint(&second, &name(1)), fingerprint(&first, &name(1)));
}
