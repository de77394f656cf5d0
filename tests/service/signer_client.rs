//! A client of obs-signd's protocol: requests in both forms, answers read byte for byte, and signatures that
//! gpgv verifies.

use std::fs;

use sha1::Sha1;
use sha2::{Digest, Sha256, Sha384, Sha512};

use super::certificate::{empty_directory, text, tool};

/// The hash algorithms that are signed, each with its OpenPGP number and its name.
pub const HASHES: [(u8, &str); 3] = [(8, "SHA256"), (9, "SHA384"), (10, "SHA512")];
/// The end of a probe, the request with which `sign` begins a signature of version 4.
pub const PROBE_TIME: &str = "@0000000000";

/// Returns a request in the old form.
pub fn old(user: impl AsRef<[u8]>, argument: impl AsRef<[u8]>) -> Vec<u8> {
    let [user, argument] = [user.as_ref(), argument.as_ref()];
    [&short(user.len())[..], &short(argument.len()), user, argument].concat()
}

/// Returns a request in the new form.
pub fn new<S: AsRef<[u8]>>(strings: &[S]) -> Vec<u8> {
    let lengths = strings.iter().flat_map(|string| short(string.as_ref().len()));
    let mut body = [&short(strings.len())[..], &lengths.collect::<Vec<_>>()].concat();
    strings.iter().for_each(|string| body.extend(string.as_ref()));
    [&short(body.len())[..], &[0, 0], &body].concat()
}

fn short(number: usize) -> [u8; 2] {
    u16::try_from(number).unwrap().to_be_bytes()
}

/// An answer: the output, or the sentence of a refusal.
pub type Answer = Result<Vec<u8>, String>;

/// Parses an answer, which must have the documented form.
pub fn parse(bytes: &[u8]) -> Answer {
    assert!(bytes.len() >= 6, "no answer: {bytes:?}");
    let number = |at: usize| usize::from(u16::from_be_bytes([bytes[at], bytes[at + 1]]));
    let (status, output, error) = (number(0), number(2), number(4));
    assert_eq!(bytes.len(), 6 + output + error, "{:?}", String::from_utf8_lossy(bytes));
    let (output, error) = bytes[6..].split_at(output);
    match status {
        0 => {
            assert!(error.is_empty(), "{error:?}");
            Ok(output.to_vec())
        }
        1 => {
            assert!(output.is_empty(), "{output:?}");
            let line = std::str::from_utf8(error).unwrap().strip_suffix('\n').unwrap();
            assert!(!line.is_empty() && !line.chars().any(char::is_control), "{line:?}");
            Err(line.into())
        }
        other => panic!("status {other}"),
    }
}

/// Returns the strings in the output of an answer to the new form.
pub fn strings(output: &[u8]) -> Vec<Vec<u8>> {
    let number = |at: usize| usize::from(u16::from_be_bytes([output[at], output[at + 1]]));
    let count = number(0);
    let mut rest = &output[2 + 2 * count..];
    let strings = (0..count).map(|index| {
        let (string, after) = rest.split_at(number(2 + 2 * index));
        rest = after;
        string.to_vec()
    });
    let strings = strings.collect();
    assert!(rest.is_empty(), "{rest:?} is behind the last string");
    strings
}

