//! Reading over HTTP: `GET /keys`, one key, its certificate.

use std::collections::BTreeSet;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::faults::{host_with_gpg, stand_in};
use super::host::{Host, Reply, TRANSPORTS, Transport, eventually};

const ID: &str = "user#project@copr.example.org";
const ENCODED: &str = "user%23project@copr.example.org";
const OTHER: &str = "@group#jürgen@copr.example.org";

/// Returns the body, decoded if it is chunked.
pub fn body_of(reply: &Reply) -> String {
    if reply.header("Transfer-Encoding").is_none() {
        return reply.body.clone();
    }
    let (mut rest, mut body) = (reply.body.as_str(), String::new());
    loop {
        let (size, chunk) = rest.split_once("\r\n").expect("a cut-off answer");
        let size = usize::from_str_radix(size, 16).unwrap();
        body.push_str(&chunk[..size]);
        rest = chunk[size..].strip_prefix("\r\n").unwrap();
        if size == 0 {
            assert_eq!(rest, "");
            return body;
        }
    }
}

pub fn list(host: &Host, query: &str) -> Vec<Value> {
    let reply = host.get(&format!("/keys{query}")).unwrap();
    assert_eq!(reply.status, 200, "{query}: {reply:?}");
    assert_eq!(reply.header("Content-Type"), Some("application/json"));
    serde_json::from_str(&body_of(&reply)).unwrap()
}

fn names(host: &Host, query: &str) -> BTreeSet<String> {
    let keys = list(host, query);
    let names: BTreeSet<_> =
        keys.iter().map(|key| key["name_email"].as_str().unwrap().to_owned()).collect();
    assert_eq!(names.len(), keys.len());
    names
}

fn request(host: &Host, line: &str) -> Reply {
    host.send(format!("{line}\r\nHost: sign-host\r\n\r\n").as_bytes()).unwrap()
}

pub fn record(host: &Host, id: &str) -> Value {
    serde_json::from_slice(&fs::read(host.home(id).join("key.json")).unwrap()).unwrap()
}

/// Makes `copies` of the home of `id`. The number of each is in its name and, plus one, in `created` and
/// `changed` of its record. `change` may change the record further.
pub fn multiply(host: &Host, id: &str, copies: u64, change: impl Fn(u64, &mut Value)) {
    let record = record(host, id);
    for number in 0..copies {
        let home = host.home(&copy_id(number));
        copy(&host.home(id), &home);
        fs::remove_file(home.join("key.json")).unwrap();
        let mut record = record.clone();
        record["created"] = json!(number + 1);
        record["changed"] = json!(number + 1);
        change(number, &mut record);
        fs::write(home.join("key.json"), record.to_string()).unwrap();
    }
}

pub fn copy_id(number: u64) -> String {
    format!("copy{number}#{}@copr.example.org", "x".repeat(150))
}

/// Copies a home by hard links, which are much faster than copies. A file can have 65,000 of them.
fn copy(from: &std::path::Path, to: &std::path::Path) {
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let (entry, to) = (entry.as_ref().unwrap(), to.join(entry.as_ref().unwrap().file_name()));
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &to);
        } else if fs::hard_link(entry.path(), &to).is_err() {
            fs::copy(entry.path(), &to).unwrap();
        }
    }
}

#[test]
fn keys_are_listed_and_shown_over_every_transport() {
    for transport in TRANSPORTS {
        let host = Host::start(transport);
        assert_eq!(list(&host, ""), [Value::Null; 0], "{transport:?}");
        assert_eq!(host.gen_key(ID, json!({"expire": "1y"})).unwrap().status, 201);
        let mut expected = record(&host, ID);
        expected["name_email"] = json!(ID);
        assert_eq!(list(&host, ""), [expected.clone()], "{transport:?}");

        let shown = host.get(&format!("/keys/{ENCODED}")).unwrap();
        assert_eq!((shown.status, shown.header("Content-Type")), (200, Some("application/json")));
        assert_eq!(serde_json::from_str::<Value>(&shown.body).unwrap(), expected);
        let pubkey = host.get(&format!("/keys/{ENCODED}/pubkey")).unwrap();
        assert_eq!(pubkey.header("Content-Type"), Some("application/pgp-keys"));
        assert!(pubkey.body.starts_with("-----BEGIN PGP PUBLIC KEY BLOCK-----\n"), "{pubkey:?}");

        let fingerprint = expected["fingerprint"].as_str().unwrap();
        let log = host.log();
        let line = log.lines().find(|line| line.contains("/pubkey 200 ")).unwrap();
        assert!(line.ends_with(&format!(" {ID} {fingerprint}")), "{line}");
    }
}

