//! Keys that are named by a fingerprint or by a key ID, the end of one.

use std::fs;

use super::signing::{SignHost, stdout_of};

const ID: &str = "user#project@copr.example.org";

#[test]
fn a_key_id_that_could_mean_two_keys_means_none() {
    let host = SignHost::with_key();
    let other = "other#project@copr.example.org";
    host.make(other);
    let record = |id: &str| host.0.home(id).join("key.json");
    let print_of = |id: &str| {
        let text = fs::read_to_string(record(id)).unwrap();
        let record: serde_json::Value = serde_json::from_str(&text).unwrap();
        record["fingerprint"].as_str().unwrap().to_owned()
    };
    let [first, second] = [ID, other].map(print_of);
    // Eight digits are too few: anybody can make a key that ends in those of another.
    for id in [&first[32..], &format!("0x{}", &first[32..]), &first[32..].to_lowercase()] {
        for call in [&["-k", id][..], &["--export", id], &["-u", id, "-sbo", "-", "/dev/null"]] {
            let refused = host.gpg_copr(call);
            assert!(refused.stdout.is_empty(), "{call:?} found a key");
        }
    }
    // Two fingerprints that end in the same sixteen digits.
    let twin = format!("{}{}", &second[..24], &first[24..]);
    let text = fs::read_to_string(record(other)).unwrap().replace(&second, &twin);
    fs::write(record(other), text).unwrap();
    let refused = host.gpg_copr(&["-k", &first[24..]]);
    let words = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!((refused.status.code(), refused.stdout.len()), (Some(2), 0), "{words}");
    for name in [ID, other, &first, &twin] {
        assert!(words.contains(name), "{words}");
    }
    assert_eq!(host.gpg_copr(&["-k", &first]).status.code(), Some(0));
}

#[test]
fn no_client_of_signd_has_every_key_looked_at() {
    let host = SignHost::with_key();
    let agent_home = host.0.state().join("gnupg");
    let listing = stdout_of(host.gpg_copr(&["--with-colons", "-k", ID])).unwrap();
    let listing = String::from_utf8(listing).unwrap();
    let fingerprint = listing.lines().find(|line| line.starts_with("fpr")).unwrap();
    let fingerprint = fingerprint.split(':').nth(9).unwrap();
    // This file is no home. gpg-copr would say so if it looked at every key.
    fs::write(host.0.state().join("keys/a#b@c"), "not a home").unwrap();
    for id in [fingerprint, &fingerprint[24..]] {
        let calls: [&[&str]; 2] = [
            &["--locate-key", "--with-fingerprint", "--with-keygrip", "--with-colons", "--", id],
            &["--batch", "--files-are-digests", "--passphrase-fd=0", "-u", id, "-sbo", "-", "x"],
        ];
        for call in calls {
            let seen = host.recorded(&agent_home, call, "");
            assert!(seen.contains(&format!("<={id}>\n")), "{call:?} became {seen}");
            assert!(!seen.contains("--keyring"), "{call:?} got a keyring: {seen}");
        }
    }
}
