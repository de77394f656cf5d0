//! The public keys of certificates, and the verification of their signatures.

use openssl::bn::BigNum;
use openssl::dsa::{Dsa, DsaSig};
use openssl::ec::{EcGroup, EcKey, EcPoint};
use openssl::ecdsa::EcdsaSig;
use openssl::error::ErrorStack;
use openssl::pkey::{Id, PKey, Public};
use openssl::pkey_ctx::PkeyCtx;
use openssl::rsa::{Padding, Rsa};
use openssl::sign::Verifier;

use crate::algorithm::{Curve, Hash};
use crate::bytes::Bytes;

/// OpenPGP's numbers of the algorithms (RFC 9580, 9.1).
const RSA: u8 = 1;
const RSA_SIGN_ONLY: u8 = 3;
const DSA: u8 = 17;
const ECDSA: u8 = 19;
const EDDSA: u8 = 22;
/// The object identifier of Ed25519 (RFC 9580, 9.2).
const ED25519: [u8; 9] = [0x2b, 6, 1, 4, 1, 0xda, 0x47, 0x0f, 1];
/// The prefix of an Ed25519 point that is encoded as in RFC 8032.
const NATIVE_POINT: u8 = 0x40;

/// A public key, with its numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PublicKey {
    /// RSA.
    Rsa {
        /// OpenPGP's number of the algorithm: there are two for RSA.
        number: u8,
        /// The modulus.
        n: Vec<u8>,
        /// The exponent.
        e: Vec<u8>,
    },
    /// ECDSA.
    Ecdsa {
        /// The curve.
        curve: Curve,
        /// The uncompressed point.
        point: Vec<u8>,
    },
    /// EdDSA on Ed25519, with the point.
    Ed25519([u8; 32]),
    /// DSA. Only gpg-agent can sign with such a key.
    Dsa {
        /// The prime modulus.
        p: Vec<u8>,
        /// The order of the group.
        q: Vec<u8>,
        /// The generator.
        g: Vec<u8>,
        /// The public value.
        y: Vec<u8>,
    },
    /// Another algorithm, with its OpenPGP number. Its signatures could not be verified here, so none are made.
    Other(u8),
}

impl PublicKey {
    /// Parses the part of a version 4 public key packet that follows the time of creation (RFC 9580, 5.5.2).
    pub fn parse(mut body: Bytes) -> Option<Self> {
        let number = body.byte()?;
        let key = match number {
            RSA | RSA_SIGN_ONLY => {
                Self::Rsa { number, n: body.mpi()?.to_vec(), e: body.mpi()?.to_vec() }
            }
            DSA => {
                let mut next = || body.mpi().map(<[u8]>::to_vec);
                Self::Dsa { p: next()?, q: next()?, g: next()?, y: next()? }
            }
            ECDSA | EDDSA => {
                let length = body.byte()?;
                let oid = body.take(length.into())?;
                let point = body.mpi()?;
                let curve = Curve::ALL.into_iter().find(|curve| curve.object_identifier() == oid);
                match (number, curve) {
                    (ECDSA, Some(curve)) => Self::Ecdsa { curve, point: point.to_vec() },
                    (EDDSA, _) if oid == ED25519 => match point {
                        [NATIVE_POINT, point @ ..] => Self::Ed25519(point.try_into().ok()?),
                        _ => return None,
                    },
                    _ => Self::Other(number),
                }
            }
            _ => return Some(Self::Other(number)),
        };
        // With a modulus of zero, a signature would have no bits.
        let is_usable = key.signature_bits().iter().all(|bits| *bits > 0);
        (body.is_empty() && is_usable).then_some(key)
    }

    /// Returns OpenPGP's number of the algorithm, which signature packets contain.
    pub fn number(&self) -> u8 {
        match self {
            Self::Rsa { number, .. } | Self::Other(number) => *number,
            Self::Ecdsa { .. } => ECDSA,
            Self::Dsa { .. } => DSA,
            Self::Ed25519(_) => EDDSA,
        }
    }

    /// Returns GnuPG's name of the algorithm.
    pub fn name(&self) -> String {
        match self {
            Self::Rsa { n, .. } => format!("rsa{}", bits(n)),
            Self::Ecdsa { curve, .. } => format!("nistp{}", curve.bits()),
            Self::Ed25519(_) => "ed25519".into(),
            Self::Dsa { p, .. } => format!("dsa{}", bits(p)),
            Self::Other(number) => format!("algorithm {number}"),
        }
    }

