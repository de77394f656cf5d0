//! What `prolong` does and what it leaves alone. If something goes wrong, it loses nothing.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use super::certificate::{assert_signs, text};
use super::faults::stand_in;
use super::gen_key::snapshot;
use super::host::{DoneWhenDropped, Host, Transport, eventually, kill_child, now};
use super::programs::write_script;

const DAY: u64 = 86_400;

fn name(number: usize) -> String {
    format!("user#p{number}@copr.example.org")
}

/// The number of keys in tests for which more is better: `KEYGEN_TEST_KEYS`, or 12.
fn many() -> usize {
    std::env::var("KEYGEN_TEST_KEYS").map_or(12, |count| count.parse().unwrap())
}

/// Starts a host with a key for each of these expiries.
fn host_with(expiries: &[Value]) -> Host {
    let host = Host::start_with(Transport::PassedUnix, &[("COPR_KEYGEN_QUEUE_TIMEOUT", "60s")]);
    for (number, expire) in expiries.iter().enumerate() {
        let reply = host.gen_key_patiently(&name(number), &json!({"expire": expire}));
        assert_eq!(reply.status, 201, "{}", host.log());
    }
    host
}

fn key(host: &Host, number: usize) -> Value {
    host.json(&["show", "--json", &name(number)])
}

/// Returns the days until the key expires according to gpg, or `None` if it never does.
fn days_left(host: &Host, number: usize) -> Option<u64> {
    let listing = host.gpg(&name(number), &["--with-colons", "--list-keys"]);
    let fields = listing.lines().find_map(|line| line.strip_prefix("pub:")).unwrap();
    let expires: u64 = fields.split(':').nth(5).unwrap().parse().ok()?;
    Some((expires - now() + DAY / 2) / DAY)
}

fn self_signatures(host: &Host, number: usize) -> usize {
    let listing = host.gpg(&name(number), &["--with-colons", "--check-sigs"]);
    listing.lines().filter(|line| line.starts_with("sig:!")).count()
}

/// Makes `key.json` say that the key expires at `at` (Unix time). The certificate is not changed.
fn expire_at(host: &Host, number: usize, at: u64) {
    let record = host.home(&name(number)).join("key.json");
    let mut object: Value = serde_json::from_slice(&fs::read(&record).unwrap()).unwrap();
    object["expires"] = json!(at);
    fs::write(&record, object.to_string()).unwrap();
}

#[test]
fn what_is_due_is_prolonged_and_nothing_else() {
    let host = host_with(&[json!(30), json!("2y"), json!(0), json!("10y")]);
    let before = [1, 2, 3].map(|number| snapshot(&host.home(&name(number))));
    let dry = host.json(&["prolong", "--dry-run", "--json"]);
    assert_eq!(dry["due"][0]["name_email"], name(0));
    assert_eq!(days_left(&host, 0), Some(30));

    let done = host.json(&["prolong", "--json"]);
    assert_eq!((&done["seen"], &done["failed"], &done["left"]), (&json!(4), &json!([]), &json!(0)));
    assert_eq!(done["prolonged"].as_array().map(Vec::len), Some(1), "{done}");
    assert_eq!(done["prolonged"][0]["name_email"], name(0));
    assert_eq!(days_left(&host, 0), Some(5 * 365));
    assert_eq!(key(&host, 0)["expires"], done["until"]);
    assert_eq!(self_signatures(&host, 0), 2);
    assert_signs(&host, &name(0));
    assert_eq!(before, [1, 2, 3].map(|number| snapshot(&host.home(&name(number)))));

    // `prolong` never makes a key expire earlier.
    let done = host.json(&["prolong", "--within", "11y", "--by", "3y", "--json"]);
    assert_eq!(done["prolonged"].as_array().map(Vec::len), Some(1), "{done}");
    assert_eq!(days_left(&host, 1), Some(3 * 365));
    assert_eq!(days_left(&host, 2), None);
    assert_eq!(days_left(&host, 3), Some(10 * 365));
    assert_eq!(host.entries("staging"), [""; 0]);
}

