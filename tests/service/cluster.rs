//! Several hosts with a real etcd: each identity has one key on all of them, whatever fails on the way.

use std::fs;
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::fcntl::{Flock, FlockArg};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use super::etcd::{Etcd, Relay, key};
use super::host::{Reply, eventually};
use super::old_host::words;
use super::sealing::{OTHER_KEY, SealedHost, name};
use super::years::clock;

/// Starts the service of a sealed host with this name, which uses etcd at `endpoint`.
pub fn member(endpoint: &str, host: &str) -> SealedHost {
    let mut sealed = SealedHost::sealed();
    sealed.host.stop();
    sealed.host.set("COPR_KEYGEN_CLUSTER_ENDPOINTS", endpoint);
    sealed.host.set("COPR_KEYGEN_CLUSTER_HOST", host);
    sealed.host.launch();
    sealed
}

pub fn follow(sealed: &SealedHost) {
    sealed.well(&["follow", "--once"]);
}

/// A running `copr-keygen follow`, which is killed when this is dropped.
pub struct Following(pub Child);

impl Following {
    pub fn start(sealed: &SealedHost) -> Self {
        let log = fs::File::options().create(true).append(true).open(Self::log_path(sealed));
        let mut mode = sealed.host.mode(&["follow"]);
        Self(mode.stdout(Stdio::null()).stderr(log.unwrap()).spawn().unwrap())
    }

    fn log_path(sealed: &SealedHost) -> std::path::PathBuf {
        sealed.host.scratch().join("follow.log")
    }

