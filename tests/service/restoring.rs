//! `copr-keygen restore` of archives that are cut, altered or made to deceive: a key comes back whole
//! or not at all, and an archive that is not whole is never called so.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::path::PathBuf;
use std::process::Stdio;
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tar::{Builder, EntryType, Header};

use super::certificate::assert_signs;
use super::host::{Host, Transport, eventually};
use super::safekeeping::{
    Recipient, Said, assert_links_are_right, copr_keygen, empty_host, restore, run, tree,
};

const A: &str = "a#project@copr.example.org";
const B: &str = "b#project@copr.example.org";
const HEADER: &str = "copr-keygen-backup.json";
const MANIFEST: &str = "copr-keygen-manifest.json";

/// A member of an archive.
#[derive(Clone, Debug)]
struct Member {
    path: String,
    bytes: Vec<u8>,
    kind: EntryType,
}

fn member(path: &str, bytes: &[u8]) -> Member {
    Member { path: path.into(), bytes: bytes.into(), kind: EntryType::Regular }
}

/// A host with the keys of A and B, and the members of its backup.
fn host_with_backup() -> (Host, Vec<Member>) {
    let host = Host::start(Transport::PassedUnix);
    for id in [A, B] {
        assert_eq!(host.gen_key_patiently(id, &json!({})).status, 201, "{}", host.log());
    }
    let archive = Recipient::new().backup(&host, &[]);
    let mut members = Vec::new();
    for entry in tar::Archive::new(&archive[..]).entries().unwrap() {
        let mut entry = entry.unwrap();
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).unwrap();
        members.push(member(entry.path().unwrap().to_str().unwrap(), &bytes));
    }
    (host, members)
}

/// Names are written as they are, whatever they are.
fn tar_of(members: &[Member]) -> Vec<u8> {
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

fn find<'a>(members: &'a mut [Member], end: &str) -> &'a mut Member {
    members.iter_mut().find(|member| member.path.ends_with(end)).unwrap()
}

fn position(members: &[Member], part: &str) -> usize {
    members.iter().position(|member| member.path.contains(part)).unwrap()
}

/// Makes the manifest fit the other members again, as whoever alters an archive would.
fn sign_off(members: &mut [Member]) {
    let mut keys: BTreeMap<String, BTreeMap<String, String>> = BTreeMap::new();
    for Member { path, bytes, .. } in members.iter() {
        if let Some((name, file)) = path.strip_prefix("keys/").and_then(|p| p.split_once('/')) {
            let digest = Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect();
            keys.entry(name.into()).or_default().insert(file.into(), digest);
        }
    }
    let keys: Vec<_> = keys
        .iter()
        .map(|(name, files)| json!({"name_email": name, "fingerprint": null, "files": files}))
        .collect();
    find(members, MANIFEST).bytes = json!({"keys": keys}).to_string().into_bytes();
}

/// Every home on `host` is byte for byte the one on `original`.
fn assert_keys_are_those_of(host: &Host, original: &Host) {
    for id in host.entries("keys") {
        assert_eq!(tree(&host.home(&id)), tree(&original.home(&id)), "{id}");
    }
    assert_links_are_right(host);
}

#[test]
fn an_archive_that_is_cut_anywhere_gives_whole_keys_and_is_not_called_whole() {
    let (original, members) = host_with_backup();
    let archive = tar_of(&members);
    let end = archive.len() - 1024;
    // Between members, within headers and files, within the manifest, and anywhere.
    let mut cuts: Vec<usize> = vec![1, 511, 512, 700, end - 513, end - 512, end - 1000];
    cuts.extend((0..14).map(|n| n * end / 14 / 512 * 512));
    cuts.extend((0..10).map(|_| rand::random_range(1..end - 512)));
    let host = empty_host();
    for cut in cuts {
        let said = restore(&host, &archive[..cut]);
        assert_eq!(said.code, Some(1), "{cut}: {}", said.stderr);
        assert!(!said.stderr.contains("is whole"), "{cut}: {}", said.stderr);
        if host.state().join("keys").exists() {
            assert_keys_are_those_of(&host, &original);
        }
    }
    assert_eq!(host.entries("keys"), [A, B], "the longest cuts hold both keys");
    restore(&host, &archive).well();
    // What follows the manifest is only padding.
    restore(&host, &archive[..archive.len() - 512]).well();
    restore(&host, &archive[..archive.len() - 1024]).well();
    assert_signs(&host, A);
}