#[test]
fn expired_keys_are_prolonged_only_when_told_to() {
    let host = host_with(&[json!(30)]);
    // A run that stopped after it changed the certificate leaves the same difference to key.json.
    expire_at(&host, 0, now() - DAY);
    let left_alone = host.run(&["prolong"]);
    assert!(left_alone.status.success());
    assert!(text(&left_alone).contains("1 key has expired"), "{}", text(&left_alone));
    assert_eq!(days_left(&host, 0), Some(30));
    let done = host.json(&["prolong", "--expired", "--json"]);
    assert_eq!(done["prolonged"].as_array().map(Vec::len), Some(1), "{done}");
    assert_eq!(days_left(&host, 0), Some(5 * 365));
}

#[test]
fn a_record_that_is_behind_its_certificate_is_brought_up_to_it() {
    let host = host_with(&[json!("6y")]);
    expire_at(&host, 0, now() + DAY);
    let certificate = fs::read(host.home(&name(0)).join("pubring.kbx")).unwrap();
    let done = host.json(&["prolong", "--json"]);
    assert_eq!((&done["already"], &done["prolonged"]), (&json!(1), &json!([])));
    assert_eq!(fs::read(host.home(&name(0)).join("pubring.kbx")).unwrap(), certificate);
    assert_eq!(key(&host, 0)["expires"].as_u64().unwrap() / DAY, (now() + 6 * 365 * DAY) / DAY);

    // If key.json is missing, gpg is asked, and the file is written once the key is due.
    fs::remove_file(host.home(&name(0)).join("key.json")).unwrap();
    assert_eq!(host.json(&["list", "--expires-before", "7y"])[0]["algorithm"], "rsa2048");
    let done = host.json(&["prolong", "--within", "7y", "--by", "8y", "--json"]);
    assert_eq!(done["prolonged"].as_array().map(Vec::len), Some(1), "{done}");
    assert!(host.home(&name(0)).join("key.json").exists());
}

#[test]
fn what_is_not_as_it_must_be_is_not_published_and_does_not_stop_the_rest() {
    let mut host = host_with(&[json!(30), json!(30)]);
    let homes = || [0, 1].map(|number| snapshot(&host.home(&name(number))));
    let before = homes();
    let gpg = stand_in(&host, "");
    let gpg = gpg.to_str().unwrap();
    let expiring = r#"case "$*" in *quick-set-expire*)"#;
    let merging = r#"case "$*" in *--import*)"#;
    for (script, words) in [
        // gpg merges nothing: the old self-signature is lost.
        (format!("{merging} exit 0 ;; esac"), "is gone"),
        // gpg reports success and has changed nothing.
        (format!("{expiring} exit 0 ;; esac"), "it expires"),
        // gpg sets another expiry than it was asked for.
        (
            format!(
                r#"{expiring} while [ "$1" != --quick-set-expire ]; do set -- "$@" "$1"; shift; done
                shift; fpr=$1; shift 2; exec gpg "$@" --quick-set-expire "$fpr" 3y ;; esac"#
            ),
            "it expires",
        ),
        (format!("{merging} kill -KILL $$ ;; esac"), "killed by SIGKILL"),
        (format!("{expiring} echo no >&2; exit 2 ;; esac"), "exit status 2"),
        (format!("{expiring} echo '[GNUPG:] ERROR x 67141723'; exit 2 ;; esac"), "no space left"),
        ("exec yes".into(), "printed more than 256 KiB"),
        ("echo pub:rubbish".into(), "is not understood"),
    ] {
        stand_in(&host, &format!("{script}\nexec gpg \"$@\""));
        let mut prolong = host.mode(&["prolong"]);
        let output = prolong.env("COPR_KEYGEN_GPG", gpg).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{script}: {}", text(&output));
        assert!(text(&output).contains(words), "{script}: {}", text(&output));
        assert!(text(&output).contains(&name(0)), "{script}: {}", text(&output));
        assert_eq!(homes(), before, "{script}");
        assert_eq!(host.entries("staging"), [""; 0], "{script}");
    }

    // One home is damaged: the other key is prolonged.
    fs::write(host.home(&name(0)).join("pubring.kbx"), "not a keyring").unwrap();
    let output = host.run(&["prolong", "--json"]);
    assert_eq!(output.status.code(), Some(1));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["failed"][0]["name_email"], name(0), "{report}");
    assert_eq!(report["prolonged"][0]["name_email"], name(1), "{report}");
    assert!(host.stop().success());
}

