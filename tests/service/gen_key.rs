//! `POST /gen_key` keeps its contract.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use super::host::{Host, TRANSPORTS, Transport, gen_key_request};

const ID: &str = "user#project@copr.example.org";

#[test]
fn a_key_is_made_once_over_every_transport() {
    for transport in TRANSPORTS {
        let host = Host::start(transport);
        let made = host.gen_key(ID, json!({"expire": "1y"})).unwrap();
        assert_eq!((made.status, made.body.as_str()), (201, ""), "{transport:?}: {}", host.log());
        let record = fs::read(host.home(ID).join("key.json")).unwrap();
        let again = host.gen_key(ID, json!({"expire": "2y"})).unwrap();
        assert_eq!((again.status, again.body.as_str()), (200, ""));
        assert_eq!(fs::read(host.home(ID).join("key.json")).unwrap(), record);
        assert_eq!(host.entries("staging"), [""; 0]);
    }
}

#[test]
fn the_key_is_what_was_asked_for() {
    // The names are the ones that the old service's tests accept.
    let cases = [
        ("frostyx#foo", json!({}), 2048, 0, "user_project"),
        (
            "@copr#foo",
            json!({"key_length": 3072, "expire": "2w", "name_comment": "signs foo"}),
            3072,
            14,
            "user_project (signs foo)",
        ),
        (
            "@db-sig#foo",
            json!({"key_length": "4096", "expire": 30, "name_real": " Jürgen: 50% (team) "}),
            4096,
            30,
            "Jürgen: 50% (team)",
        ),
        (
            "@copr#foo-bar",
            json!({"key_length": null, "expire": "0", "name_comment": null, "colour": ["red"]}),
            2048,
            0,
            "user_project",
        ),
        // gpg takes nothing in a user ID for a parameter or a control statement.
        (
            "frostyx#foo.bar",
            json!({
                "name_real": "%no-protection Key-Type: DSA \\nKey-Length: 1024",
                "name_comment": "%commit, Expire-Date: 1d",
                "expire": "10"
            }),
            2048,
            10,
            "%no-protection Key-Type: DSA \\nKey-Length: 1024 (%commit, Expire-Date: 1d)",
        ),
    ];
    let host = Host::start(Transport::PassedUnix);
    for (name, fields, bits, days, user) in cases {
        let id = format!("{name}@copr.fedorahosted.org");
        let made = host.gen_key_patiently(&id, &fields);
        assert_eq!((made.status, &*made.body), (201, ""), "{id}: {}", host.log());
        assert_key(&host, &id, bits, days, &format!("{user} <{id}>"));
    }
    assert_eq!(host.entries("keys").len(), 5);
}

/// Asserts what gpg lists: one RSA primary key of `bits`, with its secret part, that only signs and
/// certifies, valid for `days` (0: for ever), with one user ID and no subkeys.
fn assert_key(host: &Host, id: &str, bits: u16, days: u64, user_id: &str) {
    let listing = host.gpg(id, &["--with-colons", "--list-secret-keys"]);
    let records = |kind: &str| -> Vec<Vec<&str>> {
        let lines = listing.lines().map(|line| line.split(':').collect::<Vec<_>>());
        lines.filter(|fields| fields[0] == kind).collect()
    };
    let [keys, users, subkeys] = ["sec", "uid", "ssb"].map(records);
    assert_eq!((keys.len(), users.len(), subkeys.len()), (1, 1, 0), "{listing}");
    let key = &keys[0];
    assert_eq!(key[2..4], [&*bits.to_string(), "1"], "{listing}");
    assert_eq!(key[11], "scSC", "{listing}");
    assert_eq!(users[0][9].replace("\\x3a", ":").replace("\\x5c", "\\"), user_id, "{listing}");
    let seconds = |field: &str| field.parse::<u64>().unwrap_or_default();
    let lifetime = seconds(key[6]).saturating_sub(seconds(key[5]));
    assert_eq!((lifetime, key[6].is_empty()), (days * 86_400, days == 0), "{listing}");
}

#[test]
fn the_settings_count_when_the_request_is_silent() {
    let settings = [("COPR_KEYGEN_KEY_LENGTH", "3072"), ("COPR_KEYGEN_EXPIRE", "3w")];
    let host = Host::start_with(Transport::ListenTcp, &settings);
    let cases = [
        ("user#silent@copr.example.org", json!({"expire": null}), 3072, 21),
        ("user#explicit@copr.example.org", json!({"expire": 0, "key_length": 2048}), 2048, 0),
    ];
    for (id, fields, bits, days) in cases {
        assert_eq!(host.gen_key(id, fields).unwrap().status, 201, "{}", host.log());
        assert_key(&host, id, bits, days, &format!("user_project <{id}>"));
    }
}