#[test]
fn bits_that_flip_never_pass_unnoticed() {
    let (original, members) = host_with_backup();
    let archive = tar_of(&members);
    let flips = std::env::var("KEYGEN_TEST_FLIPS").map_or(30, |text| text.parse().unwrap());
    for _ in 0..flips {
        let mut altered = archive.clone();
        let at = rand::random_range(0..altered.len());
        altered[at] ^= 1 << rand::random_range(0..8);
        let host = empty_host();
        let said = restore(&host, &altered);
        if said.code == Some(0) {
            // The flip hit the padding between members.
            assert_eq!(host.entries("keys"), [A, B], "{at}");
            assert_keys_are_those_of(&host, &original);
        } else {
            assert_eq!(said.code, Some(1), "{at}: {}", said.stderr);
            let keys = host.state().join("keys");
            for id in keys.exists().then(|| host.entries("keys")).unwrap_or_default() {
                assert!([A, B].contains(&id.as_str()), "{at}: {id}");
                assert_signs(&host, &id);
            }
        }
    }
}

#[test]
fn members_that_no_backup_writes_end_the_restore_before_they_do_anything() {
    let (_host, members) = host_with_backup();
    let key = members.iter().find(|member| member.path.ends_with(".key")).unwrap().clone();
    let put = |index: usize, path: &str, kind| {
        let mut members = members.clone();
        let bytes = if kind == EntryType::Regular { b"x".to_vec() } else { Vec::new() };
        members.insert(index, Member { path: path.into(), bytes, kind });
        tar_of(&members)
    };
    let regular = |path: &str| put(1, path, EntryType::Regular);
    let without = |part: &str| {
        let mut members = members.clone();
        members.remove(position(&members, part));
        tar_of(&members)
    };
    let with_header = |header: Value| {
        let mut members = members.clone();
        find(&mut members, HEADER).bytes = header.to_string().into_bytes();
        tar_of(&members)
    };
    let home = format!("keys/{A}");
    let long_file = {
        let mut members = members.clone();
        find(&mut members, "a#project@copr.example.org/passphrase").bytes = vec![b'x'; 5000];
        tar_of(&members)
    };
    let again = {
        let mut members = members.clone();
        let last = members.len() - 1;
        members.insert(last, members[position(&members, &home)].clone());
        tar_of(&members)
    };
    let extended = |name: &str, value: &str| {
        let mut tar = Builder::new(Vec::new());
        tar.append_pax_extensions([(name, value.as_bytes())]).unwrap();
        let rest = tar_of(&members);
        [&rest[..1024], &tar.into_inner().unwrap()[..1024], &rest[1024..]].concat()
    };
    let unexpected = "not what a backup has at this place";
    for (what, archive, words) in [
        ("a path that leads up", regular("keys/../a#b@c/passphrase"), unexpected),
        ("a path that leads out", regular("../../etc/passwd"), unexpected),
        ("an absolute path", regular("/etc/passwd"), unexpected),
        ("a name that leads up", regular("keys/a#b@c/../x#y@z/passphrase"), unexpected),
        ("a name of no key", regular("keys/-a#b@c/passphrase"), unexpected),
        ("an unknown file", regular(&format!("{home}/gpg.conf")), unexpected),
        ("an unknown directory", regular("gnupg/pubring.kbx"), unexpected),
        ("a terminal's orders", regular("keys/\u{1b}[31m/x"), "\\u{1b}[31m"),
        ("a link", put(1, &format!("{home}/passphrase"), EntryType::Symlink), unexpected),
        ("a hard link", put(1, &format!("{home}/passphrase"), EntryType::Link), unexpected),
        ("a directory", put(1, &home, EntryType::Directory), unexpected),
        ("a device", put(1, &format!("{home}/passphrase"), EntryType::Char), unexpected),
        ("a long name of GNU", put(1, "././@LongLink", EntryType::GNULongName), unexpected),
        ("a sparse file", put(1, &format!("{home}/passphrase"), EntryType::GNUSparse), unexpected),
        ("a file twice", put(2, &members[1].path, EntryType::Regular), unexpected),
        ("a key twice", again, unexpected),
        ("a long file", long_file, "too long"),
        ("a size in an extension", extended("size", "9999999999"), "extension header"),
        ("a link in an extension", extended("linkpath", "/etc/passwd"), "extension header"),
        ("no first member", without(HEADER), "no archive that copr-keygen backup has made"),
        ("another first member", with_header(json!({})), "first member that is none"),
        ("a later version", with_header(json!({"version": 2})), "format version 2"),
        ("no manifest", without(MANIFEST), "ends before its manifest"),
        (
            "more after the manifest",
            [&tar_of(&members)[..tar_of(&members).len() - 1024], &tar_of(&[key.clone()])].concat(),
            "goes on after its manifest",
        ),
        ("nothing", Vec::new(), "is empty"),
        ("nonsense", vec![b'x'; 4096], "no archive that"),
        ("a message", [&[0x85][..], &[0; 600]].concat(), "gpg --decrypt"),
        ("an armored message", b"-----BEGIN PGP MESSAGE-----\n\n".to_vec(), "gpg --decrypt"),
    ] {
        let host = empty_host();
        let said = restore(&host, &archive);
        assert!(said.code == Some(1) && said.stderr.contains(words), "{what}: {}", said.stderr);
        assert!(!said.stderr.contains('\u{1b}'), "{what}");
        assert_links_are_right(&host);
        let keys = host.entries("keys");
        assert!(keys.iter().all(|key| [A, B].contains(&key.as_str())), "{what}: {keys:?}");
        assert_eq!(host.entries("").len(), 5, "{what}");
    }
}

