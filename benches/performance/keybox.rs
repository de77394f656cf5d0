//! The keybox, the file in which GnuPG keeps certificates: writes one with a single certificate as gpg 2.2
//! does (kbx/keybox-blob.c of GnuPG), and splits one into its blobs.

use sha1::{Digest, Sha1};

use crate::Result;
use crate::openpgp::Certificate;

/// The length in bytes of the first blob, which identifies the file as a keybox.
pub const HEADER: usize = 32;
/// The type of a blob with an OpenPGP certificate.
const OPENPGP: u8 = 2;

/// The sizes in bytes of the entries that a blob has for a key, a user ID and a signature.
const KEY_INFO: u16 = 28;
const USER_ID_INFO: u16 = 12;
const SIGNATURE_INFO: u16 = 4;
/// The offsets of the fingerprint and of the keyblock in a blob. They are fixed, as there is always one key,
/// one user ID, one signature and no serial number.
const FINGERPRINT: u32 = 20;
const KEYBLOCK: u32 = 94;

/// The trust packet that gpg puts after a key: nothing is known about trust in it. gpg puts a trust packet
/// after each packet in a keybox.
const KEY_TRUST: &[u8] = b"\xb0\x0c\0\0gpg\x01\0\0\0\0\0\0";
/// The trust packet after a user ID: nothing is known about its validity.
const USER_ID_TRUST: &[u8] = b"\xb0\x0c\0\0gpg\x02\0\0\0\0\0\0";
/// The trust packet after a signature: it has not been checked yet.
const SIGNATURE_TRUST: &[u8] = b"\xb0\x06\0\0gpg\0";

/// Returns a complete `pubring.kbx` with one certificate.
pub fn file(certificate: &Certificate) -> Vec<u8> {
    let created = certificate.created.to_be_bytes();
    let mut file = Vec::with_capacity(512);
    file.extend(32_u32.to_be_bytes());
    // Blob type, version, and the flags, which say that the file holds OpenPGP certificates.
    file.extend([1, 1, 0, 2]);
    file.extend(b"KBXf\0\0\0\0");
    file.extend(created); // creation time of the file
    file.extend(created); // time of the last maintenance
    file.extend([0; 8]);
    file.extend(blob(certificate));
    file
}

fn blob(certificate: &Certificate) -> Vec<u8> {
    let (key, user_id) = (&certificate.public_key, &certificate.user_id);
    let user_id_offset = KEYBLOCK as usize + key.len() + KEY_TRUST.len() + 2;
    let parts =
        [key, KEY_TRUST, user_id, USER_ID_TRUST, &certificate.certification, SIGNATURE_TRUST];
    let keyblock = parts.concat();
    let length = KEYBLOCK as usize + keyblock.len() + 20;

    let mut blob = Vec::with_capacity(length);
    blob.extend(long(length));
    blob.extend([OPENPGP, 1, 0, 0]); // version, flags
    blob.extend(KEYBLOCK.to_be_bytes());
    blob.extend(long(keyblock.len()));
    blob.extend(one_of(KEY_INFO));
    blob.extend(certificate.fingerprint);
    blob.extend((FINGERPRINT + 12).to_be_bytes()); // the key ID is the end of the fingerprint
    blob.extend([0; 4]); // flags, reserved
    blob.extend([0; 2]); // no serial number
    blob.extend(one_of(USER_ID_INFO));
    blob.extend(long(user_id_offset));
    blob.extend(long(user_id.len() - 2));
    blob.extend([0; 4]); // flags, validity, reserved
    blob.extend(one_of(SIGNATURE_INFO));
    blob.extend([0; 4]); // expiry: not checked
    blob.extend([0; 12]); // trust, validity, reserved, time of the next check, newest time
    blob.extend(certificate.created.to_be_bytes());
    blob.extend([0; 4]); // nothing reserved
    blob.extend(keyblock);
    let checksum = Sha1::digest(&blob);
    blob.extend(checksum);
    blob
}

/// Returns the header of a table with one entry: the count, then the size of the entry.
fn one_of(size: u16) -> [u8; 4] {
    let [high, low] = size.to_be_bytes();
    [0, 1, high, low]
}

/// Encodes a length or an offset. In a blob with one certificate, all are far below 4 GiB.
#[allow(clippy::cast_possible_truncation)]
fn long(number: usize) -> [u8; 4] {
    (number as u32).to_be_bytes()
}

/// Splits a keybox into its header and the blobs of its certificates. Each blob begins
/// with its length in four bytes.
pub fn split(keybox: &[u8]) -> Result<(&[u8], Vec<&[u8]>)> {
    let (header, mut rest) = keybox.split_at_checked(HEADER).ok_or("a short keybox")?;
    if header.get(8..12) != Some(b"KBXf") {
        return Err("not a keybox".into());
    }
    let mut blobs = Vec::new();
    while let Some(length) = rest.first_chunk::<4>() {
        let length = usize::try_from(u32::from_be_bytes(*length))?;
        let (blob, tail) = rest.split_at_checked(length.max(5)).ok_or("a cut keybox")?;
        // A deleted certificate leaves a blob of type 0 behind.
        if blob[4] == OPENPGP {
            blobs.push(blob);
        }
        rest = tail;
    }
    Ok((header, blobs))
}
