//! Splits a keybox file (`pubring.kbx`) into its blobs (kbx/keybox-blob.c of GnuPG, "The keybox data format").
//! So the certificates of many homes can be joined into one file. The content of a blob is not parsed. gpg
//! would copy the whole file for every certificate that it imports; joining the blobs copies each of them once.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};

/// The number of bytes in front of a blob's content: its length, type and version.
const BLOB_HEADER: usize = 6;
/// The type of the first blob, which is the header of the file.
const FIRST: u8 = 1;
/// The type of a blob with an OpenPGP certificate.
const OPENPGP: u8 = 2;

/// The blobs of a keybox with one certificate.
#[derive(Debug, PartialEq, Eq)]
pub struct OneCertificate<'a> {
    /// The first blob, which every keybox begins with.
    pub first: &'a [u8],
    /// The blob of the certificate.
    pub certificate: &'a [u8],
}

impl OneCertificate<'_> {
    /// Returns the packets of the certificate. Bytes 8 to 15 of the blob hold the offset and the length of
    /// them.
    pub fn packets(&self) -> Option<&[u8]> {
        let blob = self.certificate;
        let number = |at: usize| {
            let bytes: [u8; 4] = blob.get(at..at + 4)?.try_into().ok()?;
            usize::try_from(u32::from_be_bytes(bytes)).ok()
        };
        let (begin, length) = (number(8)?, number(12)?);
        blob.get(begin..begin.checked_add(length)?)
    }
}

/// Parses a keybox that must hold exactly one certificate. `Err` is a sentence.
pub fn one_certificate(file: &[u8]) -> Result<OneCertificate<'_>, String> {
    let (mut first, mut certificate) = (None, None);
    let mut rest = file;
    while !rest.is_empty() {
        let offset = file.len() - rest.len();
        let length = match rest {
            [a, b, c, d, _, _, ..] => u32::from_be_bytes([*a, *b, *c, *d]),
            _ => return Err(format!("is cut off at byte {offset}")),
        };
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        if length < BLOB_HEADER || length > rest.len() {
            return Err(format!("has no whole blob at byte {offset}"));
        }
        let (blob, behind) = rest.split_at(length);
        match blob[4] {
            0 => {} // a blob that was deleted
            FIRST if offset == 0 && has_magic(blob) => first = Some(blob),
            OPENPGP if certificate.is_none() => certificate = Some(blob),
            OPENPGP => return Err("holds more than one certificate".into()),
            kind => return Err(format!("has a blob of type {kind} at byte {offset}")),
        }
        rest = behind;
    }
    match (first, certificate) {
        (Some(first), Some(certificate)) => Ok(OneCertificate { first, certificate }),
        (None, _) => Err("is not a keybox".into()),
        (_, None) => Err("holds no certificate".into()),
    }
}

/// Whether a keybox holds a certificate of any kind. Returns `true` also for a file that is not a keybox,
/// because it may hold anything.
pub fn holds_certificates(mut file: impl Read + Seek) -> bool {
    loop {
        let mut head = [0; BLOB_HEADER];
        match file.read(&mut head) {
            Ok(0) => return false,
            Ok(1) | Err(_) => return true,
            Ok(read) if file.read_exact(&mut head[read..]).is_err() => return true,
            Ok(_) => {}
        }
        let length = u32::from_be_bytes([head[0], head[1], head[2], head[3]]);
        let is_empty = matches!(head[4], 0 | FIRST);
        let behind = i64::from(length) - BLOB_HEADER as i64;
        if !is_empty || behind < 0 || file.seek(SeekFrom::Current(behind)).is_err() {
            return true;
        }
    }
}

/// Whether an open file begins like a keybox. If it does, the file is rewound to its beginning.
pub fn is_keybox(mut file: &File) -> bool {
    let mut head = [0; 12];
    file.read_exact(&mut head).is_ok() && has_magic(&head) && file.rewind().is_ok()
}

/// Whether a keybox that begins with `head` is, or was, used for OpenPGP. If it is not, gpg uses a
/// `pubring.gpg` beside it.
pub fn is_for_openpgp(head: &[u8]) -> bool {
    has_magic(head) && head[7] & 2 != 0
}

fn has_magic(head: &[u8]) -> bool {
    head.get(8..12) == Some(b"KBXf")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blob(kind: u8, body: &[u8]) -> Vec<u8> {
        let length = u32::try_from(BLOB_HEADER + body.len()).unwrap_or_default();
        [&length.to_be_bytes()[..], &[kind, 1], body].concat()
    }

    #[test]
    fn one_certificate_is_found_and_anything_else_refused() {
        let first = blob(FIRST, b"\0\x02KBXf0123456789012345");
        let (one, gone) = (blob(OPENPGP, b"certificate"), blob(0, b"deleted"));
        let file = [&first[..], &gone, &one].concat();
        let whole = OneCertificate { first: &first, certificate: &one };
        assert_eq!(one_certificate(&file), Ok(whole));
        assert!(is_for_openpgp(&file) && !is_for_openpgp(&one) && !is_for_openpgp(b""));
        let holds = |file: &[u8]| holds_certificates(std::io::Cursor::new(file));
        assert!(!holds(b"") && !holds(&first) && !holds(&[&first[..], &gone].concat()));
        let x509 = [&first[..], &blob(3, b"x509")].concat();
        for some in [&file, &x509, &file[..file.len() - 1].to_vec(), &b"junk".to_vec()] {
            assert!(holds(some), "{some:?}");
        }
        for (bad, words) in [
            (first.clone(), "holds no certificate"),
            (one.clone(), "is not a keybox"),
            (Vec::new(), "is not a keybox"),
            ([&first[..], &one, &one].concat(), "more than one"),
            ([&first[..], &one, &first].concat(), "type 1 at byte 45"),
            ([&first[..], &blob(3, b"x509")].concat(), "type 3 at byte 28"),
            (file[..file.len() - 1].to_vec(), "no whole blob at byte"),
            ([&file[..], b"1234"].concat(), "is cut off at byte"),
            ([&file[..], &[0; 9]].concat(), "no whole blob at byte"),
        ] {
            let error = one_certificate(&bad).err().unwrap_or_default();
            assert!(error.contains(words), "{error:?} should have said {words:?}");
        }
    }
}
