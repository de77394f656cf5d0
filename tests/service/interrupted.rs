//! SIGINT and SIGTERM mean the same to every mode. Each mode brings the work at hand to an end, leaves the
//! rest, says so in one line, and exits with the status of the signal.

use std::fs;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use nix::pty::openpty;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;

use super::faults::{processes_of, stand_in};
use super::host::{Host, Transport, eventually};
use super::old_host::{OldHost, plain};
use super::safekeeping::Recipient;
use super::sealing::SealedHost;
use super::shim::Disk;

const SIGNALS: [(Signal, i32); 2] = [(Signal::SIGINT, 130), (Signal::SIGTERM, 143)];

fn name(number: usize) -> String {
    format!("user#p{number}@copr.example.org")
}

/// Starts a host with two keys that expire soon.
fn host() -> Host {
    let host = Host::start_with(Transport::PassedUnix, &[("COPR_KEYGEN_QUEUE_TIMEOUT", "60s")]);
    make(&host);
    host
}

fn make(host: &Host) {
    for number in 0..2 {
        let reply = host.gen_key_patiently(&name(number), &json!({"expire": 30}));
        assert_eq!(reply.status, 201, "{}", host.log());
    }
}

/// A running mode that works on one key at a time.
struct Run<'a> {
    host: &'a Host,
    child: Child,
}

impl<'a> Run<'a> {
    /// Starts a mode whose gpg waits for `go` if its command line matches `pattern`, a shell pattern. Returns
    /// when gpg waits.
    fn gated(host: &'a Host, pattern: &str, arguments: &[&str]) -> Self {
        for file in ["began", "go"] {
            let _ = fs::remove_file(host.scratch().join(file));
        }
        let gpg = stand_in(
            host,
            &format!(
                r#"case "$*" in {pattern})
                    touch "$here/began"; until [ -e "$here/go" ]; do sleep 0.05; done ;; esac
                exec gpg "$@""#
            ),
        );
        let mut mode = host.mode(arguments);
        mode.env("COPR_KEYGEN_GPG", gpg);
        let run = Self::start(host, mode);
        eventually("gpg to run", || host.scratch().join("began").exists().then_some(()));
        run
    }

    fn start(host: &'a Host, mut mode: Command) -> Self {
        let words = fs::File::create(host.scratch().join("words")).unwrap();
        mode.env("COPR_KEYGEN_JOBS", "1").env("COPR_KEYGEN_GPG_TIMEOUT", "60s");
        let child = mode.stdout(Stdio::null()).stderr(words).spawn().unwrap();
        Self { host, child }
    }

    fn words(&self) -> String {
        fs::read_to_string(self.host.scratch().join("words")).unwrap()
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id().try_into().unwrap()), signal).unwrap();
    }

    /// Sends a signal that lets the work at hand come to an end, and waits until the mode has received it.
    fn tell(&self, signal: Signal) {
        self.signal(signal);
        let taken = format!("{signal}: what is at work is brought to an end");
        eventually("the signal to arrive", || self.words().contains(&taken).then_some(()));
    }

    fn go(&self) {
        fs::write(self.host.scratch().join("go"), "").unwrap();
    }

    /// Asserts that the mode ends with the status of the signal, and that its last line contains `left`.
    fn assert_interrupted(mut self, (signal, status): (Signal, i32), left: &str) {
        let ended = self.child.wait().unwrap();
        let words = self.words();
        assert_eq!(ended.code(), Some(status), "{words}");
        let last = words.lines().last().unwrap_or_default();
        let begin = format!("copr-keygen: error: interrupted by {signal}: ");
        assert!(last.starts_with(&begin) && last.contains(left), "{words}");
        self.assert_nothing_is_left();
    }

    fn assert_nothing_is_left(&self) {
        eventually("staging to be empty", || self.host.entries("staging").is_empty().then_some(()));
        eventually("gpg to end", || processes_of(self.host).is_empty().then_some(()));
    }
}