    /// Returns the maximum number of bits of each number in a signature.
    pub fn signature_bits(&self) -> Vec<usize> {
        match self {
            Self::Rsa { n, .. } => vec![bits(n)],
            Self::Ecdsa { curve, .. } => vec![curve.bits(); 2],
            Self::Dsa { q, .. } => vec![bits(q); 2],
            Self::Ed25519(_) | Self::Other(_) => vec![256; 2],
        }
    }

    /// Returns the minimum size of a digest in bytes. Verifiers refuse signatures over a shorter one (GnuPG:
    /// `requires a 384 bit or larger hash`).
    pub fn digest_size_min(&self) -> usize {
        match self {
            Self::Ecdsa { curve, .. } => (curve.bits() / 8).min(64),
            _ => 0,
        }
    }

    /// Whether the numbers in `signature` are a valid signature over `digest`.
    pub fn verifies(&self, hash: Hash, digest: &[u8], signature: &[Vec<u8>]) -> bool {
        let verified = match (self, signature) {
            (Self::Rsa { n, e, .. }, [s]) => verify_rsa(n, e, hash, digest, s),
            (Self::Ecdsa { curve, point }, [r, s]) => verify_ecdsa(*curve, point, digest, r, s),
            (Self::Dsa { p, q, g, y }, [r, s]) => verify_dsa([p, q, g, y], digest, r, s),
            (Self::Ed25519(point), [r, s]) => verify_ed25519(point, digest, r, s),
            _ => Ok(false),
        };
        verified.unwrap_or(false)
    }
}

/// Returns the number of significant bits of a big-endian number.
pub fn bits(number: &[u8]) -> usize {
    let number = without_zeros(number);
    number.len() * 8 - number.first().map_or(0, |first| first.leading_zeros() as usize)
}

/// Returns a big-endian number without its leading zeros.
pub fn without_zeros(number: &[u8]) -> &[u8] {
    &number[number.iter().take_while(|byte| **byte == 0).count()..]
}

/// Returns a big-endian number as exactly `length` bytes, or `None` if it needs more.
pub fn padded(number: &[u8], length: usize) -> Option<Vec<u8>> {
    let number = without_zeros(number);
    let zeros = length.checked_sub(number.len())?;
    Some([&vec![0; zeros], number].concat())
}

fn verify_rsa(n: &[u8], e: &[u8], hash: Hash, digest: &[u8], s: &[u8]) -> Result<bool, ErrorStack> {
    let key = Rsa::from_public_components(BigNum::from_slice(n)?, BigNum::from_slice(e)?)?;
    let key = PKey::from_rsa(key)?;
    let Some(signature) = padded(s, key.size()) else { return Ok(false) };
    let mut context = PkeyCtx::new(&key)?;
    context.verify_init()?;
    context.set_rsa_padding(Padding::PKCS1)?;
    context.set_signature_md(hash.md())?;
    context.verify(digest, &signature)
}

fn verify_ecdsa(
    curve: Curve,
    point: &[u8],
    digest: &[u8],
    r: &[u8],
    s: &[u8],
) -> Result<bool, ErrorStack> {
    let group = EcGroup::from_curve_name(curve.nid())?;
    let point = EcPoint::from_bytes(&group, point, &mut *openssl::bn::BigNumContext::new()?)?;
    let key = EcKey::from_public_key(&group, &point)?;
    let [r, s] = [BigNum::from_slice(r)?, BigNum::from_slice(s)?];
    EcdsaSig::from_private_components(r, s)?.verify(digest, &key)
}

fn verify_dsa(numbers: [&[u8]; 4], digest: &[u8], r: &[u8], s: &[u8]) -> Result<bool, ErrorStack> {
    let [p, q, g, y] = numbers.map(BigNum::from_slice);
    let key = PKey::from_dsa(Dsa::from_public_components(p?, q?, g?, y?)?)?;
    let [r, s] = [BigNum::from_slice(r)?, BigNum::from_slice(s)?];
    let mut context = PkeyCtx::new(&key)?;
    context.verify_init()?;
    context.verify(digest, &DsaSig::from_private_components(r, s)?.to_der()?)
}

fn verify_ed25519(point: &[u8], digest: &[u8], r: &[u8], s: &[u8]) -> Result<bool, ErrorStack> {
    let (Some(r), Some(s)) = (padded(r, 32), padded(s, 32)) else { return Ok(false) };
    let key: PKey<Public> = PKey::public_key_from_raw_bytes(point, Id::ED25519)?;
    Verifier::new_without_digest(&key)?.verify_oneshot(&[r, s].concat(), digest)
}
