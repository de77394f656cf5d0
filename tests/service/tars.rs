//! Archives that tests make and alter: the members of a real backup, written as they are.

use std::collections::BTreeMap;
use std::io::Read;

use serde_json::json;
use sha2::{Digest, Sha256};
use tar::{Builder, EntryType, Header};

use super::host::{Host, Transport};
use super::safekeeping::{Recipient, assert_links_are_right, tree};

pub const A: &str = "a#project@copr.example.org";
pub const B: &str = "b#project@copr.example.org";
pub const HEADER: &str = "copr-keygen-backup.json";
pub const MANIFEST: &str = "copr-keygen-manifest.json";

/// A member of an archive.
#[derive(Clone, Debug)]
pub struct Member {
    pub path: String,
    pub bytes: Vec<u8>,
    pub kind: EntryType,
}

pub fn member(path: &str, bytes: &[u8]) -> Member {
    Member { path: path.into(), bytes: bytes.into(), kind: EntryType::Regular }
}

/// A host with the keys of A and B, and the members of its backup.
pub fn host_with_backup() -> (Host, Vec<Member>) {
    let host = Host::start(Transport::PassedUnix);
    for id in [A, B] {
        assert_eq!(host.gen_key_patiently(id, &json!({})).status, 201, "{}", host.log());
    }
    let members = members_of(&Recipient::new().backup(&host, &[]));
    (host, members)
}

/// Returns the members of an archive.
pub fn members_of(archive: &[u8]) -> Vec<Member> {
    let mut members = Vec::new();
    for entry in tar::Archive::new(archive).entries().unwrap() {
        let mut entry = entry.unwrap();
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).unwrap();
        members.push(member(entry.path().unwrap().to_str().unwrap(), &bytes));
    }
    members
}

/// Returns an archive of these members. Their names are written as they are, whatever they are.
pub fn tar_of(members: &[Member]) -> Vec<u8> {
    let mut tar = Builder::new(Vec::new());
    for Member { path, bytes, kind } in members {
        let mut header = Header::new_ustar();
        header.set_entry_type(*kind);
        header.set_size(bytes.len() as u64);
        header.set_mode(0o600);
        if path.len() <= 100 {
            header.as_mut_bytes()[..path.len()].copy_from_slice(path.as_bytes());
        } else {
            tar.append_pax_extensions([("path", path.as_bytes())]).unwrap();
        }
        if *kind == EntryType::Symlink {
            header.set_link_name("/etc/passwd").unwrap();
        }
        header.set_cksum();
        tar.append(&header, &bytes[..]).unwrap();
    }
    tar.into_inner().unwrap()
}

pub fn find<'a>(members: &'a mut [Member], end: &str) -> &'a mut Member {
    members.iter_mut().find(|member| member.path.ends_with(end)).unwrap()
}

pub fn position(members: &[Member], part: &str) -> usize {
    members.iter().position(|member| member.path.contains(part)).unwrap()
}

/// Makes checksums and manifest fit the other members again, as somebody who alters an archive would do.
pub fn sign_off(members: &mut [Member]) {
    let mut keys: BTreeMap<String, BTreeMap<String, String>> = BTreeMap::new();
    for Member { path, bytes, .. } in members.iter() {
        if let Some((name, file)) = path.strip_prefix("keys/").and_then(|p| p.split_once('/')) {
            let digest = Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect();
            keys.entry(name.into()).or_default().insert(file.into(), digest);
        }
    }
    for (name, files) in &mut keys {
        files.remove("SHA256SUMS");
        let sums: String = files.iter().map(|(p, digest)| format!("{digest}  {p}\n")).collect();
        find(members, &format!("keys/{name}/SHA256SUMS")).bytes = sums.into_bytes();
    }
    let keys: Vec<_> = keys
        .iter()
        .map(|(name, files)| json!({"name_email": name, "fingerprint": null, "files": files}))
        .collect();
    find(members, MANIFEST).bytes = json!({"keys": keys}).to_string().into_bytes();
}

/// Asserts that every home on `host` is byte for byte the one on `original`.
pub fn assert_keys_are_those_of(host: &Host, original: &Host) {
    for id in host.entries("keys") {
        assert_eq!(tree(&host.home(&id)), tree(&original.home(&id)), "{id}");
    }
    assert_links_are_right(host);
}