#[test]
fn a_list_is_chunked_for_new_clients_and_ends_with_the_connection_for_old_ones() {
    let host = Host::start(Transport::ListenTcp);
    assert_eq!(host.gen_key(ID, json!({})).unwrap().status, 201);
    let new = request(&host, "GET /keys HTTP/1.1");
    assert_eq!(new.header("Transfer-Encoding"), Some("chunked"));
    let old = request(&host, "GET /keys HTTP/1.0");
    assert_eq!(old.header("Transfer-Encoding"), None);
    assert_eq!(body_of(&new), old.body);
    for reply in [&new, &old] {
        assert_eq!(reply.header("Content-Length"), None);
        assert_eq!(reply.header("Connection"), Some("close"));
        assert!(reply.header("X-Request-Id").is_some());
    }
}

#[test]
fn head_answers_as_get_does_without_the_body() {
    let host = Host::start(Transport::PassedUnix);
    assert_eq!(host.gen_key(ID, json!({})).unwrap().status, 201);
    for (path, status) in [
        ("/keys".to_owned(), 200),
        ("/keys?changed_since=x".into(), 400),
        (format!("/keys/{ENCODED}"), 200),
        (format!("/keys/{ENCODED}/pubkey"), 200),
        ("/keys/user%23none@copr.example.org".into(), 404),
        ("/metrics".into(), 200),
    ] {
        let [get, head] =
            ["GET", "HEAD"].map(|method| request(&host, &format!("{method} {path} HTTP/1.1")));
        assert_eq!((get.status, head.status), (status, status), "{path}");
        assert_eq!(head.body, "", "{path}");
        assert!(!get.body.is_empty(), "{path}");
        assert_eq!(head.header("Content-Type"), get.header("Content-Type"), "{path}");
        if path != "/metrics" {
            assert_eq!(head.header("Content-Length"), get.header("Content-Length"), "{path}");
        }
    }
}

#[test]
fn other_methods_are_told_which_fit() {
    let host = Host::start(Transport::PassedUnix);
    let pubkey = format!("/keys/{ENCODED}/pubkey");
    for path in ["/keys", &format!("/keys/{ENCODED}"), &pubkey, "/keys/nonsense", "/metrics"] {
        for method in ["POST", "PUT", "DELETE", "PATCH", "get"] {
            let reply = request(&host, &format!("{method} {path} HTTP/1.1"));
            assert_eq!((reply.status, reply.header("Allow")), (405, Some("GET, HEAD")), "{path}");
        }
    }
}