#[test]
fn the_content_type_is_not_asked_for() {
    let host = Host::start(Transport::ListenTcp);
    let body = json!({"name_real": "user_project", "name_email": ID}).to_string();
    let request = String::from_utf8(gen_key_request(body.as_bytes())).unwrap();
    let named = "Content-Type: application/json\r\n";
    assert!(request.contains(named));
    let others = ["", "Content-Type: text/plain\r\n", "Content-Type: multipart/form-data\r\n"];
    for (other, status) in others.iter().zip([201, 200, 200]) {
        let reply = host.send(request.replace(named, other).as_bytes()).unwrap();
        assert_eq!(reply.status, status, "{other}: {reply:?}");
    }
}

/// Checks that `body` is refused with one line of text about `field`, and leaves no trace.
fn assert_refused(host: &Host, body: &[u8], field: &str) {
    let case = String::from_utf8_lossy(&body[..body.len().min(150)]).into_owned();
    let reply = host.post(body).unwrap();
    assert_eq!(reply.status, 400, "{case}: {reply:?}");
    assert_eq!(reply.header("Content-Type"), Some("text/plain;charset=UTF-8"), "{case}");
    let [line] = reply.body.lines().collect::<Vec<_>>()[..] else { panic!("{case}: {reply:?}") };
    assert!(line.starts_with(field) && line.len() > 15, "{case}: {line}");
    assert!(!line.contains(char::is_control), "{case}: {line:?}");
    for directory in ["keys", "phrases", "gnupg/private-keys-v1.d", "staging", "pool"] {
        assert_eq!(host.entries(directory), [""; 0], "{case}: {directory}");
    }
}

#[test]
fn names_that_are_none_are_refused() {
    let by_the_old_service = "foo user#invalid-email @copr#copr.fedorahosted.org \
        user#foo@@copr.fedorahosted.org @c&pr#foo@copr.fedorahosted.org user#foo@copr.#!&:.org";
    let meant_for_files_and_options = ".. ../user#foo@copr.example.org /tmp/user#foo@example.org \
        ../../../tmp/user#foo@copr.example.org user#../foo@copr.example.org user#foo@copr/../org \
        user\\..#foo@copr.example.org .user#foo@copr.example.org -user#foo@copr.example.org \
        --homedir#foo@copr.example.org user#foo@copr.example.org.lock <user#foo@copr.example.org> \
        user%23foo@copr.example.org user#foo\u{202e}@copr.example.org";
    let long = format!("user#{}@copr.example.org", "p".repeat(180));
    let others = [
        "",
        " ",
        "us er#foo@copr.example.org",
        "user#foo@copr.example.org\n",
        "user#foo@copr.example.org\r\nKey-Type: DSA",
        "user\0#foo@copr.example.org",
        "user#foo@copr.example.org\0",
        "user#foo\u{1b}[31m@copr.example.org",
        &long,
    ];
    let host = Host::start(Transport::PassedTcp);
    let words = by_the_old_service.split(' ').chain(meant_for_files_and_options.split(' '));
    for name in words.chain(others) {
        let body = json!({"name_real": "user_project", "name_email": name}).to_string();
        assert_refused(&host, body.as_bytes(), "name_email: ");
    }
}

#[test]
fn values_that_are_none_are_refused() {
    let (long, long_in_bytes) = ("x".repeat(201), "ü".repeat(101));
    let cases = json!({
        "name_real": [
            "", "  ", "a\nb", "a\r\nKey-Length: 1024", "a\0b", "\u{1b}[31m", "\u{7f}", "\u{85}",
            "\u{2028}", "\u{202e}gro", "a <b@c>", "a>b", long, long_in_bytes, 5, true, ["a"]
        ],
        "name_comment": [
            "a\nb", "a\r\nKey-Length: 1024", "a\0b", "\u{1b}[31m", "\u{7f}", "\u{85}", "\u{2028}",
            "\u{202e}gro", "a <b@c>", "a>b", "a (b", "a) b", long, long_in_bytes, 5, true, ["a"]
        ],
        "name_email": [null, 5, false, ["user#foo@copr.example.org"], {"user": "foo"}],
        "key_length": [
            1024, 9999, "0", -2048, 2048.5, 1e99, "abc", "1024", " ", " 2048", "2048\n", "2048; rm",
            "rsa2048", "٢٠٤٨", true, [2048], {"bits": 2048}
        ],
        "expire": [
            -1, 1.5, 9_999_999, u64::MAX, "-1", " ", "never", "1e9", "2w\nKey-Type: DSA",
            "100y", "99999999999999999999y", "2106-01-01", false, ["2w"], {"days": 1}
        ]
    });
    let host = Host::start(Transport::PassedTcp);
    for (field, values) in cases.as_object().unwrap() {
        for value in values.as_array().unwrap() {
            let mut body = json!({"name_real": "user_project", "name_email": ID});
            body[field] = value.clone();
            assert_refused(&host, body.to_string().as_bytes(), &format!("{field}: "));
        }
    }
}

