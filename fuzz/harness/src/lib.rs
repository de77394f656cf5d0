//! Feeds bytes to every parser of outside input, and asserts what must hold of the result. Each target is one
//! function, shared by the fuzzer (`fuzz/`) and the replay of its corpus (`tests/corpus.rs`). This crate is
//! not part of the service: a function panics when its parser is wrong.

mod access;
mod answer;
mod archive;
mod files;
mod gpg;
mod identity;
pub mod parameters;
mod request;
mod signer;

/// A function that parses the bytes, and panics when the parser does what it must not.
pub type Target = fn(&[u8]);

/// Every target with its name. The program in `fuzz/fuzz_targets` and the directory in `fuzz/corpus` have the
/// same name.
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

/// Runs the target `name`. Panics if there is none of that name.
pub fn run(name: &str, data: &[u8]) {
    let found = TARGETS.iter().find(|(known, _)| *known == name);
    assert!(found.is_some(), "there is no target {name:?}");
    if let Some((_, target)) = found {
        target(data);
    }
}

/// Asserts that a message for an operator or a client is one line that a terminal can show.
fn is_one_line(words: &str) {
    assert!(!words.is_empty() && !words.chars().any(char::is_control), "{words:?}");
    let steering = |c| matches!(c, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    assert!(!words.contains(steering), "{words:?}");
}

/// Returns the value in `result`, or `None` for an error. Asserts that the error's message is one line.
fn accepted<T, E: std::fmt::Display>(result: Result<T, E>) -> Option<T> {
    result.map_err(|error| is_one_line(&error.to_string())).ok()
}