#[test]
fn hostile_and_wrong_names_are_refused_and_lead_nowhere() {
    let host = Host::start(Transport::PassedUnix);
    assert_eq!(host.gen_key(ID, json!({})).unwrap().status, 201);
    for encoded in [
        ENCODED,
        "%75ser%23project%40copr.example.org",
        "%75%73%65%72%23%70roject@copr%2Eexample%2eorg",
    ] {
        assert_eq!(host.get(&format!("/keys/{encoded}")).unwrap().status, 200, "{encoded}");
    }
    let long = format!("user%23{}@c", "p".repeat(300));
    for (segment, status) in [
        ("", 404),
        ("/", 404),
        ("/pubkey", 404),
        ("user%23project@copr.example.org/", 404),
        ("user%23project@copr.example.org/key.json", 404),
        ("user%23project@copr.example.org/pubkey/", 404),
        ("../keys/user%23project@copr.example.org", 404),
        ("user%23none@copr.example.org", 404),
        ("user%23none@copr.example.org/pubkey", 404),
        ("User%23project@copr.example.org", 404),
        ("user%23project@copr.example.org/../../passphrase", 404),
        ("user%2523project@copr.example.org", 400),
        ("user#project@copr.example.org", 400),
        ("user", 400),
        ("..", 400),
        ("%2e%2e", 400),
        ("%2e%2e%2f%2e%2e%2fetc%2fpasswd", 400),
        ("user%23project@copr.example.org%2fpassphrase", 400),
        ("user%23project@copr.example.org%2Fpubkey", 400),
        ("user%23project@copr.example.org%00", 400),
        ("user%23project@copr.example.org%00/pubkey", 400),
        ("user%23project@copr.example.org%0a", 400),
        ("user%23project@copr.example.org%", 400),
        ("user%23project@copr.example.org%2", 400),
        ("user%23project@copr.example.org%zz", 400),
        ("user%23project@copr.example.org%ff", 400),
        ("j%c3%23project@copr.example.org", 400),
        ("%c0%ae%23project@copr.example.org", 400),
        ("jürgen%23project@copr.example.org", 400),
        ("user%23project@copr.example.org.lock", 400),
        ("--homedir%23project@copr.example.org", 400),
        ("user%23%2a@copr.example.org", 400),
        ("user%23*@copr.example.org", 400),
        (&long, 400),
    ] {
        let reply = host.get(&format!("/keys/{segment}")).unwrap();
        assert_eq!(reply.status, status, "{segment}: {reply:?}");
        assert_eq!(reply.header("Content-Type"), Some("text/plain;charset=UTF-8"), "{segment}");
        assert_eq!(reply.body.lines().count(), 1, "{segment}: {reply:?}");
        assert!(!reply.body[..reply.body.len() - 1].contains(char::is_control), "{reply:?}");
    }
    let nothing = host.get("/keys/user%23none@copr.example.org").unwrap();
    assert_eq!(nothing.body, "there is no key of user#none@copr.example.org\n");
    let nowhere = host.get("/key").unwrap();
    assert!(nowhere.body.contains("/keys/NAME_EMAIL/pubkey and /metrics"), "{nowhere:?}");
}

#[test]
fn filters_let_through_what_they_say() {
    let host = Host::start(Transport::PassedUnix);
    assert_eq!(host.gen_key(ID, json!({})).unwrap().status, 201);
    multiply(&host, ID, 4, |number, record| record["expires"] = json!((number + 1) * 100));
    fs::remove_dir_all(host.home(ID)).unwrap();
    let numbers = |query: &str| -> Vec<u64> {
        let names = names(&host, query);
        names.iter().map(|name| name.as_bytes()[4].wrapping_sub(b'0').into()).collect()
    };
    assert_eq!(numbers(""), [0, 1, 2, 3]);
    assert_eq!(numbers("?"), [0, 1, 2, 3]);
    assert_eq!(numbers("?changed_since=0"), [0, 1, 2, 3]);
    assert_eq!(numbers("?changed_since=3"), [2, 3]);
    assert_eq!(numbers("?expires_before=300"), [0, 1]);
    assert_eq!(numbers("?changed_since=2&expires_before=301"), [1, 2]);
    assert_eq!(numbers("?expires_before=0"), [0; 0]);
    assert_eq!(numbers("?changed_since=18446744073709551615"), [0; 0]);
    for (query, named) in [
        ("changed_since=", "changed_since: "),
        ("changed_since=-1", "changed_since: "),
        ("changed_since=1.0", "changed_since: "),
        ("changed_since=1e3", "changed_since: "),
        ("changed_since=yesterday", "changed_since: "),
        ("expires_before=18446744073709551616", "expires_before: "),
        ("expires_before=%201", "expires_before: "),
        ("expires_before=+1", "expires_before: "),
        ("changed_since=1&changed_since=2", "changed_since: may be there only once"),
        ("pattern=*", "'pattern'"),
        ("changed_since=1&limit=3", "'limit'"),
        ("changed_since=1&", "''"),
        ("<script>=1", "'<script>'"),
    ] {
        let reply = host.get(&format!("/keys?{query}")).unwrap();
        assert_eq!((reply.status, reply.body.lines().count()), (400, 1), "{query}: {reply:?}");
        assert!(reply.body.contains(named), "{query}: {reply:?}");
    }
    let reply = host.get(&format!("/keys/{ENCODED}/pubkey?armor=no")).unwrap();
    assert_eq!(reply.status, 400);
    assert!(reply.body.contains("'armor'"), "{reply:?}");
}