    pub fn log(sealed: &SealedHost) -> String {
        fs::read_to_string(Self::log_path(sealed)).unwrap_or_default()
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Asserts that every key signs and that `check --deep` finds nothing amiss.
fn is_well(sealed: &SealedHost) {
    let _following = Following::start(sealed);
    until("it follows", || Following::log(sealed).contains("whole up to"));
    let output = sealed.run(&["check", "--deep", "--no-units", "--json"]);
    let page: Value = serde_json::from_slice(&output.stdout).unwrap();
    // No signer runs here, and nothing listens at its default address.
    let is_of_units =
        |finding: &Value| ["obs-signd", "units"].map(Into::into).contains(&finding["section"]);
    let amiss = page.as_array().unwrap().iter().filter(|finding| {
        !is_of_units(finding) && ["warning", "failed"].map(Into::into).contains(&finding["level"])
    });
    assert_eq!(amiss.count(), 0, "{page:#}");
}

pub fn fingerprint(sealed: &SealedHost, id: &str) -> Option<String> {
    let text = fs::read(sealed.host.home(id).join("key.json")).ok()?;
    let record: Value = serde_json::from_slice(&text).ok()?;
    record["fingerprint"].as_str().map(Into::into)
}

pub fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    eventually(what, || is_so().then_some(()));
}

/// Two hosts. The second one follows through a relay.
fn followed_through_a_relay() -> (Etcd, Relay, [SealedHost; 2], Following) {
    let etcd = Etcd::start();
    let relay = Relay::to(&etcd);
    let hosts = [member(&etcd.url(), "a"), member(&relay.url(), "b")];
    let following = Following::start(&hosts[1]);
    until("b follows", || Following::log(&hosts[1]).contains("whole up to"));
    (etcd, relay, hosts, following)
}

/// Returns the self-signatures of the certificate that a host publishes.
fn signatures(sealed: &SealedHost, id: &str) -> Vec<String> {
    let show = sealed.host.json(&["show", "--json", id]);
    let signatures = show["self_signatures"].as_array().cloned().unwrap_or_default();
    assert!(!signatures.is_empty(), "{show}");
    signatures.iter().map(ToString::to_string).collect()
}

#[test]
fn three_hosts_asked_at_once_make_one_key_each() {
    let etcd = Etcd::start();
    let hosts = ["a", "b", "c"].map(|host| member(&etcd.url(), host));
    let replies: Vec<Reply> = thread::scope(|scope| {
        let asked: Vec<_> = (0..18)
            .map(|number| {
                let host = &hosts[number % 3].host;
                scope.spawn(move || host.gen_key_patiently(&name(number / 3 % 3), &json!({})))
            })
            .collect();
        asked.into_iter().map(|asked| asked.join().unwrap()).collect()
    });
    let count = |status| replies.iter().filter(|reply| reply.status == status).count();
    assert_eq!((count(201), count(200)), (3, 15));
    for sealed in &hosts {
        follow(sealed);
        for number in 0..3 {
            let first = fingerprint(&hosts[0], &name(number));
            assert!(first.is_some() && fingerprint(sealed, &name(number)) == first);
        }
        is_well(sealed);
    }
    // The passphrases in etcd are sealed. No host puts the key that opens them into etcd.
    let value = etcd.value(&name(0));
    let value: Value = serde_json::from_str(&value).unwrap();
    let passphrase = value["files"]["passphrase"].as_str().unwrap();
    assert!(passphrase.starts_with("sealed:1:"), "sealed");
}

#[test]
fn a_host_that_follows_has_every_change_soon() {
    let etcd = Etcd::start();
    let hosts = ["a", "b"].map(|host| member(&etcd.url(), host));
    let _following = Following::start(&hosts[1]);
    hosts[0].make(&name(1), json!({"expire": 30}));
    until("b has the key", || hosts[1].phrases().join(name(1)).exists());
    assert_eq!(fingerprint(&hosts[0], &name(1)), fingerprint(&hosts[1], &name(1)));
    hosts[0].well(&["prolong"]);
    until("b has the new certificate", || {
        signatures(&hosts[1], &name(1)).len() == signatures(&hosts[0], &name(1)).len()
    });
    hosts[0].well(&["remove", "--yes", &name(1)]);
    until("b has removed it", || !hosts[1].host.home(&name(1)).exists());
    assert!(!hosts[1].phrases().join(name(1)).exists());
    hosts[0].well(&["undo", &name(1)]);
    until("b has it again", || hosts[1].phrases().join(name(1)).exists());
}

#[test]
fn who_makes_a_key_is_told_so_although_follow_was_faster() {
    let etcd = Etcd::start();
    let relay = Relay::to(&etcd);
    let mut sealed = member(&relay.url(), "a");
    sealed.host.set("COPR_KEYGEN_CLUSTER_ENDPOINTS", etcd.url());
    let _following = Following::start(&sealed);
    until("it follows", || Following::log(&sealed).contains("whole up to"));
    // The service hears later than `follow` that etcd has accepted the key.
    relay.delay(Duration::from_millis(700));
    assert_eq!(sealed.host.gen_key_patiently(&name(1), &json!({})).status, 201);
    assert!(sealed.phrases().join(name(1)).exists());
    sealed.well(&["check", "--deep", "--no-units"]);
}

#[test]
fn without_etcd_keys_are_served_and_none_is_made() {
    let mut etcd = Etcd::start();
    let sealed = member(&etcd.url(), "a");
    sealed.make(&name(1), json!({}));
    assert_eq!(sealed.host.get("/ready").unwrap().status, 200);
    etcd.kill();
    let existing = Instant::now();
    assert_eq!(sealed.host.gen_key(&name(1), json!({})).unwrap().status, 200);
    assert!(existing.elapsed() < Duration::from_secs(3), "it waits for nobody");
    let asked = Instant::now();
    let refused = sealed.host.gen_key(&name(2), json!({})).unwrap();
    assert_eq!(refused.status, 503);
    assert!(refused.header("retry-after").is_some(), "{refused:?}");
    assert!(asked.elapsed() < Duration::from_secs(20));
    assert_eq!(sealed.host.get("/ready").unwrap().status, 503);
    for arguments in [
        &["remove", "--yes", &name(1)][..],
        &["follow", "--once"],
        &["make", &name(3), "--real", "x"],
    ] {
        let output = sealed.run(arguments);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {}", words(&output));
        assert!(words(&output).contains("etcd does not answer"), "{}", words(&output));
    }
    assert_eq!(sealed.host.entries("keys"), [name(1)]);
    etcd.launch();
    assert_eq!(sealed.host.gen_key_patiently(&name(2), &json!({})).status, 201);
    assert_eq!(sealed.host.get("/ready").unwrap().status, 200);
}

#[test]
fn an_etcd_that_is_slow_delays_nothing_that_is_here() {
    let etcd = Etcd::start();
    let relay = Relay::to(&etcd);
    let sealed = member(&relay.url(), "a");
    sealed.make(&name(1), json!({}));
    relay.delay(Duration::from_secs(5));
    let asked = Instant::now();
    assert_eq!(sealed.host.gen_key(&name(1), json!({})).unwrap().status, 200);
    assert!(asked.elapsed() < Duration::from_secs(3));
    let asked = Instant::now();
    assert_eq!(sealed.host.gen_key(&name(2), json!({})).unwrap().status, 503);
    assert!(asked.elapsed() < Duration::from_secs(25));
    assert!(!sealed.host.home(&name(2)).exists());
}

#[test]
fn an_answer_that_is_lost_makes_no_second_key() {
    let etcd = Etcd::start();
    let relay = Relay::to(&etcd);
    let sealed = member(&relay.url(), "a");
    let lost = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&lost);
    relay.judge(move |request| {
        // The first two requests that change a key: etcd's answer is lost.
        let is_change = request.contains("request_put") || request.contains("/v3/kv/txn");
        !(is_change && count.fetch_add(1, Ordering::SeqCst) < 2)
    });
    let made = sealed.host.gen_key_patiently(&name(1), &json!({}));
    assert_eq!(made.status, 201, "{}", sealed.host.log());
    assert!(lost.load(Ordering::SeqCst) > 0);
    let value: Value = serde_json::from_str(&etcd.value(&name(1))).unwrap();
    let revocation = format!("openpgp-revocs.d/{}.rev", fingerprint(&sealed, &name(1)).unwrap());
    assert!(value["files"][revocation].is_string(), "etcd has the key that is here");
}

