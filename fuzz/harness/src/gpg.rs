//! Input and output of gpg: arguments, status lines, listings, packets, keyboxes.

use std::ffi::{OsStr, OsString};
use std::io::BufReader;
use std::os::unix::ffi::OsStrExt;

use gpg::arguments::{self, Call};
use gpg::listing::{self, Certificate, Signature};
use gpg::packets::{Certificates, RawCertificate};
use gpg::status::{self, Status};
use gpg::{Shortage, keybox as framing};

use super::{accepted, is_one_line};

/// Every option that obs-signd and operators may pass to gpg. The tables of `gpg::arguments` are repeated on
/// purpose: an option that is added there has to be judged harmless a second time, here.
const KNOWN: &str = "--export --locate-key --locate-keys --list-key --list-keys --list-public-keys \
    --list-secret-keys --list-sigs --check-sigs --fingerprint -k -K --sign --detach-sign --clearsign \
    --clear-sign -s -b --armor --no-armor -a --batch --no-batch --no-tty --yes --quiet -q --verbose \
    -v --no-verbose --no-secmem-warning --ignore-time-conflict --force-v3-sigs --files-are-digests \
    --with-colons --with-fingerprint --with-keygrip --with-secret --with-sig-list --fixed-list-mode";
/// The same for options that take a value.
const KNOWN_VALUED: &str = "--digest-algo --pinentry-mode --passphrase-fd --status-fd --logger-fd \
    --keyid-format --list-options --export-options --faked-system-time --output -o --comment";

/// Parses a command line, writes the call out again and compares. NUL separates the words.
pub fn arguments(data: &[u8]) {
    let words: Vec<OsString> =
        data.split(|byte| *byte == 0).map(|word| OsStr::from_bytes(word).into()).collect();
    let Some(call) = accepted(arguments::parse(&words)) else { return };
    let again = match &call {
        Call::AboutGpg => return,
        Call::Read { options, users } => {
            are_known(options);
            assert!(users.iter().all(|user| words.iter().any(|word| word_holds(word, user))));
            // In `--export -a WORD`, the word is always the user, even if it looks like an option: signd
            // writes no "--". So a "--" without users after it would become the user.
            let end = if *options == ["--export", "-a"] && users.is_empty() {
                vec![]
            } else {
                vec!["--".into()]
            };
            [&options[..], &end, users].concat()
        }
        Call::Sign { options, user, files } => {
            are_known(options);
            assert!(words.iter().any(|word| word_holds(word, user)));
            [&options[..], &["-u".into(), user.clone(), "--".into()], files].concat()
        }
    };
    assert_eq!(arguments::parse(&again).as_ref(), Ok(&call), "written again as {again:?}");
}

fn word_holds(word: &OsStr, part: &OsStr) -> bool {
    word.as_bytes().ends_with(part.as_bytes())
}

/// Asserts that every option is in one of the tables, and that a value follows where the option takes one.
fn are_known(options: &[OsString]) {
    let mut options = options.iter();
    while let Some(option) = options.next() {
        let text = String::from_utf8_lossy(option.as_bytes());
        let is_in = |known: &str, name: &str| known.split_whitespace().any(|one| one == name);
        if is_in(KNOWN_VALUED, &text) {
            assert!(options.next().is_some(), "{option:?} without a value");
        } else {
            let valued = text.starts_with("--").then(|| text.split_once('=')).flatten();
            let is_valued = valued.is_some_and(|(name, _)| is_in(KNOWN_VALUED, name));
            assert!(is_valued || is_in(KNOWN, &text), "{option:?} is passed on");
        }
    }
}

/// Parses status lines, prints what was found and parses that again.
pub fn status(data: &[u8]) {
    let found = Status::parse(data);
    let mut printed = String::new();
    for fingerprint in &found.created {
        printed.push_str(&format!("[GNUPG:] KEY_CREATED P {fingerprint}\n"));
    }
    for fingerprint in &found.imported {
        printed.push_str(&format!("[GNUPG:] IMPORT_OK 1 {fingerprint}\n"));
    }
    match found.shortage {
        Some(Shortage::Space) => printed.push_str("[GNUPG:] ERROR x 32859\n"),
        Some(Shortage::Quota) => printed.push_str("[GNUPG:] ERROR x 32802\n"),
        None => {}
    }
    assert_eq!(Status::parse(printed.as_bytes()), found);
    for (keyword, at_most) in
        [("KEY_CREATED", found.created.len()), ("IMPORT_OK", found.imported.len())]
    {
        let lines: Vec<_> = status::lines(data, keyword).collect();
        assert!(lines.len() >= at_most);
        assert!(lines.iter().flatten().all(|word| !word.contains(['\n', ' '])));
    }
    // A status line that is quoted within another line means nothing.
    let quoted: Vec<u8> =
        data.split(|byte| *byte == b'\n').flat_map(|line| [b"> ", line, b"\n"].concat()).collect();
    assert_eq!(Status::parse(&quoted), Status::default());
}