#[test]
fn a_key_that_is_not_what_it_claims_to_be_is_not_restored_and_the_others_are() {
    let (original, members) = host_with_backup();
    let others = |end: &str| {
        let is_it = |m: &&Member| m.path.starts_with(&format!("keys/{B}/")) && m.path.contains(end);
        members.iter().find(is_it).unwrap().clone()
    };
    let alter = |change: &dyn Fn(&mut Vec<Member>)| {
        let mut members = members.clone();
        change(&mut members);
        sign_off(&mut members);
        tar_of(&members)
    };
    let replace = |part: &str, bytes: Vec<u8>| {
        alter(&|members| {
            let index = position(members, part);
            members[index].bytes.clone_from(&bytes);
        })
    };
    let rename = |part: &str, to: &dyn Fn(&str) -> String| {
        alter(&|members| {
            for member in members.iter_mut().filter(|member| member.path.contains(part)) {
                member.path = to(&member.path);
            }
        })
    };
    let strange = "0123456789ABCDEF0123456789ABCDEF01234567";
    let with_end = |path: &str, end: &str| format!("{}{end}", &path[..path.len() - end.len()]);
    for (what, archive, words) in [
        ("the other's certificate", replace("pubring", others("pubring").bytes), "is of"),
        ("no certificate", replace("pubring", b"nonsense".to_vec()), A),
        ("the other's secret key", replace("private", others("private").bytes), "gpg failed"),
        ("no secret key", replace("private", b"nonsense".to_vec()), "gpg failed"),
        ("the other's passphrase", replace("passphrase", others("passphrase").bytes), "gpg failed"),
        ("no passphrase", replace("passphrase", Vec::new()), "holds no passphrase"),
        (
            "another keygrip",
            rename("a#project@copr.example.org/private", &|path| {
                with_end(path, &format!("{strange}.key"))
            }),
            "not a whole key",
        ),
        (
            "another's revocation",
            rename("a#project@copr.example.org/openpgp", &|path| {
                with_end(path, &format!("{strange}.rev"))
            }),
            "no revocation certificate",
        ),
        ("another's name", rename(A, &|path| path.replace("a#", "c#")), "is not of c#project"),
        (
            "a file missing",
            alter(&|members| {
                members.remove(position(members, "a#project@copr.example.org/private"));
            }),
            "not a whole key",
        ),
    ] {
        let host = empty_host();
        let said = restore(&host, &archive).badly("1 keys were not restored");
        assert!(said.stderr.contains(words), "{what}: {}", said.stderr);
        assert!(said.stderr.contains("the archive is whole"), "{what}: {}", said.stderr);
        assert_eq!(host.entries("keys"), [B], "{what}");
        assert_keys_are_those_of(&host, &original);
    }
    // A record is only a cache: what gpg knows better is not believed.
    let lie = |text: Vec<u8>| {
        let mut record: Value = serde_json::from_slice(&text).unwrap();
        record["expires"] = json!(1);
        record["changed"] = json!(u64::MAX);
        record.to_string().into_bytes()
    };
    let host = empty_host();
    let record = &members[position(&members, "key.json")].bytes;
    restore(&host, &replace("key.json", lie(record.clone()))).well();
    let read = |host: &Host| -> Value {
        serde_json::from_slice(&fs::read(host.home(A).join("key.json")).unwrap()).unwrap()
    };
    assert_eq!(read(&host)["expires"], read(&original)["expires"]);
    assert!(read(&host)["changed"].as_u64().unwrap() < u64::from(u32::MAX));
    // It may be spoilt or another's.
    for record in [b"{}".to_vec(), others("key.json").bytes] {
        let host = empty_host();
        restore(&host, &replace("key.json", record)).well();
        assert_eq!(read(&host)["keygrip"], read(&original)["keygrip"]);
        assert_signs(&host, A);
    }
}