#[test]
fn a_service_killed_after_the_agreement_has_that_key_later() {
    let etcd = Etcd::start();
    let relay = Relay::to(&etcd);
    let mut sealed = member(&relay.url(), "a");
    sealed.make(&name(0), json!({}));
    let pid = sealed.host.pid();
    relay.judge(move |request| {
        if request.contains("request_put") {
            // Give etcd the time to receive the change, then kill the service.
            thread::spawn(move || {
                thread::sleep(Duration::from_millis(500));
                let _ = kill(Pid::from_raw(pid.as_raw()), Signal::SIGKILL);
            });
            return false;
        }
        true
    });
    assert!(sealed.host.gen_key(&name(1), json!({})).is_err(), "it was killed");
    sealed.host.wait();
    let value: Value = serde_json::from_str(&etcd.value(&name(1))).unwrap();
    assert!(!sealed.host.home(&name(1)).exists());
    relay.judge(|_| true);
    sealed.host.launch();
    assert_eq!(sealed.host.gen_key_patiently(&name(1), &json!({})).status, 200);
    let revocation = format!("openpgp-revocs.d/{}.rev", fingerprint(&sealed, &name(1)).unwrap());
    assert!(value["files"][revocation].is_string(), "the key that was agreed on");
}

#[test]
fn hosts_that_seal_otherwise_have_no_part() {
    let etcd = Etcd::start();
    let mut first = member(&etcd.url(), "a");
    first.make(&name(1), json!({}));
    let mut other = SealedHost::new();
    other.host.launch();
    other.host.stop();
    other.host.set("COPR_KEYGEN_CLUSTER_ENDPOINTS", etcd.url());
    let refused = other.run(&["follow", "--once"]);
    assert_eq!(refused.status.code(), Some(78), "not sealed: {}", words(&refused));
    assert!(words(&refused).contains("copr-keygen seal"), "{}", words(&refused));
    other.host.unset("COPR_KEYGEN_CLUSTER_ENDPOINTS");
    other.give(OTHER_KEY);
    other.host.launch();
    other.well(&["seal"]);
    other.host.stop();
    other.host.set("COPR_KEYGEN_CLUSTER_ENDPOINTS", etcd.url());
    for arguments in [&["follow", "--once"][..], &["follow", "--seed"], &["serve"]] {
        let refused = other.run(arguments);
        assert_eq!(refused.status.code(), Some(78), "{arguments:?}: {}", words(&refused));
        assert!(words(&refused).contains("what all hosts share was sealed with another"));
    }
    assert!(other.host.entries("keys").is_empty());
    // `unseal` and an import in place are for a host that is alone, so they are refused while the cluster is
    // configured.
    for arguments in [&["unseal"][..], &["import"]] {
        assert_eq!(first.run(arguments).status.code(), Some(78), "{arguments:?}");
    }
    // A command started from a terminal has no credentials.
    first.take_key();
    let refused = first.run(&["remove", "--yes", &name(1)]);
    assert_eq!(refused.status.code(), Some(78), "{}", words(&refused));
    assert!(words(&refused).contains("by systemd-run with the credentials"), "{}", words(&refused));
}

#[test]
fn no_published_signature_is_lost() {
    let etcd = Etcd::start();
    let hosts = ["a", "b", "c"].map(|host| member(&etcd.url(), host));
    hosts[0].make(&name(1), json!({"expire": 30}));
    follow(&hosts[1]);
    follow(&hosts[2]);
    let mut published = signatures(&hosts[0], &name(1));
    // No host follows. Each finds out what the others have done when it changes the key itself.
    for (host, by) in [(0, "2y"), (1, "3y"), (2, "4y"), (0, "5y")] {
        hosts[host].well(&["prolong", "--within", "6y", "--by", by]);
        let now = signatures(&hosts[host], &name(1));
        assert!(published.iter().all(|one| now.contains(one)), "{published:#?} {now:#?}");
        assert_eq!(now.len(), published.len() + 1);
        published = now;
    }
    for sealed in &hosts {
        follow(sealed);
        assert_eq!(signatures(sealed, &name(1)).len(), published.len());
    }
    // All hosts at once: while one has its turn, the others wait or find nothing left to do.
    thread::scope(|scope| {
        for sealed in &hosts {
            scope.spawn(|| sealed.well(&["prolong", "--within", "9y", "--by", "8y"]));
        }
    });
    for sealed in &hosts {
        follow(sealed);
        assert_eq!(signatures(sealed, &name(1)).len(), published.len() + 1);
    }
}