#[test]
fn modes_that_change_keys_finish_the_one_at_hand_and_leave_the_rest() {
    let host = host();
    for end in SIGNALS {
        let prolong = ["prolong", "--by", if end.1 == 130 { "3y" } else { "4y" }, "--within", "3y"];
        let run = Run::gated(&host, "*--quick-set-expire*", &prolong);
        run.tell(end.0);
        run.go();
        run.assert_interrupted(end, "1 key is left for the next run");

        // What `check` has not tried yet must not make the host look unwell.
        let check = ["check", "--deep", "--no-units", "--sign-conf", "/dev/null"];
        let run = Run::gated(&host, "*--check-sigs*", &check);
        run.tell(end.0);
        run.go();
        run.assert_interrupted(end, "not every key was tried");

        let run = Run::gated(&host, "*", &["remove", "--yes", &name(0)]);
        run.tell(end.0);
        run.go();
        run.assert_interrupted(end, "was not removed");
        assert_eq!(host.gen_key(&name(0), json!({})).unwrap().status, 200);
    }
    let output = host.run(&["remove", "--yes", &name(0)]);
    assert!(output.status.success(), "{output:?}");
    for end in SIGNALS {
        let run = Run::gated(&host, "*", &["undo", &name(0)]);
        run.tell(end.0);
        run.go();
        run.assert_interrupted(end, "is in the trash still");
        assert!(!host.home(&name(0)).exists());
    }
    assert!(host.run(&["undo", &name(0)]).status.success());
}

#[test]
fn modes_that_fill_or_copy_say_that_they_are_not_done() {
    let host = host();
    let recipient = Recipient::new();
    let certificate = recipient.certificate.to_str().unwrap();
    let old = OldHost::new(&plain(2));
    for end in SIGNALS {
        let mut fill = host.mode(&["fill-pool"]);
        fill.env("COPR_KEYGEN_POOL", "4096:50");
        let run = Run::start(&host, fill);
        eventually("a key to be begun", || (!host.entries("staging").is_empty()).then_some(()));
        run.tell(end.0);
        run.assert_interrupted(end, "the pool is not full");

        let archive = host.scratch().join("archive");
        let backup = ["backup", "--to", archive.to_str().unwrap(), "--recipient", certificate];
        let run = Run::gated(&host, "*", &backup);
        run.tell(end.0);
        run.go();
        run.assert_interrupted(end, "the archive is not whole");
        assert!(!archive.exists() && !archive.with_extension("part").exists());

        // Without key.json, `export` asks gpg about the key.
        let record = host.home(&name(0)).join("key.json");
        let known = fs::read(&record).unwrap();
        fs::remove_file(&record).unwrap();
        let target = host.scratch().join(format!("export-{}", end.1));
        let run = Run::gated(&host, "*", &["export", "--to", target.to_str().unwrap()]);
        run.tell(end.0);
        run.go();
        run.assert_interrupted(end, "stays marked as INCOMPLETE");
        assert!(target.join("INCOMPLETE").exists());
        fs::write(&record, known).unwrap();

        let (gnupg, phrases) = (old.gnupg(), old.phrases());
        let import =
            ["import", "--from", gnupg.to_str().unwrap(), "--phrases", phrases.to_str().unwrap()];
        let run = Run::gated(&host, "*--change-passphrase*", &import);
        run.tell(end.0);
        run.go();
        run.assert_interrupted(end, "run the same command again to go on");

        // The archive never comes, so no work is at hand.
        let mut restore = host.mode(&["restore", "--from", "-"]);
        let (_sender, receiver) = std::os::unix::net::UnixStream::pair().unwrap();
        restore.stdin(OwnedFd::from(receiver));
        let run = Run::start(&host, restore);
        eventually("it to wait for the archive", || is_polling(run.child.id()).then_some(()));
        run.tell(end.0);
        run.assert_interrupted(end, "run it again with the whole archive");
    }
}

/// Whether the first thread of a process waits in poll(2).
fn is_polling(pid: u32) -> bool {
    let at = |file: &str| fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap_or_default();
    at("wchan").contains("poll")
        || ["7 ", "271 "].iter().any(|number| at("syscall").starts_with(number))
}