/// Parses a listing (`--with-colons`), prints the certificates found and parses that again.
pub fn listing(data: &[u8]) {
    let Some(found) = accepted(listing::parse(data)) else { return };
    let begins = |line: &&[u8]| [&b"pub:"[..], b"sec:"].iter().any(|kind| line.starts_with(kind));
    let lines: Vec<_> = data.split(|byte| *byte == b'\n').collect();
    let begins: Vec<_> = (0..lines.len()).filter(|at| begins(&lines[*at])).collect();
    for (one, at) in found.iter().zip(begins) {
        let mut own = lines[at..].iter().take_while(|line| !matches!(kind(line), b"sub" | b"ssb"));
        let print = one.fingerprint.as_str().as_bytes();
        assert!(own.any(|line| line.starts_with(b"fpr") && line.windows(40).any(|w| w == print)));
        assert!(one.signatures.iter().all(|signature| signature.on <= one.user_ids.len()));
    }
    let printed: String = found.iter().map(print).collect();
    assert_eq!(listing::parse(printed.as_bytes()).as_ref(), Ok(&found), "printed as {printed}");
}

/// Returns the record type of a line, its first field.
fn kind(line: &[u8]) -> &[u8] {
    line.split(|byte| *byte == b':').next().unwrap_or_default()
}

fn print(one: &Certificate) -> String {
    let Certificate { fingerprint, algorithm, created, expires, revoked, signs, .. } = one;
    let expires = expires.map_or(String::new(), |at| at.to_string());
    let (validity, usage) = (if *revoked { "r" } else { "-" }, if *signs { "s" } else { "" });
    let mut text = format!(
        "pub:{validity}::::{created}:{expires}:::::{usage}:::::{algorithm}:\nfpr:::::::::{fingerprint}:\n"
    );
    if let Some(keygrip) = &one.keygrip {
        text.push_str(&format!("grp:::::::::{keygrip}:\n"));
    }
    for number in 0..=one.user_ids.len() {
        if let Some(user_id) = number.checked_sub(1).map(|at| &one.user_ids[at]) {
            let user_id = user_id.replace('\\', "\\x5c").replace(':', "\\x3a");
            text.push_str(&format!("uid:-::::::::{}:\n", user_id.replace('\n', "\\x0a")));
        }
        for Signature { issuer, created, class, good, .. } in
            one.signatures.iter().filter(|signature| signature.on == number)
        {
            let good = if *good { "!" } else { "?" };
            text.push_str(&format!("sig:{good}:::{issuer}:{created}:::::{class}:\n"));
        }
    }
    text.push_str(&"sub:\n".repeat(one.subkeys));
    let grips = one.subkey_keygrips.iter();
    text.extend(grips.map(|keygrip| format!("grp:::::::::{keygrip}:\n")));
    text
}

/// Splits a stream of certificates, read whole and byte by byte, and compares the results.
pub fn packets(data: &[u8]) {
    let whole: Vec<_> = Certificates::new(data).collect();
    let in_pieces: Vec<_> = Certificates::new(BufReader::with_capacity(1, data)).collect();
    let (mut at, mut errors) = (0, 0);
    assert_eq!(whole.len(), in_pieces.len());
    for (one, same) in whole.iter().zip(&in_pieces) {
        match (one, same) {
            (Ok(one), Ok(same)) => {
                assert!(errors == 0 && one == same);
                at += are_bytes_at(one, at, data);
            }
            (Err(error), Err(same)) => {
                errors += 1;
                assert_eq!(error.to_string(), same.to_string());
                is_one_line(&error.to_string());
            }
            _ => unreachable!("pieces decide what is read"),
        }
    }
    assert!(errors == 1 || (errors == 0 && at == data.len()), "{at} of {} bytes", data.len());
}

fn are_bytes_at(one: &RawCertificate, at: usize, data: &[u8]) -> usize {
    assert_eq!(one.offset, at as u64);
    assert_eq!(Some(&one.bytes[..]), data.get(at..at + one.bytes.len()));
    let alone: Vec<_> = Certificates::new(&one.bytes[..]).flatten().collect();
    assert_eq!(alone, [RawCertificate { offset: 0, ..one.clone() }]);
    one.bytes.len()
}

/// Reads a keybox with one certificate, then a keybox of nothing but its header blob and that certificate.
pub fn keybox(data: &[u8]) {
    framing::is_for_openpgp(data);
    let Some(found) = accepted(framing::one_certificate(data)) else { return };
    assert!(data.starts_with(found.first) && found.first.len() >= 12);
    assert!(found.first.len() + found.certificate.len() <= data.len());
    let joined = [found.first, found.certificate].concat();
    assert_eq!(framing::one_certificate(&joined).as_ref(), Ok(&found));
    assert_eq!(framing::is_for_openpgp(&joined), framing::is_for_openpgp(data));
}