#[test]
fn what_hosts_have_more_is_merged_on_request() {
    let etcd = Etcd::start();
    let mut hosts = ["a", "b"].map(|host| member(&etcd.url(), host));
    hosts[0].make(&name(1), json!({"expire": 30}));
    follow(&hosts[1]);
    // Each host prolongs the key while it does not know of the other.
    for (sealed, by) in hosts.iter_mut().zip(["2y", "3y"]) {
        sealed.host.unset("COPR_KEYGEN_CLUSTER_ENDPOINTS");
        sealed.well(&["prolong", "--by", by]);
        sealed.host.set("COPR_KEYGEN_CLUSTER_ENDPOINTS", etcd.url());
    }
    follow(&hosts[0]);
    assert_eq!(signatures(&hosts[0], &name(1)).len(), 2, "nothing is taken away");
    hosts[0].well(&["follow", "--seed"]);
    hosts[1].well(&["follow", "--seed"]);
    follow(&hosts[0]);
    for sealed in &hosts {
        assert_eq!(signatures(sealed, &name(1)).len(), 3);
    }
    is_well(&hosts[0]);
}

#[test]
fn a_removed_key_comes_back_from_no_host() {
    let etcd = Etcd::start();
    let hosts = ["a", "b", "c"].map(|host| member(&etcd.url(), host));
    hosts[0].make(&name(1), json!({}));
    let first = fingerprint(&hosts[0], &name(1));
    follow(&hosts[1]);
    follow(&hosts[2]);
    hosts[0].well(&["remove", "--yes", &name(1)]);
    // c does not know of the removal yet. It must not put the key into etcd again.
    let seeded = hosts[2].run(&["follow", "--seed"]);
    assert!(seeded.status.success(), "{}", words(&seeded));
    assert!(!hosts[2].host.home(&name(1)).exists(), "{}", words(&seeded));
    // b has heard of the removal from nobody but etcd, and makes another key.
    follow(&hosts[1]);
    assert_eq!(hosts[1].host.gen_key_patiently(&name(1), &json!({})).status, 201);
    let second = fingerprint(&hosts[1], &name(1));
    assert!(second.is_some() && second != first);
    follow(&hosts[0]);
    assert_eq!(fingerprint(&hosts[0], &name(1)), second);
    // c has followed neither change. Its `undo` finds out that there is another key.
    let undone = hosts[2].run(&["undo", &name(1)]);
    assert!(!undone.status.success(), "{}", words(&undone));
    assert_eq!(fingerprint(&hosts[2], &name(1)), second, "{}", words(&undone));
    hosts[2].well(&["remove", "--yes", &name(1)]);
    hosts[0].well(&["follow", "--once"]);
    let restored = hosts[0].run(&["undo", &name(1)]);
    assert!(restored.status.success(), "{}", words(&restored));
    let back = fingerprint(&hosts[0], &name(1));
    for sealed in &hosts {
        follow(sealed);
        assert_eq!(fingerprint(sealed, &name(1)), back);
    }
}

#[test]
fn nothing_in_etcd_is_believed() {
    let etcd = Etcd::start();
    let hosts = ["a", "b"].map(|host| member(&etcd.url(), host));
    hosts[0].make(&name(1), json!({}));
    hosts[0].make(&name(2), json!({}));
    let good = etcd.value(&name(1));
    let cut = &good[..good.len() / 2];
    let mut hostile: Value = serde_json::from_str(&good).unwrap();
    hostile["files"]["../../../hostile"] = json!("AAAA");
    let mut spoilt: Value = serde_json::from_str(&good).unwrap();
    spoilt["files"]["passphrase"] = json!("sealed:xxxx\n");
    let values = [
        (5, cut.to_owned()),
        (6, good.clone()), // the value of another identity
        (7, hostile.to_string()),
        (8, spoilt.to_string()),
        (9, "{}".into()),
        (10, String::new()),
    ];
    for (number, value) in &values {
        etcd.put(&name(*number), value);
    }
    etcd.put("../../etc/passwd", &good);
    let followed = hosts[1].run(&["follow", "--once"]);
    assert_eq!(followed.status.code(), Some(1), "{}", words(&followed));
    for (number, _) in &values {
        assert!(words(&followed).contains(&name(*number)), "{number}: {}", words(&followed));
    }
    assert_eq!(hosts[1].host.entries("keys"), [name(1), name(2)]);
    assert!(hosts[1].host.entries("staging").is_empty());
    // A request for such an identity makes no key beside what is in etcd.
    let asked = hosts[1].host.gen_key(&name(6), json!({})).unwrap();
    assert_eq!(asked.status, 500, "{}", hosts[1].host.log());
    assert!(!hosts[1].host.home(&name(6)).exists());
    // The key of an identity is replaced in etcd without having been removed. No host takes over the new one.
    let other = etcd.value(&name(2)).replace(&name(2), &name(1));
    etcd.put(&name(1), &other);
    let before = fingerprint(&hosts[1], &name(1));
    let followed = hosts[1].run(&["follow", "--once"]);
    assert!(words(&followed).contains("neither was removed"), "{}", words(&followed));
    assert_eq!(fingerprint(&hosts[1], &name(1)), before);
}

