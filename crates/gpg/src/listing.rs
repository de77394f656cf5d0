//! Parses the listings of `gpg --with-colons` (doc/DETAILS of GnuPG, "Format of the colon listings").

use crate::fingerprint::{Fingerprint, Keygrip};
use crate::hex;

/// A certificate as gpg sees it: a primary key with its user IDs and the signatures on them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    /// The fingerprint of the primary key.
    pub fingerprint: Fingerprint,
    /// The keygrip of the primary key, if the listing has keygrips (`--with-keygrip`).
    pub keygrip: Option<Keygrip>,
    /// gpg's name of the algorithm, like `rsa2048` or `ed25519`.
    pub algorithm: String,
    /// The time of creation (Unix time).
    pub created: u64,
    /// The time of expiry (Unix time); `None` for never.
    pub expires: Option<u64>,
    /// Whether the key is revoked.
    pub revoked: bool,
    /// Whether the primary key can sign data (`s` among its own capabilities).
    pub signs: bool,
    /// The user IDs, including those that are revoked.
    pub user_ids: Vec<String>,
    /// The number of subkeys.
    pub subkeys: usize,
    /// The keygrips of the subkeys, if the listing has keygrips (`--with-keygrip`).
    pub subkey_keygrips: Vec<Keygrip>,
    /// All signatures on the key and its user IDs, if the listing has signatures (`--check-sigs`).
    pub signatures: Vec<Signature>,
}

/// A signature on a key or a user ID.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Signature {
    /// The position of the signed user ID in [`Certificate::user_ids`] plus one; zero for a signature on the
    /// key itself.
    pub on: usize,
    /// The key ID of the issuer.
    pub issuer: String,
    /// The time of the signature (Unix time).
    pub created: u64,
    /// The signature type as two hexadecimal digits (RFC 9580, 5.2.1), then `x` for exportable or `l` for
    /// local.
    pub class: String,
    /// Whether gpg has verified the signature.
    pub good: bool,
}

impl Certificate {
    /// Whether the primary key made `signature`.
    pub fn is_self_signature(&self, signature: &Signature) -> bool {
        self.fingerprint.as_str().ends_with(&signature.issuer)
    }

    /// Returns the user ID that `signature` is on; empty for a signature on the key itself.
    pub fn signed_id(&self, signature: &Signature) -> &str {
        let user_id = signature.on.checked_sub(1).and_then(|on| self.user_ids.get(on));
        user_id.map_or("", String::as_str)
    }

    /// Returns the time of the newest verified self-signature, or else of the creation of the key (Unix time).
    /// A clock that shows an earlier time is wrong, or was wrong when the signature was made.
    pub fn dated(&self) -> u64 {
        self.newest(|signature| signature.good)
    }

    /// As [`Certificate::dated`], but counts signatures that gpg could not verify, too. gpg verifies none while
    /// its clock is before the creation of the key.
    pub fn dated_at_most(&self) -> u64 {
        self.newest(|_| true)
    }

    fn newest(&self, counts: impl Fn(&Signature) -> bool) -> u64 {
        let own = self.signatures.iter().filter(|one| self.is_self_signature(one) && counts(one));
        own.map(|signature| signature.created).max().unwrap_or_default().max(self.created)
    }

    /// Copies the results of signature checks from the same certificate in `verified`. A signature becomes good
    /// only if it is good there. Does nothing if `verified` lacks this certificate.
    pub fn take_verdicts(&mut self, verified: &[Self]) {
        let Some(same) = verified.iter().find(|one| one.fingerprint == self.fingerprint) else {
            return;
        };
        let is_good = |signature: &Signature| {
            same.signatures.iter().any(|other| {
                other.good
                    && (&other.issuer, other.created, &other.class)
                        == (&signature.issuer, signature.created, &signature.class)
                    && same.signed_id(other) == self.signed_id(signature)
            })
        };
        let verdicts: Vec<_> = self.signatures.iter().map(is_good).collect();
        for (signature, good) in self.signatures.iter_mut().zip(verdicts) {
            signature.good = good;
        }
    }
}

/// Parses the certificates in a listing. `Err` is a sentence. One malformed line is an error for the whole
/// listing: no decision may be based on half of it.
pub fn parse(listing: &[u8]) -> Result<Vec<Certificate>, String> {
    // gpg does not convert user IDs, which need not be UTF-8.
    let text = String::from_utf8_lossy(listing);
    let lines = lines(&text);
    let begins = |line: &Line| matches!(line.kind(), "pub" | "sec");
    let groups = lines.chunk_by(|_, next| !begins(next));
    groups.filter(|group| begins(&group[0])).map(certificate).collect()
}

/// Splits a listing into its lines.
pub(crate) fn lines(listing: &str) -> Vec<Line<'_>> {
    listing.split('\n').map(|line| Line(line.split(':').collect())).collect()
}

