//! Feeds bytes to everything here that reads bytes from outside, and asserts what must hold of the
//! result. One function a target, shared by the fuzzer (`fuzz/`) and the replay of its corpus
//! (`tests/corpus.rs`). Not part of the service: each panics when its reader is wrong.

mod access;
mod answer;
mod archive;
mod files;
mod gpg;
mod identity;
pub mod parameters;
mod request;
mod signer;

/// A function that panics when bytes do to a reader what they must not.
pub type Target = fn(&[u8]);

/// Every target by its name, which is that of its program in `fuzz/fuzz_targets` and of its
/// directory in `fuzz/corpus`.
pub const TARGETS: [(&str, Target); 18] = [
    ("request", request::request),
    ("target", request::target),
    ("answer", answer::answer),
    ("tokens", access::tokens),
    ("authorization", access::authorization),
    ("gen_key", identity::gen_key),
    ("user_id", identity::user_id),
    ("arguments", gpg::arguments),
    ("status", gpg::status),
    ("listing", gpg::listing),
    ("packets", gpg::packets),
    ("keybox", gpg::keybox),
    ("record", files::record),
    ("config", files::config),
    ("archive", archive::archive),
    ("sign_request", signer::sign_request),
    ("secret_key", signer::secret_key),
    ("certificate", signer::certificate),
];

/// Runs the target `name`, which must exist.
pub fn run(name: &str, data: &[u8]) {
    let found = TARGETS.iter().find(|(known, _)| *known == name);
    assert!(found.is_some(), "there is no target {name:?}");
    if let Some((_, target)) = found {
        target(data);
    }
}

/// What an operator or a client is told is one line that a terminal can take.
fn is_one_line(words: &str) {
    assert!(!words.is_empty() && !words.chars().any(char::is_control), "{words:?}");
    let steering = |c| matches!(c, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    assert!(!words.contains(steering), "{words:?}");
}

/// What `result` holds; one line of words when it is an error.
fn accepted<T, E: std::fmt::Display>(result: Result<T, E>) -> Option<T> {
    result.map_err(|error| is_one_line(&error.to_string())).ok()
}