#[test]
fn keys_that_etcd_has_lost_are_kept_and_put_back_on_request() {
    let etcd = Etcd::start();
    let hosts = ["a", "b"].map(|host| member(&etcd.url(), host));
    for number in 1..4 {
        hosts[0].make(&name(number), json!({}));
    }
    follow(&hosts[1]);
    etcd.run(&["del", &key(&name(1))]);
    etcd.run(&["del", &key(&name(2))]);
    let followed = hosts[1].run(&["follow", "--once"]);
    assert!(
        followed.status.success() && words(&followed).contains("2 keys of this host are"),
        "{}",
        words(&followed)
    );
    assert_eq!(hosts[1].host.entries("keys").len(), 3);
    let refused = hosts[1].run(&["prolong"]);
    assert!(refused.status.success(), "no key is due: {}", words(&refused));
    hosts[1].well(&["follow", "--seed"]);
    for number in 1..4 {
        assert!(etcd.value(&name(number)).contains("private-keys-v1.d"));
    }
    let seeded = hosts[0].run(&["follow", "--seed"]);
    assert!(words(&seeded).contains("0 of 3 keys told"), "{}", words(&seeded));
}

#[test]
fn a_host_that_comes_back_after_a_compaction_misses_nothing() {
    let etcd = Etcd::start();
    let hosts = ["a", "b"].map(|host| member(&etcd.url(), host));
    hosts[0].make(&name(1), json!({}));
    follow(&hosts[1]);
    hosts[0].make(&name(2), json!({}));
    hosts[0].well(&["remove", "--yes", &name(1)]);
    let answer: Value = serde_json::from_str(&etcd.run(&["get", "x", "-w", "json"])).unwrap();
    etcd.run(&["compact", &answer["header"]["revision"].to_string()]);
    let _following = Following::start(&hosts[1]);
    until("b is whole", || {
        hosts[1].host.home(&name(2)).exists() && !hosts[1].host.home(&name(1)).exists()
    });
    hosts[0].make(&name(3), json!({}));
    until("b follows", || hosts[1].host.home(&name(3)).exists());
}

#[test]
fn a_key_in_use_is_taken_over_later_although_etcd_was_away() {
    let mut etcd = Etcd::start();
    let hosts = ["a", "b"].map(|host| member(&etcd.url(), host));
    hosts[0].make(&name(1), json!({"expire": 30}));
    follow(&hosts[1]);
    let _following = Following::start(&hosts[1]);
    until("b follows", || Following::log(&hosts[1]).contains("whole up to"));
    let home = fs::File::open(hosts[1].host.home(&name(1))).unwrap();
    let held = Flock::lock(home, FlockArg::LockExclusive).unwrap();
    hosts[0].well(&["prolong"]);
    thread::sleep(Duration::from_secs(2));
    etcd.kill();
    until("b misses etcd", || Following::log(&hosts[1]).contains("etcd does not answer"));
    drop(held);
    etcd.launch();
    until("b has the new certificate", || {
        signatures(&hosts[1], &name(1)).len() == signatures(&hosts[0], &name(1)).len()
    });
}

#[test]
fn two_hosts_of_one_name_do_not_follow_together() {
    let etcd = Etcd::start();
    let hosts = ["same", "same"].map(|host| member(&etcd.url(), host));
    let _following = Following::start(&hosts[0]);
    until("the first one follows", || Following::log(&hosts[0]).contains("whole up to"));
    let second = hosts[1].run(&["follow"]);
    assert_eq!(second.status.code(), Some(78), "{}", words(&second));
    assert!(words(&second).contains("another host of this name"), "{}", words(&second));
    // After it was killed, the first host itself can follow again at once.
    drop(_following);
    let _again = Following::start(&hosts[0]);
    until("it follows again", || Following::log(&hosts[0]).matches("whole up to").count() == 2);
}