/// A line of a listing, split at its colons.
pub(crate) struct Line<'a>(Vec<&'a str>);

impl<'a> Line<'a> {
    /// Returns a field by its number in doc/DETAILS, which counts from 1; empty if the line has no such field.
    pub(crate) fn field(&self, number: usize) -> &'a str {
        self.0.get(number - 1).copied().unwrap_or_default()
    }

    /// Returns the type of record, like "pub" or "uid".
    pub(crate) fn kind(&self) -> &'a str {
        self.field(1)
    }

    /// Returns the fingerprint or keygrip in a line, if the line is of type `kind`.
    fn digits(&self, kind: &str) -> Option<&'a str> {
        (self.kind() == kind).then(|| self.field(10))
    }
}

/// Parses the certificate in a "pub" or "sec" line and the lines that follow it.
fn certificate(lines: &[Line]) -> Result<Certificate, String> {
    let is_subkey = |line: &Line| matches!(line.kind(), "sub" | "ssb");
    // The lines after a subkey describe that subkey.
    let end = lines.iter().position(is_subkey).unwrap_or(lines.len());
    let (own, subkeys) = lines.split_at(end);
    let keygrip = |line: &Line| Keygrip::parse(line.digits("grp")?);
    let fingerprint = own.iter().find_map(|line| Fingerprint::parse(line.digits("fpr")?));
    let key = &lines[0];
    let mut found = Certificate {
        fingerprint: fingerprint.ok_or("a key without a version 4 fingerprint")?,
        keygrip: own.iter().find_map(keygrip),
        algorithm: algorithm(key.field(4), key.field(3), key.field(17)),
        created: time(key.field(6))?.ok_or("a key without a time of creation")?,
        expires: time(key.field(7))?,
        revoked: key.field(2).starts_with('r'),
        signs: key.field(12).contains('s'),
        user_ids: Vec::new(),
        subkeys: subkeys.iter().filter(|line| is_subkey(line)).count(),
        subkey_keygrips: subkeys.iter().filter_map(keygrip).collect(),
        signatures: Vec::new(),
    };
    for line in own {
        match line.kind() {
            "uid" => found.user_ids.push(unescape(line.field(10))),
            // A user attribute (a photo). It takes a place in the list, because signatures refer to positions.
            "uat" => found.user_ids.push(String::new()),
            "sig" | "rev" => found.signatures.push(Signature {
                on: found.user_ids.len(),
                issuer: line.field(5).into(),
                created: time(line.field(6))?.unwrap_or_default(),
                class: line.field(11).split(',').next().unwrap_or_default().into(),
                good: line.field(2).starts_with('!'),
            }),
            _ => {}
        }
    }
    Ok(found)
}

/// Parses a time in seconds since 1970. An empty field and zero mean that there is none.
fn time(text: &str) -> Result<Option<u64>, String> {
    if text.is_empty() {
        return Ok(None);
    }
    let seconds: u64 = text.parse().map_err(|_| format!("{text:?} is no time"))?;
    Ok((seconds != 0).then_some(seconds))
}

/// Returns gpg's name of an algorithm (the numbers are those of RFC 9580, 9.1).
fn algorithm(number: &str, bits: &str, curve: &str) -> String {
    match (number, curve) {
        ("1" | "2" | "3", _) => format!("rsa{bits}"),
        ("17", _) => format!("dsa{bits}"),
        (_, "") => format!("algorithm {number}"),
        (_, curve) => curve.into(),
    }
}