#[test]
fn kills_lose_nothing_and_the_next_run_goes_on_while_keys_are_made_and_sign() {
    let count = many();
    let host = host_with(&vec![json!(30); count]);
    let done = AtomicBool::new(false);
    let prolonged = || {
        let list = host.json(&["list", "--json", "user#p*"]);
        let far = |key: &&Value| key["expires"].as_u64().unwrap() > now() + 1000 * DAY;
        list.as_array().unwrap().iter().filter(far).count()
    };
    std::thread::scope(|scope| {
        let guard = DoneWhenDropped(&done);
        let signing = scope.spawn(|| {
            let mut signatures = 0;
            while !done.load(Ordering::Relaxed) {
                assert_signs(&host, &name(signatures % count));
                signatures += 1;
            }
            signatures
        });
        let made =
            scope.spawn(|| host.gen_key_patiently("user#new@copr.example.org", &json!({})).status);
        for part in 1..=2 {
            let mut run = host.mode(&["prolong"]).stderr(Stdio::null()).spawn().unwrap();
            eventually("some keys to be prolonged", || {
                (prolonged() >= part * count / 4 || run.try_wait().unwrap().is_some()).then_some(())
            });
            kill_child(&mut run);
        }
        // A process that the killed run has just started holds the lock of its key until it notices.
        eventually("the rest to be prolonged", || {
            (host.json(&["prolong", "--json"])["in_use"] == 0).then_some(())
        });
        drop(guard);
        assert_eq!(made.join().unwrap(), 201, "{}", host.log());
        assert!(signing.join().unwrap() > 0);
    });
    assert_eq!(prolonged(), count);
    for number in 0..count.min(50) {
        assert_eq!(days_left(&host, number), Some(5 * 365));
        assert!(self_signatures(&host, number) >= 2);
    }
    assert_eq!(host.entries("staging"), [""; 0]);
}

#[test]
fn a_signal_ends_the_keys_at_work_and_leaves_the_rest() {
    let host = host_with(&vec![json!(30); 6]);
    let mut prolong = host.mode(&["prolong", "--json"]);
    let run = prolong.env("COPR_KEYGEN_JOBS", "1").stdout(Stdio::piped()).stderr(Stdio::null());
    let run = run.spawn().unwrap();
    eventually("work to begin", || (!host.entries("staging").is_empty()).then_some(()));
    kill(Pid::from_raw(run.id().try_into().unwrap()), Signal::SIGTERM).unwrap();
    let output = run.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(143));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(report["left"].as_u64().unwrap() > 0, "{report}");
    assert_eq!(report["failed"], json!([]));
    assert_eq!(host.entries("staging"), [""; 0]);
    let rest = host.json(&["prolong", "--json"]);
    assert_eq!(
        rest["prolonged"].as_array().unwrap().len(),
        usize::try_from(report["left"].as_u64().unwrap()).unwrap()
    );
}

#[test]
fn two_runs_at_once_share_the_work() {
    let host = host_with(&vec![json!(30); 6]);
    let runs =
        [0, 1].map(|_| host.mode(&["prolong", "--json"]).stdout(Stdio::piped()).spawn().unwrap());
    let mut prolonged = Vec::new();
    for run in runs {
        let output = run.wait_with_output().unwrap();
        assert!(output.status.success());
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        prolonged.extend(
            report["prolonged"].as_array().unwrap().iter().map(|key| key["name_email"].to_string()),
        );
    }
    prolonged.sort();
    assert_eq!(prolonged, (0..6).map(|number| json!(name(number)).to_string()).collect::<Vec<_>>());
    for number in 0..6 {
        assert_eq!(self_signatures(&host, number), 2);
    }
}