#[test]
fn a_follower_killed_at_any_moment_becomes_whole() {
    let etcd = Etcd::start();
    let hosts = ["a", "b"].map(|host| member(&etcd.url(), host));
    for number in 1..9 {
        hosts[0].make(&name(number), json!({}));
    }
    for pause in [30, 80, 150, 250, 400, 600] {
        let following = Following::start(&hosts[1]);
        thread::sleep(Duration::from_millis(pause));
        drop(following);
    }
    follow(&hosts[1]);
    for number in 1..9 {
        let there = fingerprint(&hosts[0], &name(number));
        assert!(there.is_some() && fingerprint(&hosts[1], &name(number)) == there);
    }
    is_well(&hosts[1]);
}

#[test]
fn an_etcd_restored_from_an_old_snapshot_takes_nothing_away() {
    let mut etcd = Etcd::start();
    let hosts = ["a", "b"].map(|host| member(&etcd.url(), host));
    hosts[0].make(&name(1), json!({"expire": 30}));
    let snapshot = etcd.save();
    hosts[0].make(&name(2), json!({}));
    hosts[0].well(&["prolong"]);
    hosts[0].well(&["follow", "--once"]);
    hosts[1].well(&["follow", "--once"]);
    etcd.restore(&snapshot);
    for sealed in &hosts {
        let said = sealed.well(&["follow", "--once"]);
        assert!(said.contains("was restored from a snapshot"), "{said}");
        assert!(said.contains("1 key of this host"), "{said}");
        assert!(said.contains("has signatures here that the other hosts do not have"), "{said}");
        assert_eq!(sealed.host.entries("keys").len(), 2);
        assert_eq!(signatures(sealed, &name(1)).len(), 2);
    }
    hosts[1].well(&["follow", "--seed"]);
    assert!(etcd.value(&name(2)).contains("private-keys-v1.d"));
    let mut fresh = member(&etcd.url(), "c");
    follow(&fresh);
    assert_eq!(signatures(&fresh, &name(1)).len(), 2);
    fresh.host.stop();
}

#[test]
fn an_etcd_restored_long_ago_is_noticed_by_a_host_that_returns() {
    let mut etcd = Etcd::start();
    let hosts = ["a", "b"].map(|host| member(&etcd.url(), host));
    let goes_on = |etcd: &Etcd| (0..40).for_each(|_| etcd.try_put("other", "value"));
    hosts[0].make(&name(1), json!({}));
    goes_on(&etcd);
    let snapshot = etcd.save();
    goes_on(&etcd);
    follow(&hosts[1]);
    etcd.restore(&snapshot);
    hosts[0].well(&["remove", "--yes", &name(1)]);
    // The restored etcd advances beyond the revision up to which b has followed.
    goes_on(&etcd);
    goes_on(&etcd);
    let said = hosts[1].well(&["follow", "--once"]);
    assert!(said.contains("was restored from a snapshot"), "{said}");
    assert!(!hosts[1].host.home(&name(1)).exists(), "{said}");
    let said = hosts[1].well(&["follow", "--once"]);
    assert!(!said.contains("was restored"), "{said}");
}

#[test]
fn an_etcd_restored_behind_a_follower_is_noticed() {
    let mut etcd = Etcd::start();
    let hosts = ["a", "b"].map(|host| member(&etcd.url(), host));
    let _following = Following::start(&hosts[1]);
    until("b follows", || Following::log(&hosts[1]).contains("whole up to"));
    // The snapshot includes b's lease.
    let snapshot = etcd.save();
    for number in 1..6 {
        hosts[0].make(&name(number), json!({}));
    }
    until("b has them", || hosts[1].host.home(&name(5)).exists());
    etcd.restore(&snapshot);
    hosts[0].make(&name(6), json!({}));
    until("b follows what was restored", || hosts[1].host.home(&name(6)).exists());
    assert_eq!(hosts[1].host.entries("keys").len(), 6);
    let log = Following::log(&hosts[1]);
    assert!(log.contains("was restored from a snapshot"), "{log}");
}