#[test]
fn a_manifest_that_does_not_fit_is_told() {
    let (original, members) = host_with_backup();
    let manifest = |change: &dyn Fn(&mut Value)| {
        let mut members = members.clone();
        let member = find(&mut members, MANIFEST);
        let mut manifest: Value = serde_json::from_slice(&member.bytes).unwrap();
        change(&mut manifest);
        member.bytes = manifest.to_string().into_bytes();
        tar_of(&members)
    };
    let host = empty_host();
    for (archive, words) in [
        (manifest(&|m| m["keys"][0]["files"]["passphrase"] = json!("0")), "not those that the"),
        (manifest(&|m| m["keys"][0]["files"] = json!(null)), "not those that the"),
        (manifest(&|m| drop(m["keys"].as_array_mut().unwrap().remove(0))), "does not list it"),
        (manifest(&|m| m["keys"][0]["name_email"] = json!("x#y@z")), "x#y@z: the manifest lists"),
        (manifest(&|m| m["keys"][0]["name_email"] = json!("../x")), "no name of a key"),
        (manifest(&|m| m["keys"] = json!(1)), "a manifest that is none"),
        (manifest(&|m| m["keys"][0]["files"] = json!(1)), "a manifest that is none"),
        (manifest(&|m| *m = json!([])), "a manifest that is none"),
    ] {
        restore(&host, &archive).badly(words);
        assert_eq!(host.entries("keys"), [A, B]);
        assert_keys_are_those_of(&host, &original);
    }
    restore(&host, &tar_of(&members)).well();
}

#[test]
fn a_key_that_is_there_is_never_replaced_by_another_one() {
    let (_original, members) = host_with_backup();
    let archive = tar_of(&members);
    let host = Host::start(Transport::PassedUnix);
    assert_eq!(host.gen_key_patiently(A, &json!({})).status, 201, "{}", host.log());
    let mine = tree(&host.home(A));
    let said = restore(&host, &archive).badly("the one here was left alone");
    assert!(said.stderr.contains("1 keys restored"), "{}", said.stderr);
    assert_eq!(tree(&host.home(A)), mine);
    assert_links_are_right(&host);
    // The backend never notices.
    assert_eq!(host.gen_key(B, json!({})).unwrap().status, 200);
    // A damaged home may hold the only key: it is not replaced either.
    fs::remove_file(host.home(B).join("pubring.kbx")).unwrap();
    let said = restore(&host, &archive).badly("move ");
    assert!(said.stderr.contains("pubring.kbx: is missing"), "{}", said.stderr);
    fs::rename(host.home(B), host.scratch().join("aside")).unwrap();
    restore(&host, &archive).badly("the one here was left alone");
    assert_signs(&host, B);
}

#[test]
fn a_restore_that_is_killed_is_finished_by_the_next_one() {
    let (original, members) = host_with_backup();
    let archive = original.scratch().join("archive");
    fs::write(&archive, tar_of(&members)).unwrap();
    let host = empty_host();
    let arguments = ["restore", "--from", archive.to_str().unwrap()];
    for round in 0..12_u64 {
        let mut command = copr_keygen(&host, &arguments);
        let mut child = command.stderr(Stdio::null()).spawn().unwrap();
        thread::sleep(Duration::from_millis(20 * round));
        child.kill().unwrap();
        child.wait().unwrap();
        let keys = host.state().join("keys");
        for id in keys.exists().then(|| host.entries("keys")).unwrap_or_default() {
            assert_eq!(tree(&host.home(&id)), tree(&original.home(&id)), "{id}");
        }
        if round % 4 == 3 {
            let _ = fs::remove_dir_all(host.home(A));
        }
    }
    // gpg dies with who started it, and then its staging can be cleared.
    eventually("the last restore", || run(&host, &arguments).code.filter(|code| *code == 0));
    assert_eq!(host.entries("keys"), [A, B]);
    assert_keys_are_those_of(&host, &original);
}

#[test]
fn a_full_disk_ends_it_and_the_next_run_goes_on() {
    let (original, members) = host_with_backup();
    let archive = original.scratch().join("archive");
    fs::write(&archive, tar_of(&members)).unwrap();
    let host = empty_host();
    let gpg = super::faults::stand_in(&host, "echo gpg: No space left on device >&2; exit 2");
    let arguments = ["restore", "--from", archive.to_str().unwrap()];
    let mut command = copr_keygen(&host, &arguments);
    let said: Said = command.env("COPR_KEYGEN_GPG", gpg).output().unwrap().into();
    said.badly("no space left");
    assert_eq!(host.entries("keys"), [""; 0]);
    assert_links_are_right(&host);
    run(&host, &arguments).well();
    assert_keys_are_those_of(&host, &original);
}

#[test]
fn what_it_reads_from_can_be_read() {
    let host = empty_host();
    let path: PathBuf = host.scratch().join("missing");
    run(&host, &["restore", "--from", path.to_str().unwrap()]).badly("No such file");
    run(&host, &["restore", "--from", host.scratch().to_str().unwrap()]).badly("directory");
    run(&host, &["restore", "--from", "/dev/null"]).badly("is empty");
}