#[test]
fn bodies_that_are_no_object_with_the_fields_are_refused() {
    let host = Host::start(Transport::ListenUnix);
    let no_object = "the body must be a JSON object";
    let no_json = "the body is not valid JSON: ";
    let deep = "[".repeat(50_000);
    let cases: [(&[u8], &str); 18] = [
        (b"", "the body is empty"),
        (b" \r\n", no_json),
        (b"{}", "name_email: is missing"),
        (br#"{"name_real": "a"}"#, "name_email: is missing"),
        (br#"{"name_email": "user#a@b"}"#, "name_real: is missing"),
        (br#"{"name_email": "user#a@b", "name_real": null}"#, "name_real: is missing"),
        (b"[]", no_object),
        (b"null", no_object),
        (b"5", no_object),
        (br#""name_real""#, no_object),
        (b"{", no_json),
        (b"{'name_real': 'a'}", no_json),
        (b"{\"name_real\": \"a\"} {}", no_json),
        (b"{\"name_real\": \"a\nb\"}", no_json),
        (b"name_real=a&name_email=user%23a@b", no_json),
        (b"{\"name_real\": \"\xff\xfe\", \"name_email\": \"user#a@b\"}", no_json),
        (b"\xef\xbb\xbf{}", no_json),
        (deep.as_bytes(), no_json),
    ];
    for (body, words) in cases {
        assert_refused(&host, body, words);
    }
}

/// Returns the mode of everything below `directory`, and the content of every file.
pub fn snapshot(directory: &Path) -> BTreeMap<String, (u32, Vec<u8>)> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        let about = path.symlink_metadata().unwrap();
        let mode = about.mode() & 0o7777;
        if about.is_dir() {
            let below = snapshot(&path).into_iter();
            found.extend(below.map(|(below, facts)| (format!("{name}/{below}"), facts)));
            found.insert(name, (mode, Vec::new()));
        } else {
            found.insert(name, (mode, fs::read(&path).unwrap_or_default()));
        }
    }
    found
}

/// Returns the paths of the two links to the key of `id`, each with the target that it must have.
fn links(host: &Host, id: &str) -> [(PathBuf, String); 2] {
    let secret_key = host.entries(&format!("keys/{id}/private-keys-v1.d")).remove(0);
    let links = host.state().join("gnupg/private-keys-v1.d");
    [
        (links.join(&secret_key), format!("../../keys/{id}/private-keys-v1.d/{secret_key}")),
        (host.state().join("phrases").join(id), format!("../keys/{id}/passphrase")),
    ]
}

fn assert_links(host: &Host, id: &str) {
    for (link, target) in links(host, id) {
        assert_eq!(fs::read_link(&link).unwrap(), Path::new(&target));
        let below_keys = target.trim_start_matches("../");
        assert_eq!(fs::read(&link).unwrap(), fs::read(host.state().join(below_keys)).unwrap());
    }
}

#[test]
fn the_state_holds_what_the_design_names_for_its_owner_only() {
    let host = Host::start_with(Transport::PassedUnix, &[("COPR_KEYGEN_LOG_LEVEL", "trace")]);
    let mut phrases = Vec::new();
    for id in [ID, "@group#project@copr.example.org"] {
        assert_eq!(host.gen_key(id, json!({})).unwrap().status, 201, "{}", host.log());
        let home = snapshot(&host.home(id));
        let record: Value = serde_json::from_slice(&home["key.json"].1).unwrap();
        let [keygrip, fingerprint] =
            ["keygrip", "fingerprint"].map(|f| record[f].as_str().unwrap());
        let secret_key = format!("private-keys-v1.d/{keygrip}.key");
        let revocation = format!("openpgp-revocs.d/{fingerprint}.rev");
        let modes: Vec<_> = home.iter().map(|(name, (mode, _))| (name.as_str(), *mode)).collect();
        let expected = [
            ("key.json", 0o600),
            ("openpgp-revocs.d", 0o700),
            (&revocation, 0o600),
            ("passphrase", 0o600),
            ("private-keys-v1.d", 0o700),
            (&secret_key, 0o600),
            ("pubring.kbx", 0o600),
        ];
        assert_eq!(modes, expected);
        assert_links(&host, id);

        assert!(String::from_utf8_lossy(&home[&secret_key].1).contains("protected-private-key"));
        let phrase = String::from_utf8(home["passphrase"].1.clone()).unwrap();
        let digits = phrase.strip_suffix('\n').unwrap();
        assert!(digits.len() == 64 && digits.bytes().all(|b| b.is_ascii_hexdigit()));
        phrases.push(digits.to_owned());
    }
    assert_ne!(phrases[0], phrases[1]);
    for digits in phrases {
        assert!(!host.log().contains(&digits[..16]), "a passphrase is in the log");
    }
    assert_eq!(host.entries(""), ["gnupg", "keys", "phrases", "pool", "staging"]);
    for name in ["", "gnupg", "gnupg/private-keys-v1.d", "keys", "phrases", "pool", "staging"] {
        let found = host.state().join(name).metadata().unwrap();
        assert_eq!(found.mode() & 0o7777, 0o700, "{name}");
    }
    for name in ["keys", "phrases", "gnupg/private-keys-v1.d"] {
        assert_eq!(host.entries(name).len(), 2, "{name}");
    }
}

#[test]
fn what_is_derived_from_a_key_is_repaired_by_the_next_request() {
    let host = Host::start(Transport::ListenTcp);
    assert_eq!(host.gen_key(ID, json!({})).unwrap().status, 201, "{}", host.log());
    let stranger = host.scratch().join("stranger");
    fs::write(&stranger, "of no concern").unwrap();
    let damages: [&dyn Fn(&Path); 5] = [
        &|_| {},
        &|link| fs::write(link, "").unwrap(),
        &|link| symlink("../nothing", link).unwrap(),
        &|link| symlink(&stranger, link).unwrap(),
        &|link| symlink(host.home(ID).join("passphrase"), link).unwrap(),
    ];
    for damage in damages {
        for (link, _) in links(&host, ID) {
            fs::remove_file(&link).unwrap();
            damage(&link);
            assert_eq!(host.gen_key(ID, json!({})).unwrap().status, 200, "{}", host.log());
            assert_links(&host, ID);
        }
    }
    assert_eq!(fs::read_to_string(stranger).unwrap(), "of no concern");

    let record = host.home(ID).join("key.json");
    let strange: [&[u8]; 5] =
        [b"", b"garbage", b"{}", b"\xff\0", br#"{"fingerprint": "../../x", "keygrip": "/etc/x"}"#];
    for contents in strange {
        fs::write(&record, contents).unwrap();
        assert_eq!(host.gen_key(ID, json!({})).unwrap().status, 200, "{}", host.log());
    }
    fs::remove_file(&record).unwrap();
    assert_eq!(host.gen_key(ID, json!({})).unwrap().status, 200, "{}", host.log());
    assert_links(&host, ID);
}

#[test]
fn a_damaged_home_is_reported_and_left_alone() {
    let host = Host::start(Transport::ListenTcp);
    assert_eq!(host.gen_key(ID, json!({})).unwrap().status, 201, "{}", host.log());
    let secret_key = host.entries(&format!("keys/{ID}/private-keys-v1.d")).remove(0);
    let secret_key = format!("private-keys-v1.d/{secret_key}");
    let (home, backup) = (host.home(ID), host.scratch().join("backup"));
    fs::rename(&home, &backup).unwrap();
    // A damaged home may hold the only copy of the key, so nothing in it is changed.
    let damages: [fn(&Path); 3] = [
        |file| fs::remove_file(file).unwrap(),
        |file| fs::write(file, "").unwrap(),
        |file| {
            fs::remove_file(file).unwrap();
            symlink("elsewhere", file).unwrap();
        },
    ];
    for damage in damages {
        for name in ["pubring.kbx", "passphrase", &secret_key] {
            let copied = Command::new("cp").arg("-a").args([&backup, &home]).status();
            assert!(copied.unwrap().success());
            damage(&home.join(name));
            assert_left_alone(&host, &home.join(name));
            fs::remove_dir_all(&home).unwrap();
        }
    }
    fs::write(&home, "in the way").unwrap();
    assert_left_alone(&host, &home);
    fs::remove_file(&home).unwrap();
    fs::rename(&backup, &home).unwrap();
    assert_eq!(host.gen_key(ID, json!({})).unwrap().status, 200, "{}", host.log());
}

/// Checks that a request for the key is answered 500, changes nothing, and that the log, but not
/// the answer, says where the damage is.
fn assert_left_alone(host: &Host, damaged: &Path) {
    let (before, logged) = (snapshot(&host.state()), host.log().len());
    let reply = host.gen_key(ID, json!({})).unwrap();
    assert_eq!(reply.status, 500, "{}: {reply:?}", damaged.display());
    assert_eq!(snapshot(&host.state()), before, "{}", damaged.display());
    let path = damaged.to_str().unwrap();
    assert!(host.log()[logged..].contains(path), "{path}: {}", host.log());
    assert!(!reply.body.contains("keys/") && reply.body.lines().count() == 1, "{reply:?}");
}
