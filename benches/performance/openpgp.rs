//! Makes OpenPGP certificates of Ed25519 keys, packet for packet as gpg 2.2 does (RFC 4880, and algorithm 22 of
//! RFC 9580). Each has a primary key that signs and certifies, one user ID, and no expiry. For the benchmark
//! only, which needs a million keys sooner than gpg could make them; the service has gpg make every key.

use std::fmt::Write;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use ed25519_dalek::{Signer, SigningKey};
use sha1::Sha1;
use sha2::{Digest, Sha256};

/// The first octets of packet headers, in the old format with a length of one octet, as gpg writes them.
const SIGNATURE: u8 = 0x88;
const PUBLIC_KEY: u8 = 0x98;
const USER_ID: u8 = 0xb4;

/// The signature types.
const POSITIVE_CERTIFICATION: u8 = 0x13;
const KEY_REVOCATION: u8 = 0x20;

/// The public key algorithm and the hash algorithm.
const EDDSA: u8 = 22;
const SHA256: u8 = 8;

/// The object identifier of Ed25519 (1.3.6.1.4.1.11591.15.1), with its length in front.
const CURVE: [u8; 10] = [9, 0x2b, 6, 1, 4, 1, 0xda, 0x47, 0x0f, 1];

/// The subpackets for key flags (certifies, signs), preferences and features, in the order of gpg.
const CAPABILITIES: &[u8] = b"\x02\x1b\x03\x05\x0b\x09\x08\x07\x02\x06\x15\x0a\x09\x08\x0b\x02\
    \x04\x16\x02\x03\x01\x02\x1e\x01\x02\x17\x80";
/// The subpacket for the reason for revocation: no reason is given.
const NO_REASON: &[u8] = &[2, 29, 0];

/// The data that a keygrip hashes before the public key: the parameters of the curve by their libgcrypt
/// names, each with its length. a and b are negative; libgcrypt hashes them without the sign.
const CURVE_PARAMETERS: &[u8] = b"\
    (1:p32:\x7f\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\
    \xff\xff\xff\xff\xff\xff\xff\xed)\
    (1:a1:\x01)\
    (1:b32:\x2d\xfc\x93\x11\xd4\x90\x01\x8c\x73\x38\xbf\x86\x88\x86\x17\x67\xff\x8f\xf5\xb2\xbe\xbe\x27\x54\
    \x8a\x14\xb2\x35\xec\xa6\x87\x4a)\
    (1:g65:\x04\x21\x69\x36\xd3\xcd\x6e\x53\xfe\xc0\xa4\xe2\x31\xfd\xd6\xdc\x5c\x69\x2c\xc7\x60\x95\x25\xa7\
    \xb2\xc9\x56\x2d\x60\x8f\x25\xd5\x1a\x66\x66\x66\x66\x66\x66\x66\x66\x66\x66\x66\x66\x66\x66\x66\x66\x66\
    \x66\x66\x66\x66\x66\x66\x66\x66\x66\x66\x66\x66\x66\x66\x58)\
    (1:n32:\x10\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x14\xde\xf9\xde\xa2\xf7\x9c\xd6\x58\x12\x63\x1a\x5c\xf5\xd3\
    \xed)(1:q32:";

/// A certificate, in the parts that a keybox needs.
pub struct Certificate {
    /// The packet of the primary key.
    pub public_key: Vec<u8>,
    /// The packet of the user ID.
    pub user_id: Vec<u8>,
    /// The packet of the self-signature.
    pub certification: Vec<u8>,
    /// The text of the revocation certificate file for `openpgp-revocs.d/`.
    pub revocation: String,
    pub fingerprint: [u8; 20],
    /// The creation time of the key (Unix time).
    pub created: u32,
}

impl Certificate {
    /// Makes the certificate of `key` for a user ID of at most 255 bytes.
    pub fn new(key: &SigningKey, user_id: &str, created: u32) -> Self {
        let mut public_key = vec![4];
        public_key.extend(created.to_be_bytes());
        public_key.push(EDDSA);
        public_key.extend(CURVE);
        public_key.extend([1, 7, 0x40]); // 263 bits; 0x40 is the prefix of a native Ed25519 point
        public_key.extend(key.verifying_key().as_bytes());

        let hashed_key = [&[0x99, 0, low(&public_key)], &public_key[..]].concat();
        let hashed_user_id = [&[USER_ID, 0, 0, 0, low(user_id)], user_id.as_bytes()].concat();
        let fingerprint: [u8; 20] = Sha1::digest(&hashed_key).into();
        let issuer = Issuer { key, fingerprint, created };
        let all = [&hashed_key[..], &hashed_user_id].concat();
        let certification = issuer.sign(POSITIVE_CERTIFICATION, &all, CAPABILITIES);
        let revocation = issuer.sign(KEY_REVOCATION, &hashed_key, NO_REASON);
        Self {
            public_key: packet(PUBLIC_KEY, &public_key),
            user_id: packet(USER_ID, user_id.as_bytes()),
            certification,
            revocation: revocation_file(&revocation, &fingerprint, user_id),
            fingerprint,
            created,
        }
    }
}