#[test]
fn the_certificate_is_taken_by_a_fresh_gpg_home_with_every_self_signature() {
    let host = Host::start(Transport::ListenTcp);
    assert_eq!(host.gen_key(OTHER, json!({"expire": "1y"})).unwrap().status, 201);
    let work = tempfile::Builder::new().prefix("ckg-").tempdir_in("/tmp").unwrap();
    let longer = work.path().join("longer.pgp");
    // Make a second self-signature and merge it into the keyring as `prolong` does.
    let script = r#"set -e; cp -a "$1/." "$2/h"; cd "$2"; g="gpg --batch --quiet --homedir $2/h"
        $g --export >old.pgp; sleep 1
        $g --pinentry-mode loopback --passphrase-file "$1/passphrase" \
           --quick-set-expire "$3" 20400101T000000
        $g --import old.pgp; gpgconf --homedir "$2/h" --kill all; cp h/pubring.kbx "$4""#;
    fs::create_dir(work.path().join("h")).unwrap();
    fs::set_permissions(work.path().join("h"), Permissions::from_mode(0o700)).unwrap();
    let fingerprint = record(&host, OTHER)["fingerprint"].as_str().unwrap().to_owned();
    let prolong = Command::new("sh")
        .args(["-c", script, "sh"])
        .args([host.home(OTHER).as_path(), work.path(), fingerprint.as_ref(), &longer])
        .output()
        .unwrap();
    assert!(prolong.status.success(), "{prolong:?}");
    fs::rename(&longer, host.home(OTHER).join("pubring.kbx")).unwrap();

    let reply = host.get("/keys/%40group%23j%C3%BCrgen%40copr.example.org/pubkey").unwrap();
    assert_eq!(reply.status, 200, "{reply:?}");
    let file = work.path().join("certificate.asc");
    fs::write(&file, &reply.body).unwrap();
    let gpg = |arguments: &[&str]| {
        let home = work.path().join("fresh");
        let mut gpg = Command::new("gpg");
        gpg.args(["--batch", "--homedir"]).arg(&home).args(arguments);
        let output = gpg.output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    fs::create_dir(work.path().join("fresh")).unwrap();
    fs::set_permissions(work.path().join("fresh"), Permissions::from_mode(0o700)).unwrap();
    gpg(&["--import", file.to_str().unwrap()]);
    let listing = gpg(&["--with-colons", "--check-sigs"]);
    assert!(listing.contains(&fingerprint), "{listing}");
    let good = listing.lines().filter(|line| line.starts_with("sig:!:")).count();
    assert_eq!(good, 2, "{listing}");
}

#[test]
fn a_key_without_its_record_is_asked_of_gpg() {
    let host = Host::start(Transport::PassedUnix);
    assert_eq!(host.gen_key(ID, json!({"expire": "3y"})).unwrap().status, 201);
    let mut expected = record(&host, ID);
    expected["name_email"] = json!(ID);
    for spoil in [true, false] {
        let path = host.home(ID).join("key.json");
        if spoil {
            fs::write(&path, "{").unwrap()
        } else {
            fs::remove_file(&path).unwrap()
        }
        assert_eq!(list(&host, ""), [expected.clone()]);
        let shown = host.get(&format!("/keys/{ENCODED}")).unwrap();
        assert_eq!(serde_json::from_str::<Value>(&shown.body).unwrap(), expected);
        assert_eq!(host.get(&format!("/keys/{ENCODED}/pubkey")).unwrap().status, 200);
    }
}

#[test]
fn keys_that_cannot_be_read_are_left_out_and_counted_in_the_log() {
    let host = Host::start(Transport::PassedUnix);
    assert_eq!(host.gen_key(ID, json!({})).unwrap().status, 201);
    multiply(&host, ID, 20, |_, _| {});
    for number in 0..15 {
        let home = host.home(&copy_id(number));
        fs::remove_file(home.join("key.json")).unwrap();
        match number % 3 {
            0 => fs::remove_file(home.join("pubring.kbx")).unwrap(),
            1 => {
                fs::remove_file(home.join("pubring.kbx")).unwrap();
                fs::write(home.join("pubring.kbx"), "no keyring").unwrap();
            }
            _ => {
                fs::remove_dir_all(&home).unwrap();
                fs::write(&home, "a file").unwrap();
            }
        }
    }
    // An entry whose name is no identity, and an empty directory, are not reported.
    fs::create_dir(host.state().join("keys/lost+found")).unwrap();
    fs::create_dir(host.state().join("keys/empty#project@copr.example.org")).unwrap();
    let good: BTreeSet<_> = (15..20).map(copy_id).chain([ID.to_owned()]).collect();
    assert_eq!(names(&host, ""), good);
    let log = host.log();
    assert_eq!(log.matches("left out of the list: ").count(), 10, "{log}");
    assert!(log.contains("15 keys could not be read and were left out of a list"), "{log}");
    let damaged = host.get(&format!("/keys/{}", copy_id(0).replace('#', "%23"))).unwrap();
    assert_eq!(damaged.status, 500);
    assert!(!damaged.body.contains("pubring"), "{damaged:?}");
}

#[test]
fn certificates_wait_for_a_permit_and_not_for_ever() {
    let script = r#"case "$*" in *--export*) touch "$here/began"; until [ -e "$here/go" ]; do
        sleep 0.05; done;; esac; exec gpg "$@""#;
    let settings = [("COPR_KEYGEN_JOBS", "1"), ("COPR_KEYGEN_QUEUE_TIMEOUT", "300ms")];
    let host = host_with_gpg(script, &settings);
    assert_eq!(host.gen_key_patiently(ID, &json!({})).status, 201, "{}", host.log());
    let path = format!("/keys/{ENCODED}/pubkey");
    thread::scope(|scope| {
        let first = scope.spawn(|| host.get(&path).unwrap());
        eventually("gpg to begin", || fs::exists(host.scratch().join("began")).ok()?.then_some(()));
        let asked = Instant::now();
        let busy = host.get(&path).unwrap();
        assert_eq!((busy.status, busy.header("Retry-After")), (503, Some("5")), "{busy:?}");
        assert!(asked.elapsed() >= Duration::from_millis(300), "it did not wait");
        // Making a key takes one of the same permits. Requests that need no gpg take none.
        assert_eq!(host.gen_key("user#b@copr.example.org", json!({})).unwrap().status, 503);
        assert_eq!(host.get(&format!("/keys/{ENCODED}")).unwrap().status, 200);
        assert_eq!(list(&host, "").len(), 1);
        fs::write(host.scratch().join("go"), "").unwrap();
        assert_eq!(first.join().unwrap().status, 200, "{}", host.log());
    });
}

#[test]
fn a_directory_that_cannot_be_read_is_no_empty_list() {
    let host = Host::start(Transport::PassedUnix);
    fs::remove_dir(host.state().join("keys")).unwrap();
    assert_eq!(host.get("/keys").unwrap().status, 500);
    fs::create_dir(host.state().join("keys")).unwrap();
    assert_eq!(list(&host, ""), [Value::Null; 0]);
}

#[test]
fn a_key_that_leaves_while_gpg_reads_it_is_not_there() {
    let script = r#"if [ -e "$here/leave" ]; then
        mv "$HOME_OF_KEY" "$here/home"; gpg "$@"; status=$?
        read back <"$here/leave"; rm "$here/leave"
        [ "$back" = no ] || mv "$here/home" "$HOME_OF_KEY"
        exit $status; fi
        exec gpg "$@""#;
    let host = host_with_gpg("", &[]);
    stand_in(&host, &script.replace("$HOME_OF_KEY", host.home(ID).to_str().unwrap()));
    assert_eq!(host.gen_key_patiently(ID, &json!({})).status, 201, "{}", host.log());
    let path = format!("/keys/{ENCODED}/pubkey");
    for (back, status) in [("yes", 200), ("no", 404)] {
        fs::write(host.scratch().join("leave"), format!("{back}\n")).unwrap();
        let reply = host.get(&path).unwrap();
        assert_eq!(reply.status, status, "{back}: {reply:?} {}", host.log());
    }
}