#[test]
fn a_full_etcd_is_said_and_makes_no_key() {
    let quota = ["--quota-backend-bytes".to_owned(), (1 << 20).to_string()];
    let etcd = Etcd::start_with(&quota);
    let sealed = member(&etcd.url(), "a");
    let filling = "x".repeat(100_000);
    let is_full = (1..60).any(|number| {
        etcd.try_put("filling", &filling);
        sealed.host.gen_key(&name(number), json!({})).unwrap().status == 503
    });
    assert!(is_full, "{}", sealed.host.log());
    assert!(sealed.host.log().contains("its database is full"), "{}", sealed.host.log());
    let keys = sealed.host.entries("keys").len();
    assert_eq!(sealed.host.gen_key(&name(99), json!({})).unwrap().status, 503);
    assert_eq!(sealed.host.entries("keys").len(), keys);
    assert!(sealed.host.entries("staging").is_empty());
    let found = sealed.page(&[]);
    assert!(found.contains("NOSPACE") && found.contains("compact and defragment"), "{found}");
    assert_eq!(sealed.host.get("/ready").unwrap().status, 503);
}

#[test]
fn check_names_the_clocks_that_differ_between_hosts() {
    let etcd = Etcd::start();
    let host = member(&etcd.url(), "a");
    follow(&host);
    for (time, words) in [("+100s", "behind the one of this host"), ("-100s", "ahead of the one")] {
        let checked = host.host.mode(&["check", "--no-units"]).envs(clock(time)).output().unwrap();
        let said = String::from_utf8_lossy(&checked.stdout).into_owned();
        assert!(said.contains(words), "{time}: {said}");
        assert_eq!(checked.status.code(), Some(1), "{time}: {said}");
    }
    let checked = host.run(&["check", "--no-units"]);
    let said = String::from_utf8_lossy(&checked.stdout).into_owned();
    assert!(said.contains("etcd 3.") && !said.contains("its clock"), "{said}");
}

#[test]
fn what_a_wrong_clock_refused_is_taken_over_when_it_is_right() {
    let etcd = Etcd::start();
    let hosts = ["a", "b"].map(|host| member(&etcd.url(), host));
    hosts[0].make(&name(1), json!({"expire": 30}));
    follow(&hosts[1]);
    hosts[0].well(&["prolong"]);
    hosts[0].make(&name(2), json!({}));
    let refused = hosts[1].host.mode(&["follow", "--once"]).envs(clock("-20y")).output().unwrap();
    assert_eq!(refused.status.code(), Some(1), "{}", words(&refused));
    assert!(words(&refused).contains("clock"), "{}", words(&refused));
    assert_eq!(hosts[1].host.entries("keys"), [name(1)]);
    assert_eq!(signatures(&hosts[1], &name(1)).len(), 1);
    follow(&hosts[1]);
    assert_eq!(signatures(&hosts[1], &name(1)).len(), 2);
    assert_eq!(hosts[1].host.entries("keys").len(), 2);
}

#[test]
fn a_watch_that_ends_before_its_first_change_misses_nothing() {
    let (_etcd, relay, hosts, _following) = followed_through_a_relay();
    relay.cut(true);
    hosts[0].make(&name(1), json!({}));
    relay.clip(true);
    relay.cut(false);
    // Long enough for several watches that begin after the change and end before they report it.
    thread::sleep(Duration::from_secs(10));
    relay.clip(false);
    until("b has the key", || hosts[1].host.home(&name(1)).exists());
}

/// Runs openssl in a directory.
fn openssl(directory: &std::path::Path, arguments: &str) {
    let mut command = std::process::Command::new("openssl");
    let output = command.args(arguments.split(' ')).current_dir(directory).output().unwrap();
    assert!(output.status.success(), "openssl {arguments}: {}", words(&output));
}

/// Makes a certificate authority, if there is none of this name, and a certificate AUTHORITY-HOST for
/// 127.0.0.1.
fn make_certificate(directory: &std::path::Path, authority: &str, host: &str) {
    if !directory.join(format!("{authority}.crt")).exists() {
        openssl(
            directory,
            &format!(
                "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30 -subj /CN={authority} \
             -keyout {authority}.key -out {authority}.crt"
            ),
        );
    }
    let name = format!("{authority}-{host}");
    fs::write(directory.join("extensions"), "subjectAltName=IP:127.0.0.1\n").unwrap();
    openssl(
        directory,
        &format!(
            "req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN={host} -keyout {name}.key -out {name}.csr"
        ),
    );
    openssl(
        directory,
        &format!(
            "x509 -req -in {name}.csr -CA {authority}.crt -CAkey {authority}.key -CAcreateserial -days 30 \
         -extfile extensions -out {name}.crt"
        ),
    );
}