/// Replaces escapes like `\x3a`, which gpg writes for colons, backslashes and control characters.
fn unescape(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let escaped = match rest {
            [b'\\', b'x', high, low, ..] => hex::byte(*high, *low),
            _ => None,
        };
        match escaped {
            Some(byte) => {
                bytes.push(byte);
                rest = &rest[4..];
            }
            None => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LISTING: &str = "\
tru:ot:1:1795372980:1:3:1:5
pub:-:2048:1:D6B25A54CFF4FE2A:1700000000:2048425968::u:::scSC::::::23::0:
fpr:::::::::3B617C5A61C1708B6A3A6771D6B25A54CFF4FE2A:
grp:::::::::BF6D4F8AB9CF6480E6C14A606981AB23EF44E259:
uid:-::::1795372984::103F9EDE60D18DA8D74391810E130CFDB03A8341::a\\x3a b <a#b@c>::::::::::0:
sig:!::1:D6B25A54CFF4FE2A:1795372984::::a b <a#b@c>:13x::3B617C5A61C1708B6A3A6771D6B25A54CFF4FE2A:::10:
sig:?::1:0123456789ABCDEF:1700000000::::[User ID not found]:10x:::::10:
pub:r:255:22:8877665544332211:1700000001:::-:::sc:::::ed25519:::0:
fpr:::::::::0000000000000000000000008877665544332211:
sub:-:255:18:1111111111111111:1700000001::::::e:::::cv25519::
fpr:::::::::0000000000000000000000001111111111111111:
";

    #[test]
    fn reads_what_gpg_lists() -> Result<(), String> {
        let [first, second] =
            <[_; 2]>::try_from(parse(LISTING.as_bytes())?).map_err(|found| format!("{found:?}"))?;
        assert_eq!(first.fingerprint.as_str(), "3B617C5A61C1708B6A3A6771D6B25A54CFF4FE2A");
        assert_eq!(
            first.keygrip.as_ref().map(Keygrip::as_str),
            Some("BF6D4F8AB9CF6480E6C14A606981AB23EF44E259")
        );
        assert_eq!((first.created, first.expires), (1_700_000_000, Some(2_048_425_968)));
        assert_eq!((first.algorithm.as_str(), first.revoked), ("rsa2048", false));
        assert_eq!(first.user_ids, ["a: b <a#b@c>"]);
        let good: Vec<_> = first.signatures.iter().map(|s| (s.on, s.good)).collect();
        assert_eq!(good, [(1, true), (1, false)]);
        assert!(first.is_self_signature(&first.signatures[0]));
        assert!(!first.is_self_signature(&first.signatures[1]));
        assert_eq!((second.algorithm.as_str(), second.revoked), ("ed25519", true));
        assert_eq!((second.expires, second.subkeys), (None, 1));
        assert_eq!(second.fingerprint.as_str(), "0000000000000000000000008877665544332211");
        Ok(())
    }

    #[test]
    fn a_certificate_is_dated_by_what_its_own_key_did() -> Result<(), String> {
        let mut all = parse(LISTING.as_bytes())?;
        assert_eq!((all[0].dated(), all[1].dated()), (1_795_372_984, 1_700_000_001));
        // Signatures that gpg could not verify count only for `dated_at_most`.
        let verified = all.clone();
        all[0].signatures.iter_mut().for_each(|signature| signature.good = false);
        assert_eq!((all[0].dated(), all[0].dated_at_most()), (1_700_000_000, 1_795_372_984));
        all[0].signatures[1].created = u64::from(u32::MAX);
        assert_eq!(all[0].dated_at_most(), 1_795_372_984, "another key made it");
        all[0].take_verdicts(&verified[1..]);
        assert!(all[0].signatures.iter().all(|signature| !signature.good));
        all[0].take_verdicts(&verified);
        let good: Vec<_> = all[0].signatures.iter().map(|signature| signature.good).collect();
        assert_eq!(good, [true, false]);
        Ok(())
    }

    #[test]
    fn half_a_listing_is_none() {
        for bad in ["pub:-:2048:1:X:::\n", "pub:-:2048:1:X:yesterday::\n", "pub:-:2048:1:X:1::\n"] {
            assert!(parse(bad.as_bytes()).is_err(), "{bad}");
        }
        for nothing in [&b""[..], b"\n\n", b"tru::\nuid:-::\nsig:!\n", b"\xff\xfe:::\n"] {
            assert_eq!(parse(nothing), Ok(Vec::new()));
        }
    }

    #[test]
    fn a_subkey_lends_its_primary_key_nothing() -> Result<(), String> {
        let digits = "0123456789ABCDEF0123456789ABCDEF01234567";
        // A version 5 fingerprint is not supported, and the subkey's fingerprint must not take its place.
        let v5 = format!(
            "pub:-:255:22:X:1::\nfpr:::::::::{digits}{digits}:\nsub:-::\nfpr:::::::::{digits}:\n"
        );
        assert!(parse(v5.as_bytes()).is_err_and(|why| why.contains("without a version 4")));
        let grip =
            format!("pub:-:1:1:X:1:00:\nfpr:::::::::{digits}:\nsub:-::\ngrp:::::::::{digits}:\n");
        let found = parse(grip.as_bytes())?;
        assert!(found.iter().all(|one| one.keygrip.is_none() && one.expires.is_none()));
        let grips = found.iter().flat_map(|one| &one.subkey_keygrips).map(Keygrip::as_str);
        assert_eq!(grips.collect::<Vec<_>>(), [digits]);
        Ok(())
    }

    #[test]
    fn escapes_are_undone_once() {
        for (text, expected) in
            [("a", "a"), ("\\x3a", ":"), ("\\x5cx3a", "\\x3a"), ("\\x3", "\\x3")]
        {
            assert_eq!(unescape(text), expected);
        }
        assert_eq!(unescape("\\xc3\\xbc"), "ü");
        assert_eq!(unescape("\\xzz\\"), "\\xzz\\");
    }
}
