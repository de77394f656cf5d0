//! Writes signature packets as obs-signd does (RFC 9580, 5.2.2 and 5.2.3). Signatures are of version 3; with
//! `sign -4`, the client turns them into version 4. The answer to the client's probe is of version 4.

use crate::algorithm::Hash;
use crate::certificate::Certificate;
use crate::public_key::{bits, without_zeros};
use crate::request::Digest;

/// The tag of a signature packet in the old format, with a length of one byte.
const HEADER: u8 = 0x88;

/// Subpacket types (RFC 9580, 5.2.3.7).
const CREATED: u8 = 2;
const ISSUER: u8 = 16;
const ISSUER_FINGERPRINT: u8 = 33;

/// Returns a version 3 signature packet over `digest`. `numbers` are the numbers of the signature.
pub fn version_3(
    certificate: &Certificate,
    hash: Hash,
    digest: &Digest,
    numbers: &[Vec<u8>],
) -> Option<Vec<u8>> {
    let mut body = vec![3, 5];
    body.extend(digest.class_and_time);
    body.extend(certificate.key_id());
    body.extend([certificate.key.number(), hash.number()]);
    body.extend(&digest.bytes[..2]);
    packet(body, numbers)
}

/// Returns the answer to the client's probe: a packet in the form of a version 4 signature, which is not valid.
/// The client reads the algorithm and the fingerprint from it and discards it, so nothing is signed.
pub fn probe_answer(certificate: &Certificate, hash: Hash, digest: &Digest) -> Option<Vec<u8>> {
    let [class, time @ ..] = digest.class_and_time;
    let hashed =
        [&[22, ISSUER_FINGERPRINT, 4][..], &certificate.fingerprint, &[5, CREATED], &time].concat();
    let unhashed = [&[9, ISSUER][..], certificate.key_id()].concat();
    let mut body = vec![4, class, certificate.key.number(), hash.number()];
    for area in [&hashed, &unhashed] {
        body.extend(u16::try_from(area.len()).ok()?.to_be_bytes());
        body.extend(area);
    }
    body.extend(&digest.bytes[..2]);
    // Numbers as long as those of a real signature, with only the first bit set.
    let number = |bits: usize| {
        let mut number = vec![0; bits.div_ceil(8)];
        number[0] = 1 << ((bits - 1) % 8);
        number
    };
    let numbers: Vec<_> = certificate.key.signature_bits().into_iter().map(number).collect();
    packet(body, &numbers)
}

/// Returns a packet of `body` and these multiprecision integers.
fn packet(mut body: Vec<u8>, numbers: &[Vec<u8>]) -> Option<Vec<u8>> {
    for number in numbers {
        body.extend(u16::try_from(bits(number)).ok()?.to_be_bytes());
        body.extend(without_zeros(number));
    }
    let mut packet = match u8::try_from(body.len()) {
        Ok(length) => vec![HEADER, length],
        Err(_) => {
            let [high, low] = u16::try_from(body.len()).ok()?.to_be_bytes();
            vec![HEADER + 1, high, low]
        }
    };
    packet.append(&mut body);
    Some(packet)
}