/// Hashes `data` by the algorithm with this OpenPGP number.
pub fn hash(algorithm: u8, data: &[u8]) -> Vec<u8> {
    match algorithm {
        2 => Sha1::digest(data).to_vec(),
        8 => Sha256::digest(data).to_vec(),
        9 => Sha384::digest(data).to_vec(),
        10 => Sha512::digest(data).to_vec(),
        other => panic!("hash algorithm {other}"),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Returns what `sign` sends for a signature of version 3 over `data`: the digest of data, class and time,
/// and then class and time themselves.
pub fn argument(algorithm: u8, data: &[u8], class: u8, time: u32) -> String {
    let trailer = [&[class][..], &time.to_be_bytes()].concat();
    format!("{}@{}", hex(&hash(algorithm, &[data, &trailer].concat())), hex(&trailer))
}

/// Returns the probe for digests of this algorithm.
pub fn probe(algorithm: u8) -> String {
    "04".repeat(hash(algorithm, b"").len()) + PROBE_TIME
}

/// A signature packet. To be parsed, it must have every field in its place and nothing more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet {
    pub version: u8,
    pub class: u8,
    pub time: u32,
    /// The key ID, which is the end of the fingerprint; in version 4 the whole fingerprint.
    pub issuer: String,
    pub algorithm: u8,
    pub hash: u8,
    pub left: [u8; 2],
    /// The numbers of the signature with their lengths, as in the packet.
    pub numbers: Vec<u8>,
}

impl Packet {
    pub fn parse(packet: &[u8]) -> Self {
        let (length, body) = match packet {
            [0x88, length, body @ ..] => (usize::from(*length), body),
            [0x89, high, low, body @ ..] => (usize::from(u16::from_be_bytes([*high, *low])), body),
            _ => panic!("no signature packet in the old format: {packet:?}"),
        };
        // gpg writes the longer form of a length only if the shorter one does not do.
        assert!(packet[0] == 0x88 || length > 255);
        assert_eq!(length, body.len());
        let time = |at: usize| u32::from_be_bytes(body[at..at + 4].try_into().unwrap());
        let (parsed, rest) = match body {
            [3, 5, class, ..] => {
                let issuer = hex(&body[7..15]).to_uppercase();
                let (algorithm, hash) = (body[15], body[16]);
                (Self::from((3, *class, time(3), issuer, algorithm, hash)), &body[17..])
            }
            [4, class, algorithm, hash, ..] => {
                // The issuer fingerprint and the time are in hashed subpackets, the key ID is in an unhashed
                // one.
                assert_eq!(body[4..9], [0, 29, 22, 33, 4]);
                assert_eq!((&body[29..31], &body[35..39]), (&[5, 2][..], &[0, 10, 9, 16][..]));
                let issuer = hex(&body[9..29]).to_uppercase();
                assert_eq!(hex(&body[39..47]).to_uppercase(), issuer[24..]);
                (Self::from((4, *class, time(31), issuer, *algorithm, *hash)), &body[47..])
            }
            _ => panic!("of neither version: {body:?}"),
        };
        let (left, numbers) = rest.split_at(2);
        let mut left_over = numbers;
        let mut count = 0;
        while let [high, low, after @ ..] = left_over {
            let bits = usize::from(u16::from_be_bytes([*high, *low]));
            let (number, after) = after.split_at(bits.div_ceil(8));
            let leading = usize::try_from(number[0].leading_zeros()).unwrap();
            assert_eq!(number.len() * 8 - leading, bits, "a length that is not that of the number");
            (left_over, count) = (after, count + 1);
        }
        assert!(left_over.is_empty());
        assert_eq!(count, if parsed.algorithm == 1 { 1 } else { 2 });
        Self { left: left.try_into().unwrap(), numbers: numbers.to_vec(), ..parsed }
    }
}

impl From<(u8, u8, u32, String, u8, u8)> for Packet {
    fn from(parts: (u8, u8, u32, String, u8, u8)) -> Self {
        let (version, class, time, issuer, algorithm, hash) = parts;
        Self { version, class, time, issuer, algorithm, hash, left: [0; 2], numbers: Vec::new() }
    }
}

/// Returns what `sign -4` hashes after the data, except for the length of it that comes last.
fn trailer_4(probed: &Packet, time: u32) -> Vec<u8> {
    let fingerprint = (0..40).step_by(2);
    let fingerprint = fingerprint.map(|at| u8::from_str_radix(&probed.issuer[at..at + 2], 16));
    let fingerprint: Vec<_> = fingerprint.map(Result::unwrap).collect();
    let head = [4, probed.class, probed.algorithm, probed.hash, 0, 29, 22, 33, 4];
    [&head[..], &fingerprint, &[5, 2], &time.to_be_bytes()].concat()
}

/// Returns what `sign -4` sends to have `data` signed by the key that answered the probe with `probed`.
pub fn argument_4(probed: &Packet, data: &[u8], time: u32) -> String {
    let trailer = trailer_4(probed, time);
    let end = [&[4, 255, 0, 0][..], &short(trailer.len())].concat();
    let digest = hash(probed.hash, &[data, &trailer, &end].concat());
    format!("{}@00{time:08x}", hex(&digest))
}

/// Returns the signature of version 4 that `sign -4` makes from the one of version 3 that it has got.
pub fn wrapped_4(probed: &Packet, signed: &Packet) -> Vec<u8> {
    let key_id = trailer_4(probed, 0)[21..29].to_vec();
    let unhashed = [&[0, 10, 9, 16][..], &key_id].concat();
    let body = [&trailer_4(probed, signed.time)[..], &unhashed, &signed.left, &signed.numbers];
    let body = body.concat();
    [&[0x89][..], &short(body.len()), &body].concat()
}

/// Has gpgv verify `signature` over `data` with a certificate, armored or not. Returns what gpgv said, as
/// `Err` if it does not find the signature valid.
pub fn verify(certificate: &[u8], data: &[u8], signature: &[u8]) -> Result<String, String> {
    let work = empty_directory();
    let file = |name: &str, content: &[u8]| {
        let path = work.path().join(name);
        fs::write(&path, content).unwrap();
        path
    };
    let armored = file("armored", certificate);
    let keyring = work.path().join("keyring");
    let mut dearmor = tool("gpg", "gnupg");
    dearmor.args(["--batch", "--yes", "--homedir"]).arg(work.path()).arg("-o").arg(&keyring);
    let dearmored = dearmor.arg("--dearmor").arg(&armored).output().unwrap();
    assert!(dearmored.status.success(), "{}", text(&dearmored));
    let mut gpgv = tool("gpgv", "gpgv");
    gpgv.args(["--status-fd=1", "--homedir"]).arg(work.path()).arg("--keyring").arg(keyring);
    let output = gpgv.arg(file("signature", signature)).arg(file("data", data)).output().unwrap();
    let words = text(&output);
    if output.status.success() && words.contains("[GNUPG:] VALIDSIG ") {
        Ok(words)
    } else {
        Err(words)
    }
}
