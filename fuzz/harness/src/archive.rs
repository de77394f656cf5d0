//! Backup archives: arbitrary bytes, or an archive built from a script. The latter has correct checksums, so
//! a fuzzer gets past their verification.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read};

use keystore::Error;
use keystore::archive::format::{sha256, sums};
use keystore::archive::unpack::{Piece, read};
use serde_json::json;
use tar::{EntryType, Header};

use super::accepted;
use super::identity::is_safe_name;

/// The size in bytes at which an archive built from a script is cut off.
const TOTAL_MAX: usize = 1024 * 1024;

/// Reads an archive whole and in small pieces, and compares the results. `data` is `R` and the bytes of an
/// archive, or `M` and a script of its members.
pub fn archive(data: &[u8]) {
    let bytes = match data.split_first() {
        Some((b'R', bytes)) => bytes.to_vec(),
        Some((b'M', script)) => tar_of(&members(script)),
        _ => return,
    };
    let (whole, found) = collect(&bytes[..]);
    let (same, found_in_pieces) = collect(Piecewise(&bytes));
    assert_eq!((whole, &found), (same, &found_in_pieces), "pieces decide what is read");
}

/// Reads an archive. Returns whether it is whole, and a description of each piece, sorted.
fn collect(input: impl Read) -> (bool, Vec<String>) {
    let (mut words, mut keys, mut answered) = (Vec::new(), BTreeSet::new(), BTreeSet::new());
    let header = read(input, |piece| {
        let name = match &piece {
            Piece::Header(_) => {
                assert!(keys.is_empty() && answered.is_empty(), "a header behind a key");
                return Ok(());
            }
            Piece::Key(name, files) => {
                assert!(answered.is_empty(), "a key behind the manifest");
                assert!(keys.insert(name.clone()), "{name} twice");
                for (file, bytes) in files.iter() {
                    assert!(u64::try_from(bytes.len()).is_ok_and(|long| long <= file.limit()));
                    let path = file.to_string();
                    assert!(!path.starts_with('/') && !path.contains("..") && path.is_ascii());
                }
                files.problem();
                name
            }
            Piece::Bad(name, _) => {
                let is_new = match keys.contains(name) {
                    true => answered.insert(name.clone()),
                    false => answered.is_empty() && keys.insert(name.clone()),
                };
                assert!(is_new, "{name} twice");
                name
            }
            Piece::Listed(name, _) => {
                answered.insert(name.clone());
                name
            }
        };
        is_safe_name(name);
        let names_its_content = format!("{piece:?}").contains("secret of the passphrase");
        assert!(!names_its_content, "what is in the files is shown");
        words.push(format!("{piece:?}"));
        Ok::<_, Error>(())
    });
    let header = accepted(header);
    if header.is_some() {
        assert!(keys.iter().all(|name| answered.contains(name)), "a key nobody answered for");
    }
    // Keys that the manifest does not list are reported in no particular order.
    words.sort_unstable();
    (header.is_some(), words)
}

/// Reads seven bytes at a time.
struct Piecewise<'a>(&'a [u8]);

impl Read for Piecewise<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = buffer.len().min(7);
        self.0.read(&mut buffer[..count])
    }
}

struct Member {
    kind: u8,
    path: Vec<u8>,
    /// The size that the tar header states. It may differ from the length of the content.
    size: u64,
    content: Vec<u8>,
}

/// Parses a script: lines of `TYPE PATH CONTENT`. The content `=` stands for what a backup would have
/// written. `+N` stands for N bytes. `-N` stands for no bytes, with a header that states N.
fn members(script: &[u8]) -> Vec<Member> {
    let mut members = Vec::new();
    for line in script.split(|byte| *byte == b'\n').take(64) {
        let mut words = line.splitn(3, |byte| *byte == b' ');
        let kind = words.next().and_then(|word| word.first().copied()).unwrap_or(b'0');
        let path = words.next().unwrap_or_default().to_vec();
        let content = words.next().unwrap_or_default();
        let number = std::str::from_utf8(content).ok().and_then(|text| text.get(1..)?.parse().ok());
        let (size, content) = match (content.first(), number) {
            (Some(b'+'), Some(long)) => (long, vec![b'x'; (long as usize).min(TOTAL_MAX)]),
            (Some(b'-'), Some(size)) => (size, Vec::new()),
            _ => (content.len() as u64, content.to_vec()),
        };
        members.push(Member { kind, path, size, content });
    }
    fill_in(&mut members);
    members
}

/// Computes the content of the members written as `=`, such that the archive is whole.
fn fill_in(members: &mut [Member]) {
    let split = |path: &[u8]| {
        let path = String::from_utf8_lossy(path).into_owned();
        let (name, file) = path.strip_prefix("keys/")?.split_once('/')?;
        Some((name.to_owned(), file.to_owned()))
    };
    let mut keys: BTreeMap<String, BTreeMap<String, String>> = BTreeMap::new();
    for member in members.iter() {
        if let Some((name, file)) = split(&member.path) {
            let files = keys.entry(name).or_default();
            if file != "SHA256SUMS" {
                files.insert(file, sha256(&member.content));
            }
        }
    }
    for member in members.iter_mut().filter(|member| member.content == b"=") {
        let of = split(&member.path).and_then(|(name, _)| keys.get(&name));
        member.content = match (of, &member.path[..]) {
            (Some(files), _) => sums(files).into_bytes(),
            (None, b"copr-keygen-backup.json") => {
                json!({"version": 1, "host": "h", "time": 1, "since": null}).to_string().into()
            }
            (None, _) => {
                let entry = |(name, files)| json!({"name_email": name, "fingerprint": null, "files": files});
                let keys: Vec<_> = keys.iter().map(entry).collect();
                json!({ "keys": keys }).to_string().into()
            }
        };
        member.size = member.content.len() as u64;
    }
}

fn tar_of(members: &[Member]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for member in members {
        let mut header = Header::new_gnu();
        header.set_entry_type(EntryType::new(member.kind));
        header.set_size(member.size);
        let room = &mut header.as_mut_bytes()[..100];
        let count = member.path.len().min(room.len());
        room[..count].copy_from_slice(&member.path[..count]);
        header.set_cksum();
        bytes.extend_from_slice(header.as_bytes());
        bytes.extend_from_slice(&member.content);
        bytes.resize(bytes.len().next_multiple_of(512), 0);
        if bytes.len() > TOTAL_MAX {
            break;
        }
    }
    bytes.resize(bytes.len() + 1024, 0);
    bytes
}
