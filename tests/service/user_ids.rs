//! Whatever the fields of a request hold, gpg makes the user ID that was meant.

use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::TestRunner;
use serde_json::json;

use super::host::{Host, Transport};

/// Fields that would mean something to gpg if it read them as anything but a name.
const FIXED: [(&str, Option<&str>); 8] = [
    ("%commit", Some("%commit")),
    ("# Key-Type: DSA", Some("#")),
    (": Name-Email: x@y", Some(":")),
    ("a\\nKey-Length: 1024\\x0a", Some("\\x3a\\")),
    ("  a\u{a0} ", Some(" \u{3000}")),
    ("a (b) (c", None),
    ("Ω\u{feff}\u{200b}e\u{301}", Some("\u{a0}x\u{a0}")),
    ("a  b   \"c\" 'd' `e` $(f) ${g} !*?~", Some("&|;")),
];

/// Replaces the escapes in gpg's colon listing, such as `\x3a`, by what they stand for.
fn unescape(text: &str) -> String {
    let mut parts = text.split("\\x");
    let mut bytes = parts.next().unwrap().as_bytes().to_vec();
    for part in parts {
        bytes.push(u8::from_str_radix(&part[..2], 16).unwrap());
        bytes.extend_from_slice(&part.as_bytes()[2..]);
    }
    String::from_utf8(bytes).unwrap()
}

#[test]
fn gpg_lists_the_user_id_that_was_meant() {
    let host = Host::start(Transport::PassedUnix);
    let mut runner = TestRunner::deterministic();
    // Any printable characters but those that are refused.
    let name = "[\\PC&&[^<>()\\u{2028}-\\u{202e}\\u{2066}-\\u{2069}]]{1,40}";
    let strategy = (name, proptest::option::of(name));
    let generated: Vec<(String, Option<String>)> =
        (0..6).map(|_| strategy.new_tree(&mut runner).unwrap().current()).collect();
    let fixed = FIXED.map(|(real, comment)| (real.to_owned(), comment.map(ToOwned::to_owned)));
    let longest = ("Ω".repeat(100), Some("ü".repeat(100)));
    let all = fixed.into_iter().chain([longest]).chain(generated);
    let mut made = 0;
    for (number, (name_real, comment)) in all.enumerate() {
        if name_real.trim().is_empty() {
            continue;
        }
        let id = format!("jürgen#{number}@copr.example.org");
        let extra = json!({"name_real": name_real, "name_comment": comment});
        let reply = host.gen_key_patiently(&id, &extra);
        assert_eq!(reply.status, 201, "{extra}: {}", reply.body);
        let comment = comment.as_deref().map(str::trim).filter(|text| !text.is_empty());
        let comment = comment.map_or(String::new(), |text| format!(" ({text})"));
        let meant = format!("{}{comment} <{id}>", name_real.trim());
        let listing = host.gpg(&id, &["--with-colons", "--list-keys"]);
        let listed: Vec<_> = listing
            .lines()
            .filter(|line| line.starts_with("uid:"))
            .map(|line| unescape(line.split(':').nth(9).unwrap()))
            .collect();
        assert_eq!(listed, [meant], "{extra}");
        made += 1;
    }
    assert!(made >= 12, "{made}");
}
