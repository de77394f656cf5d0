//! What `signd` says of its work, one line for each request and metrics, and what it never says.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::certificate::text;
use super::host::{Host, Transport, eventually};
use super::old_host::OldHost;
use super::signer_client::{argument, new, old, probe};
use super::signer_host::{ABSENT, ID, OTHER, SignerHost, ask, fingerprint, host_with, sign, time};
use super::starting::Program;

/// Returns the words of each line of the log.
fn lines(host: &Host) -> Vec<Vec<String>> {
    let log = host.log();
    let words = |line: &str| line.split_whitespace().map(str::to_owned).collect();
    log.lines().map(words).collect()
}

#[test]
fn every_request_has_a_line_that_says_who_what_and_how_long() {
    let keys = host_with(&[ID]);
    let host = SignerHost::around(keys, Transport::ListenTcp, &[]);
    let begun = lines(&host).len();
    let digest = argument(8, b"data", 0, time());
    let hex = digest.split('@').next().unwrap();
    let print = fingerprint(&host.keys, ID);
    let two = new(&["sign", &format!("SHA256:{ID}"), &digest, &digest]);
    let expected = [
        (vec![0; 4], "ping ok".to_owned()),
        (old(ID, "PUBKEY"), format!("pubkey ok {ID}")),
        (old(ID, format!("SHA256:{digest}")), format!("sign ok {ID} {print} rsa2048 SHA256 {hex}")),
        (two, format!("sign ok {ID} {print} rsa2048 SHA256 {hex} {hex}")),
        (old(ABSENT, format!("SHA256:{digest}")), format!("sign unknown {ABSENT} SHA256 {hex}")),
        (old(ID, "nonsense"), "- malformed".to_owned()),
        (old(ID, argument(2, b"data", 0, time())), format!("sign unfit {ID} SHA1 ")),
        (new(&["keygen"]), "- malformed".to_owned()),
    ];
    for (request, _) in &expected {
        let _ = host.ask(request);
    }
    let all = eventually("the lines", || {
        let all = lines(&host);
        (all.len() >= begun + expected.len()).then_some(all)
    });
    assert_eq!(all.len(), begun + expected.len(), "{}", host.log());
    for ((_, expected), line) in expected.iter().zip(&all[begun..]) {
        let line = line.join(" ");
        // The line also has a number of the request, the client, and the time that it took.
        assert!(line.contains(&format!(" {expected}")), "{expected:?} is not in {line:?}");
        assert!(line.contains(" 127.0.0.1:") && line.contains(" ms"), "{line}");
    }
    let numbers =
        all[begun..].iter().map(|line| line.iter().find(|word| word.len() == 16).cloned());
    let numbers: std::collections::BTreeSet<_> = numbers.map(Option::unwrap).collect();
    assert_eq!(numbers.len(), expected.len(), "each has a number of its own");
}

#[test]
fn secrets_are_in_no_log_and_in_no_process() {
    let keys = host_with(&[ID]);
    let old_host = OldHost::new(&[]);
    let dsa = "dsa#project@copr.example.org";
    old_host.generate(
        "%no-protection\n",
        [format!(
            "Key-Type: DSA\nKey-Length: 2048\nKey-Usage: sign\nName-Real: x\nName-Email: {dsa}\n%commit\n"
        )],
    );
    let imported = old_host.import(&keys, &[]);
    assert!(imported.status.success(), "{}", text(&imported));
    let phrases: Vec<_> = [ID, dsa]
        .map(|id| fs::read_to_string(keys.home(id).join("passphrase")).unwrap().trim().to_owned())
        .into();
    assert!(phrases.iter().all(|phrase| phrase.len() >= 64));
    let mut signd =
        Host::signd(&keys, Transport::ListenUnix, &[("COPR_KEYGEN_LOG_LEVEL", "trace")]);
    signd.launch();
    let (done, was_agent) = (AtomicBool::new(false), AtomicBool::new(false));
    let mut seen = BTreeMap::new();
    thread::scope(|scope| {
        scope.spawn(|| {
            let deadline = Instant::now() + Duration::from_secs(120);
            let mut rounds = 0;
            // The look at all processes may miss an agent, which lives for a moment only.
            while rounds < 5 || (!was_agent.load(Ordering::SeqCst) && Instant::now() < deadline) {
                rounds += 1;
                for id in [ID, dsa] {
                    sign(&signd, id, b"data").unwrap();
                    ask(&signd, &old(id, "PUBKEY")).unwrap();
                }
            }
            done.store(true, Ordering::SeqCst);
        });
        while !done.load(Ordering::SeqCst) {
            for process in fs::read_dir("/proc").unwrap().flatten() {
                for part in ["cmdline", "environ"] {
                    let bytes = fs::read(process.path().join(part)).unwrap_or_default();
                    let text = String::from_utf8_lossy(&bytes).into_owned();
                    if text.contains(keys.state().to_str().unwrap()) {
                        was_agent.fetch_or(text.contains("gpg"), Ordering::SeqCst);
                        seen.insert(process.path().join(part), text);
                    }
                }
            }
        }
    });
    // Some of these processes were agents.
    assert!(seen.values().any(|text| text.contains("gpg")), "{seen:?}");
    let log = signd.log();
    // The secret number of the DSA key, in the clear as in the old host's file. `import` has protected the
    // key.
    let grip = &old_host.keys_of(dsa)[0].1;
    let clear = fs::read_to_string(old_host.secret(grip)).unwrap();
    let clear: String = clear.split_whitespace().collect();
    let secret = clear.split("(x#").nth(1).unwrap();
    // Digits from the middle, where there are neither leading zeros nor an end of a line.
    let secret = secret[8..32].to_owned();
    for secret in phrases.iter().chain([&secret]) {
        assert!(!log.to_lowercase().contains(&secret.to_lowercase()), "{log}");
        assert!(!seen.values().any(|text| text.contains(secret)));
    }
    for line in log.lines() {
        assert!(!line.contains("private-key"), "{line}");
    }
}