/// Returns the keygrip of a key, after which the file of its secret key is named.
pub fn keygrip(key: &SigningKey) -> [u8; 20] {
    let hash = Sha1::new().chain_update(CURVE_PARAMETERS);
    hash.chain_update(key.verifying_key().as_bytes()).chain_update(b")").finalize().into()
}

/// The key that signs, and the time of its signatures.
struct Issuer<'a> {
    key: &'a SigningKey,
    fingerprint: [u8; 20],
    created: u32,
}

impl Issuer<'_> {
    /// Makes a signature packet over `data`. Its hashed subpackets are the issuer
    /// fingerprint, the creation time and `subpackets`.
    fn sign(&self, kind: u8, data: &[u8], subpackets: &[u8]) -> Vec<u8> {
        let mut hashed = vec![22, 33, 4];
        hashed.extend(self.fingerprint);
        hashed.extend([5, 2]);
        hashed.extend(self.created.to_be_bytes());
        hashed.extend(subpackets);
        let mut body = vec![4, kind, EDDSA, SHA256, 0, low(&hashed)];
        body.extend(hashed);
        let trailer = [4, 0xff, 0, 0, 0, low(&body)];
        let hash = Sha256::new().chain_update(data).chain_update(&body).chain_update(trailer);
        let hash = hash.finalize();
        let signature = self.key.sign(&hash);

        body.extend([0, 10, 9, 16]); // the unhashed subpacket: the key ID
        body.extend(&self.fingerprint[12..]);
        body.extend(&hash[..2]);
        body.extend(mpi(signature.r_bytes()));
        body.extend(mpi(signature.s_bytes()));
        packet(SIGNATURE, &body)
    }
}

/// Encodes an MPI: the number of bits, and the bytes without leading zeros.
fn mpi(bytes: &[u8]) -> Vec<u8> {
    let start = bytes.iter().position(|byte| *byte != 0).unwrap_or(bytes.len());
    let number = &bytes[start..];
    let unused = number.first().map_or(0, |byte| byte.leading_zeros());
    #[allow(clippy::cast_possible_truncation)]
    let bits = (number.len() * 8) as u16 - unused as u16;
    [&bits.to_be_bytes(), number].concat()
}

fn packet(header: u8, body: &[u8]) -> Vec<u8> {
    [&[header, low(body)], body].concat()
}

/// Returns a length as one octet. Everything here is shorter than 256 bytes.
#[allow(clippy::cast_possible_truncation)]
fn low(bytes: impl AsRef<[u8]>) -> u8 {
    bytes.as_ref().len() as u8
}

pub fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        let _ = write!(text, "{byte:02X}"); // writing to a String cannot fail
    }
    text
}

/// Returns the text of a `.rev` file. The colon before the armor header keeps gpg from importing it unedited.
fn revocation_file(revocation: &[u8], fingerprint: &[u8], user_id: &str) -> String {
    let base64 = BASE64_STANDARD.encode(revocation);
    let mut file = format!(
        "This is a revocation certificate for the OpenPGP key:\n\n\
         pub   ed25519 [SC]\n      {}\nuid          {user_id}\n\n\
         To revoke the key, remove the colon before the 5 dashes below and import the file.\n\n\
         :-----BEGIN PGP PUBLIC KEY BLOCK-----\nComment: This is a revocation certificate\n\n",
        hex(fingerprint)
    );
    for (index, symbol) in base64.chars().enumerate() {
        if index > 0 && index % 64 == 0 {
            file.push('\n');
        }
        file.push(symbol);
    }
    let checksum = &crc24(revocation).to_be_bytes()[1..];
    file += "\n=";
    file += &BASE64_STANDARD.encode(checksum);
    file + "\n-----END PGP PUBLIC KEY BLOCK-----\n"
}

/// Returns the checksum of ASCII armor (RFC 4880, 6.1).
fn crc24(bytes: &[u8]) -> u32 {
    let mut crc: u32 = 0x00b7_04ce;
    for byte in bytes {
        crc ^= u32::from(*byte) << 16;
        for _ in 0..8 {
            crc <<= 1;
            if crc & 0x0100_0000 != 0 {
                crc ^= 0x0186_4cfb;
            }
        }
    }
    crc
}