#[test]
fn etcd_and_hosts_know_each_other_by_certificates() {
    let directory = tempfile::tempdir().unwrap();
    for (authority, host) in [("good", "etcd"), ("good", "sign1"), ("bad", "sign1")] {
        make_certificate(directory.path(), authority, host);
    }
    let file = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    let tls = [
        ("--cert-file", "good-etcd.crt"),
        ("--key-file", "good-etcd.key"),
        ("--trusted-ca-file", "good.crt"),
    ];
    let mut arguments = vec!["--client-cert-auth".to_owned()];
    arguments.extend(tls.iter().flat_map(|(option, name)| [(*option).to_owned(), file(name)]));
    let etcd = Etcd::start_with(&arguments);
    let mut sealed = SealedHost::sealed();
    sealed.host.set("COPR_KEYGEN_CLUSTER_ENDPOINTS", format!("https://127.0.0.1:{}", etcd.port()));
    let mut with = |ca: &str, certificate: &str, status: i32, expected: &str| {
        sealed.host.set("COPR_KEYGEN_CLUSTER_CA_FILE", file(ca));
        sealed.host.set("COPR_KEYGEN_CLUSTER_CERT_FILE", file(&format!("{certificate}.crt")));
        sealed.host.set("COPR_KEYGEN_CLUSTER_KEY_FILE", file(&format!("{certificate}.key")));
        // `Etcd` cannot ask this etcd whether it is ready, because that takes a client certificate. So wait
        // for it here.
        let followed = eventually("etcd's gateway", || {
            let followed = sealed.run(&["follow", "--once"]);
            (!words(&followed).contains("no answer in time")).then_some(followed)
        });
        assert_eq!(followed.status.code(), Some(status), "{}", words(&followed));
        assert!(words(&followed).contains(expected), "{}", words(&followed));
    };
    with("good.crt", "good-sign1", 0, "up to date with revision");
    with("bad.crt", "good-sign1", 1, "certificate");
    with("good.crt", "bad-sign1", 1, "etcd does not answer");
    with("good.key", "good-sign1", 78, "cluster.ca_file: holds no certificate");
    with("good.crt", "none", 78, "cluster.cert_file");
    let secret = directory.path().join("good-sign1.key");
    fs::set_permissions(&secret, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    with("good.crt", "good-sign1", 78, "has mode 0644");
}

#[test]
fn check_says_how_the_hosts_agree() {
    let mut etcd = Etcd::start();
    let sealed = member(&etcd.url(), "a");
    sealed.make(&name(1), json!({}));
    let page = |sealed: &SealedHost| sealed.page(&[]);
    assert!(page(&sealed).contains("this host has never followed the others"));
    {
        let _following = Following::start(&sealed);
        until("it follows", || Following::log(&sealed).contains("whole up to"));
        let found = page(&sealed);
        assert!(found.contains("1 here, each known to etcd"), "{found}");
        assert!(found.contains("hosts that follow"), "{found}");
        let metrics = sealed.host.get("/metrics").unwrap().body;
        assert!(metrics.contains("copr_keygen_cluster_revision "), "{metrics}");
        assert!(metrics.contains("copr_keygen_cluster_keys_refused 0"), "{metrics}");
        etcd.run(&["del", &key(&name(1))]);
        assert!(page(&sealed).contains("1 key is not known to the other hosts"));
        sealed.well(&["follow", "--seed"]);
        assert!(page(&sealed).contains("1 here, each known to etcd"));
    }
    etcd.kill();
    let found = page(&sealed);
    assert!(found.contains("start this member of etcd"), "{found}");
    assert!(found.contains("etcd does not answer"), "{found}");
}

#[test]
fn names_are_read_to_the_last_page() {
    let etcd = Etcd::start();
    let hosts = ["a", "b"].map(|host| member(&etcd.url(), host));
    // More names of removed keys than fit on a page, with a key before and a key after all of them.
    let names: Vec<_> = (0..2100).map(|number| format!("m#{number:04}@copr.example.org")).collect();
    let removed = json!({"version": 1, "removed": ["0123456789ABCDEF0123456789ABCDEF01234567"]});
    for names in names.chunks(100) {
        etcd.put_all(names, &removed.to_string());
    }
    let keys = ["a#first@copr.example.org", "z#last@copr.example.org"];
    for key in keys {
        hosts[0].make(key, json!({}));
    }
    for _ in 0..2 {
        follow(&hosts[1]);
        assert_eq!(hosts[1].host.entries("keys"), keys);
    }
    let found = hosts[1].page(&[]);
    assert!(found.contains("2 here, each known to etcd"), "{found}");
    assert!(found.contains("knows 2100 names more"), "{found}");
}

#[test]
fn a_cut_follower_catches_up() {
    let (_etcd, relay, hosts, _following) = followed_through_a_relay();
    relay.cut(true);
    hosts[0].make(&name(1), json!({}));
    thread::sleep(Duration::from_secs(6));
    assert!(!hosts[1].host.home(&name(1)).exists());
    relay.cut(false);
    until("b has the key", || hosts[1].host.home(&name(1)).exists());
}