#[test]
fn a_log_that_nobody_reads_stops_nothing() {
    let keys = host_with(&[]);
    let socket = keys.scratch().join("signd.socket");
    let mut signd = keys.mode(&["signd"]);
    signd.env("COPR_KEYGEN_SIGND_LISTEN", format!("unix:{}", socket.display()));
    let mut signd = Program(signd.stderr(Stdio::piped()).spawn().unwrap());
    let ping = || {
        let mut answer = Vec::new();
        let mut connection = UnixStream::connect(&socket)?;
        connection.set_read_timeout(Some(Duration::from_secs(20)))?;
        connection.write_all(&[0; 4])?;
        connection.read_to_end(&mut answer).map(|_| answer)
    };
    eventually("an answer", || ping().ok());
    // A pipe holds 64 KiB, which is less than the lines of these pings.
    for _ in 0..2000 {
        assert_eq!(ping().unwrap(), [0; 6]);
    }
    let mut log = BufReader::new(signd.0.stderr.take().unwrap()).lines();
    for _ in 0..100 {
        log.next().unwrap().unwrap();
    }
    ping().unwrap();
    assert!(log.map(Result::unwrap).any(|line| line.contains("lines of this log were lost")));
}

#[test]
fn metrics_count_what_was_answered() {
    let keys = host_with(&[ID, OTHER]);
    let file = keys.scratch().join("signd.prom");
    let environment = [("COPR_KEYGEN_SIGND_METRICS_FILE", file.to_str().unwrap())];
    let mut host = SignerHost::around(keys, Transport::ListenUnix, &environment);
    let digest = argument(8, b"data", 0, time());
    let user = format!("SHA256:{ID}");
    host.ask(&new(&["sign", &user, &digest, &digest, &probe(8), &digest])).unwrap();
    host.sign(OTHER, b"data").unwrap();
    host.ask(&old(ID, format!("SHA256:{}", probe(8)))).unwrap();
    host.pubkey(ID).unwrap();
    host.sign(ABSENT, b"data").unwrap_err();
    host.ask(&old(ID, "nonsense")).unwrap_err();
    host.ask(&old(ID, &digest)).unwrap_err();
    host.ask(&old(ID, argument(2, b"data", 0, time()))).unwrap_err();
    fs::write(host.keys.home(ID).join("passphrase"), "wrong\n").unwrap();
    host.sign(ID, b"data").unwrap_err();
    // signd writes the metrics once more when it stops.
    assert!(host.signd.stop().success());
    let text = fs::read_to_string(&file).unwrap();
    for sample in [
        "copr_keygen_signatures_total{algorithm=\"rsa2048\"} 4",
        "copr_keygen_sign_requests_total{result=\"unknown\"} 1",
        "copr_keygen_sign_requests_total{result=\"malformed\"} 2",
        "copr_keygen_sign_requests_total{result=\"unfit\"} 1",
        "copr_keygen_sign_requests_total{result=\"failed\"} 1",
        "copr_keygen_sign_waiting 0",
        "copr_keygen_sign_seconds_count 2",
        "copr_keygen_sign_seconds_bucket{le=\"+Inf\"} 2",
        "# TYPE copr_keygen_sign_seconds histogram",
    ] {
        assert!(text.lines().any(|line| line == sample), "{sample}: {text}");
    }
    // When it was started, signd may have been pinged more than once until it answered.
    let ok = text
        .lines()
        .find_map(|line| line.strip_prefix("copr_keygen_sign_requests_total{result=\"ok\"} "));
    assert!(ok.unwrap().parse::<u64>().unwrap() >= 5, "{text}");
    let mode = std::os::unix::fs::PermissionsExt::mode(&fs::metadata(&file).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o644, "the collector is another user");
}

#[test]
fn a_metrics_file_that_cannot_be_written_ends_nothing() {
    let keys = host_with(&[ID]);
    let environment = [("COPR_KEYGEN_SIGND_METRICS_FILE", "/nonexistent/signd.prom")];
    let mut host = SignerHost::around(keys, Transport::ListenUnix, &environment);
    host.assert_signs(ID);
    assert!(host.signd.stop().success(), "{}", host.signd.log());
    assert!(host.signd.log().contains("/nonexistent/signd.prom"), "{}", host.signd.log());
}

#[test]
fn a_metrics_file_replaces_nothing_of_somebody_elses() {
    let keys = host_with(&[ID]);
    let precious = keys.scratch().join("precious");
    fs::write(&precious, "precious").unwrap();
    let environment = [("COPR_KEYGEN_SIGND_METRICS_FILE", precious.to_str().unwrap())];
    let mut host = SignerHost::around(keys, Transport::ListenUnix, &environment);
    host.assert_signs(ID);
    assert!(host.signd.stop().success(), "{}", host.signd.log());
    assert!(host.signd.log().contains("signd.metrics_file"), "{}", host.signd.log());
    assert_eq!(fs::read(&precious).unwrap(), b"precious");
}