#[test]
fn modes_that_only_look_or_ask_end_at_once() {
    let host = host();
    assert!(host.run(&["remove", "--yes", &name(1)]).status.success());
    let record = host.home(&name(0)).join("key.json");
    fs::remove_file(record).unwrap();
    let (old, phrases) = (OldHost::new(&[]), host.scratch());
    old.generate("%no-protection\n", [super::old_host::quick(&name(7), "")]);
    let import =
        ["import", "--from", old.gnupg().to_str().unwrap(), "--phrases", phrases.to_str().unwrap()]
            .map(str::to_owned);
    let import: Vec<_> = import.iter().map(String::as_str).collect();
    for end in SIGNALS {
        for arguments in [
            &["list"][..],
            &["show", &name(0)],
            &["pubkey", &name(0)],
            &["check", "--no-units", "--sign-conf", "/dev/null"],
            &["prolong", "--dry-run"],
            // At this point, the import has only read.
            &import[..],
        ] {
            let run = Run::gated(&host, "*", arguments);
            run.signal(end.0);
            // gpg still waits: the mode does not.
            let words = run.host.scratch().join("words");
            let mut child = run.child;
            assert_eq!(child.wait().unwrap().code(), Some(end.1), "{arguments:?}");
            let said = fs::read_to_string(words).unwrap();
            let line = format!("interrupted by {}: run it again\n", end.0);
            assert!(said.ends_with(&line), "{arguments:?}: {said}");
        }
        for arguments in [&["remove", &name(0)][..], &["purge", "--older-than", "0d"]] {
            let terminal = openpty(None, None).unwrap();
            let mut mode = host.mode(arguments);
            mode.stdin(terminal.slave);
            let run = Run::start(&host, mode);
            eventually("the question", || run.words().contains("Type ").then_some(()));
            run.signal(end.0);
            let words = run.host.scratch().join("words");
            let mut child = run.child;
            assert_eq!(child.wait().unwrap().code(), Some(end.1), "{arguments:?}");
            assert!(fs::read_to_string(words).unwrap().contains("interrupted by "));
        }
    }
    assert!(host.home(&name(0)).exists());
    assert_eq!(host.entries("trash").len(), 1);
}

#[test]
fn modes_that_need_no_gpg_stop_between_two_keys() {
    let mut host = host();
    let fsync = Disk::of(&mut host);
    for end in SIGNALS {
        // Take the secret keys away from signd.
        let links = host.state().join("gnupg/private-keys-v1.d");
        for link in host.entries("gnupg/private-keys-v1.d") {
            fs::remove_file(links.join(link)).unwrap();
        }
        interrupt_between(
            &host,
            &fsync,
            &links,
            &["phrases"],
            end,
            "signd has the phrases of 1 key,",
        );
        assert!(host.run(&["phrases"]).status.success());
    }
    for number in 0..2 {
        assert!(host.run(&["remove", "--yes", &name(number)]).status.success());
    }
    let trash = host.state().join("trash");
    let purge = ["purge", "--yes", "--older-than", "0d"];
    interrupt_between(
        &host,
        &fsync,
        &trash,
        &purge,
        SIGNALS[0],
        "1 of 2 keys are left in the trash",
    );
    assert_eq!(host.entries("trash").len(), 1);
}

#[test]
fn sealing_stops_between_two_passphrases() {
    let mut sealed = SealedHost::new();
    sealed.host.launch();
    make(&sealed.host);
    let fsync = Disk::of(&mut sealed.host);
    for (mode, end) in ["seal", "unseal"].into_iter().zip(SIGNALS) {
        let host = &sealed.host;
        let first = fs::read_dir(host.state().join("keys")).unwrap().next().unwrap().unwrap();
        let left = "every passphrase can be read as before";
        interrupt_between(host, &fsync, &first.path(), &[mode], end, left);
        sealed.well(&[mode]);
    }
}

/// Interrupts a mode while it waits for the first fsync(2) of a directory.
fn interrupt_between(
    host: &Host,
    fsync: &Disk,
    directory: &Path,
    arguments: &[&str],
    end: (Signal, i32),
    left: &str,
) {
    let before = fsync.count("begin", directory);
    fsync.hold(directory);
    let run = Run::start(host, host.mode(arguments));
    eventually("the disk to be waited for", || {
        (fsync.count("begin", directory) > before).then_some(())
    });
    run.tell(end.0);
    fsync.release();
    run.assert_interrupted(end, left);
}

#[test]
fn a_second_signal_ends_what_is_at_work_at_once() {
    let host = host();
    for end in SIGNALS {
        let run = Run::gated(&host, "*--quick-set-expire*", &["prolong"]);
        run.tell(end.0);
        run.signal(end.0);
        let mut child = run.child;
        assert_eq!(child.wait().unwrap().code(), Some(end.1));
        let words = fs::read_to_string(host.scratch().join("words")).unwrap();
        assert!(words.contains("ended at once by a second signal"), "{words}");
    }
    // The next run clears up what was left behind.
    assert!(host.run(&["prolong"]).status.success());
    eventually("staging to be empty", || {
        host.run(&["prolong"]);
        host.entries("staging").is_empty().then_some(())
    });
}
