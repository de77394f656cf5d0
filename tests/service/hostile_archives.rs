//! Archives that are made to deceive `copr-keygen restore`. A member that no backup writes ends the restore.
//! A key that is not what it claims to be is not restored.

use std::fs;

use serde_json::{Value, json};
use tar::{Builder, EntryType};

use super::certificate::assert_signs;
use super::host::{Host, Transport};
use super::safekeeping::{
    Recipient, assert_links_are_right, edit_certificate, empty_host, restore, tree,
};
use super::tars::{
    A, B, HEADER, MANIFEST, Member, assert_keys_are_those_of, find, host_with_backup, members_of,
    position, sign_off, tar_of,
};

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
        ("a file twice", put(3, &members[2].path, EntryType::Regular), unexpected),
        ("a key without sums", without("SHA256SUMS"), unexpected),
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
            [
                &tar_of(&members)[..tar_of(&members).len() - 1024],
                &tar_of(std::slice::from_ref(&key)),
            ]
            .concat(),
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
        let said = restore(&host, &archive).badly("1 key could not be restored");
        assert!(said.stderr.contains(words), "{what}: {}", said.stderr);
        assert!(said.stderr.contains("the archive is whole"), "{what}: {}", said.stderr);
        assert_eq!(host.entries("keys"), [B], "{what}");
        assert_keys_are_those_of(&host, &original);
    }
    // key.json is only a cache: what gpg knows better is taken from gpg.
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
    // It may be damaged, or belong to another key.
    for record in [b"{}".to_vec(), others("key.json").bytes] {
        let host = empty_host();
        restore(&host, &replace("key.json", record)).well();
        assert_eq!(read(&host)["keygrip"], read(&original)["keygrip"]);
        assert_signs(&host, A);
    }
}

#[test]
fn a_secret_key_does_not_become_that_of_two_identities() {
    let host = Host::start(Transport::PassedUnix);
    assert_eq!(host.gen_key_patiently(A, &json!({})).status, 201, "{}", host.log());
    // Whoever has the key of A can add the user ID of B to it.
    edit_certificate(&host, A, "--quick-add-uid", &format!("another <{B}>"));
    let mut members = members_of(&Recipient::new().backup(&host, &[]));
    for member in &mut members {
        member.path = member.path.replace(A, B);
    }
    sign_off(&mut members);
    let archive = tar_of(&members);
    let before = tree(&host.state().join("keys"));
    restore(&host, &archive).badly("cannot be of two identities");
    assert_eq!(tree(&host.state().join("keys")), before);
    assert_links_are_right(&host);
    // On a host without the key of A, it becomes the key of B.
    restore(&empty_host(), &archive).well();
}