#[test]
fn a_clock_before_the_newest_key_prolongs_nothing() {
    let host = host_with(&[json!(30), json!(30)]);
    let record = host.home(&name(1)).join("key.json");
    let mut object: Value = serde_json::from_slice(&fs::read(&record).unwrap()).unwrap();
    object["created"] = json!(now() + DAY);
    fs::write(&record, object.to_string()).unwrap();
    let output = host.run(&["prolong"]);
    assert_eq!(output.status.code(), Some(1));
    let words = text(&output);
    assert!(words.contains("set the clock") && words.contains(&name(1)), "{words}");
    assert_eq!(days_left(&host, 0), Some(30));
}

#[test]
fn what_cannot_be_asked_for_is_refused() {
    let host = host_with(&[]);
    for arguments in [&["--by", "0"][..], &["--by", "200y"], &["--within", "x"], &["--by", "100y"]]
    {
        let output = host.mode(&["prolong"]).args(arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {}", text(&output));
        assert!(text(&output).contains(arguments[0]), "{}", text(&output));
    }
}

/// Writes a hook that appends what it is told to the file `told`, and fails if there is a file `refuse`.
fn hook(host: &Host) -> String {
    let path = host.scratch().join("hook");
    let directory = host.scratch().display();
    let script = format!("cat >>{directory}/told\necho told\ntest ! -e {directory}/refuse");
    write_script(&path, &script);
    path.to_str().unwrap().into()
}

fn told(host: &Host) -> BTreeMap<String, usize> {
    let mut times = BTreeMap::new();
    let text = fs::read_to_string(host.scratch().join("told")).unwrap_or_default();
    for name in text.lines() {
        *times.entry(name.to_owned()).or_default() += 1;
    }
    times
}

#[test]
fn the_hook_hears_of_every_changed_certificate_even_after_failures() {
    let mut host = host_with(&[json!(30), json!(0), json!(30)]);
    host.set("COPR_KEYGEN_HOOK", hook(&host));
    // The hook is not told of a key that fails because it is damaged.
    let pubring = host.home(&name(2)).join("pubring.kbx");
    let whole = fs::read(&pubring).unwrap();
    fs::write(&pubring, "x").unwrap();
    fs::write(host.scratch().join("refuse"), "").unwrap();
    let output = host.run(&["prolong", "--json"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(serde_json::from_slice::<Value>(&output.stdout).is_ok(), "the hook got into stdout");
    assert!(text(&output).contains("the next run tells it the same names again"));
    assert_eq!(told(&host).into_iter().collect::<Vec<_>>(), [(name(0), 1)]);

    fs::remove_file(host.scratch().join("refuse")).unwrap();
    fs::write(&pubring, whole).unwrap();
    host.json(&["prolong", "--json"]);
    assert_eq!(told(&host).into_iter().collect::<Vec<_>>(), [(name(0), 2), (name(2), 1)]);

    // No key has changed for longer than runs may overlap, so the hook does not run at all.
    for number in [0, 2] {
        let record = host.home(&name(number)).join("key.json");
        let mut object: Value = serde_json::from_slice(&fs::read(&record).unwrap()).unwrap();
        object["changed"] = json!(now() - 120);
        fs::write(&record, object.to_string()).unwrap();
    }
    host.json(&["prolong", "--json"]);
    assert_eq!(told(&host).len(), 2);
    assert_eq!(told(&host)[&name(0)], 2);

    // A run is killed after it has prolonged a key. The next run tells the hook, even if no key is due then.
    expire_at(&host, 0, now() + DAY);
    let gate = host.scratch().join("gate");
    let hangs = format!("touch {}\nsleep 60", gate.display());
    write_script(&host.scratch().join("hook"), &hangs);
    let mut run = host.mode(&["prolong"]).stderr(Stdio::null()).spawn().unwrap();
    eventually("the hook to start", || gate.exists().then_some(()));
    kill_child(&mut run);
    hook(&host);
    host.json(&["prolong", "--json"]);
    assert_eq!(told(&host)[&name(0)], 3);
}

#[test]
fn node_exporter_hears_how_many_keys_there_are() {
    let mut host = host_with(&[json!(30), json!(0)]);
    let file = host.scratch().join("copr-keygen.prom");
    host.set("COPR_KEYGEN_METRICS_FILE", file.display());
    host.json(&["prolong", "--dry-run", "--json"]);
    assert!(!file.exists());
    host.json(&["prolong", "--within", "1d", "--json"]);
    let metrics = fs::read_to_string(&file).unwrap();
    assert!(metrics.contains("\ncopr_keygen_keys 2\n"), "{metrics}");
    assert!(metrics.contains("\ncopr_keygen_keys_expiring{within_days=\"30\"} 1\n"), "{metrics}");

    // A wrong path in metrics_file replaces no file of somebody else, and none of the state.
    let precious = host.scratch().join("precious");
    fs::write(&precious, "precious").unwrap();
    host.set("COPR_KEYGEN_METRICS_FILE", precious.display());
    let output = host.run(&["prolong"]);
    assert_eq!(output.status.code(), Some(1), "{}", text(&output));
    assert!(text(&output).contains("metrics_file"), "{}", text(&output));
    assert_eq!(fs::read(&precious).unwrap(), b"precious");
    let phrase = host.home(&name(0)).join("passphrase");
    let before = fs::read(&phrase).unwrap();
    let by_link = host.scratch().join("link");
    std::os::unix::fs::symlink(host.home(&name(0)), &by_link).unwrap();
    for path in [phrase.clone(), by_link.join("passphrase"), host.state().join("x.prom")] {
        host.set("COPR_KEYGEN_METRICS_FILE", path.display());
        for mode in ["prolong", "check"] {
            let output = host.run(&[mode]);
            let said = format!("{}{}", text(&output), String::from_utf8_lossy(&output.stdout));
            assert_ne!(output.status.code(), Some(0), "{said}");
            assert!(said.contains("metrics_file") && said.contains("state"), "{said}");
            assert_eq!(fs::read(&phrase).unwrap(), before);
        }
    }

    // If the metrics cannot be written, `prolong` fails, but only after it has prolonged the keys.
    host.set("COPR_KEYGEN_METRICS_FILE", "/nonexistent/copr-keygen.prom");
    let output = host.run(&["prolong"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output).contains("/nonexistent/copr-keygen.prom"), "{}", text(&output));
    assert_eq!(days_left(&host, 0), Some(5 * 365));
}

#[test]
fn a_hook_that_is_not_there_is_a_failure_with_a_name() {
    let mut host = host_with(&[json!(30)]);
    host.set("COPR_KEYGEN_HOOK", "/nonexistent/hook");
    let output = host.run(&["prolong"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output).contains("/nonexistent/hook"), "{}", text(&output));
    assert_eq!(days_left(&host, 0), Some(5 * 365));
}

#[test]
fn fifty_thousand_keys_that_are_not_due_cost_little() {
    let count = many().max(200);
    let host = host_with(&[json!(0)]);
    let record = fs::read(host.home(&name(0)).join("key.json")).unwrap();
    for number in 1..count {
        let home = host.home(&name(number));
        fs::create_dir(&home).unwrap();
        fs::write(home.join("key.json"), &record).unwrap();
    }
    let output = Command::new("/bin/sh")
        .args(["-c", r#""$@" & wait $!"#, "sh"])
        .arg(host.mode(&["prolong"]).get_program())
        .args(["prolong", "--json"])
        .env("COPR_KEYGEN_STATE_DIR", host.state())
        .env("COPR_KEYGEN_CONFIG", "/dev/null")
        .output()
        .unwrap();
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["seen"], json!(count));
    assert_eq!(report["due"], json!([]));
    assert!(!Path::new(&host.state().join("hook-stamp")).exists());
}
