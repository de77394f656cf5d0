//! Secret keys that sign in this process, with the system's libcrypto. No secret number outlives its key.

use openssl::bn::{BigNum, BigNumContext, BigNumRef};
use openssl::ec::{EcGroup, EcKey, EcPoint};
use openssl::ecdsa::EcdsaSig;
use openssl::error::ErrorStack;
use openssl::pkey::{Id, PKey, Private};
use openssl::pkey_ctx::PkeyCtx;
use openssl::rsa::{Padding, Rsa};
use openssl::sign::Signer;
use zeroize::Zeroizing;

use crate::algorithm::{Curve, Hash};
use crate::key_file::KeyNumbers;
use crate::public_key::{PublicKey, padded, without_zeros};

/// A secret key, ready to sign.
pub enum SecretKey {
    /// RSA.
    Rsa(PKey<Private>),
    /// ECDSA.
    Ecdsa(EcKey<Private>),
    /// EdDSA on Ed25519.
    Ed25519(PKey<Private>),
}

/// Why a key cannot sign in this process.
#[derive(Debug)]
pub enum Unusable {
    /// Only gpg-agent implements its algorithm.
    OnlyByAgent,
    /// It does not belong to the public key.
    OfAnother,
    /// Its numbers do not form a key; why.
    Malformed(String),
}

impl SecretKey {
    /// Makes a key from its numbers. Fails if it does not belong to `public`.
    pub fn new(numbers: &KeyNumbers, public: &PublicKey) -> Result<Self, Unusable> {
        let number = |name: &str| {
            let missing = || Unusable::Malformed(format!("it has no number {name}"));
            numbers.get(name).ok_or_else(missing)
        };
        let malformed = |e: ErrorStack| Unusable::Malformed(e.to_string());
        match (numbers.algorithm.as_str(), public) {
            ("rsa", PublicKey::Rsa { n, e, .. }) => {
                if without_zeros(number("n")?) != n || without_zeros(number("e")?) != e {
                    return Err(Unusable::OfAnother);
                }
                let [d, p, q, u] = [number("d")?, number("p")?, number("q")?, number("u")?];
                // With longer numbers, a signature would take minutes.
                if [d, p, q, u].iter().any(|number| without_zeros(number).len() > n.len()) {
                    return Err(Unusable::Malformed("it has a number that is too long".into()));
                }
                rsa([n, e, d, p, q, u]).map(Self::Rsa).map_err(malformed)
            }
            ("ecc", PublicKey::Ed25519(point)) => {
                let q = number("q")?;
                let seed = padded(number("d")?, 32).map(Zeroizing::new);
                let is_native = numbers.get("curve") == Some(b"Ed25519") && q.ends_with(point);
                let (true, Some(seed)) = (is_native, seed) else { return Err(Unusable::OfAnother) };
                let key = PKey::private_key_from_raw_bytes(&seed, Id::ED25519);
                key.map(Self::Ed25519).map_err(malformed)
            }
            ("ecc", PublicKey::Ecdsa { curve, point }) => {
                if numbers.get("curve") != Some(curve.name().as_bytes()) || number("q")? != point {
                    return Err(Unusable::OfAnother);
                }
                ecdsa(*curve, point, number("d")?).map(Self::Ecdsa).map_err(malformed)
            }
            ("dsa", PublicKey::Dsa { .. }) => Err(Unusable::OnlyByAgent),
            _ => Err(Unusable::OfAnother),
        }
    }

    /// Signs a digest. Returns the numbers of the signature in OpenPGP's order: one for RSA, two for other
    /// algorithms.
    pub fn sign(&self, hash: Hash, digest: &[u8]) -> Result<Vec<Vec<u8>>, ErrorStack> {
        match self {
            Self::Rsa(key) => {
                let mut context = PkeyCtx::new(key)?;
                context.sign_init()?;
                context.set_rsa_padding(Padding::PKCS1)?;
                context.set_signature_md(hash.md())?;
                let mut signature = Vec::new();
                context.sign_to_vec(digest, &mut signature)?;
                Ok(vec![signature])
            }
            Self::Ecdsa(key) => {
                let signature = EcdsaSig::sign(digest, key)?;
                Ok(vec![signature.r().to_vec(), signature.s().to_vec()])
            }
            Self::Ed25519(key) => {
                let signature = Signer::new_without_digest(key)?.sign_oneshot_to_vec(digest)?;
                let (r, s) = signature.split_at(signature.len() / 2);
                Ok(vec![r.to_vec(), s.to_vec()])
            }
        }
    }
}

/// Makes a secret number. OpenSSL overwrites a number that is marked as secure, and every copy of it, when they
/// are freed. Of other numbers, its provider leaves copies behind.
fn secret(bytes: &[u8]) -> Result<BigNum, ErrorStack> {
    let mut number = BigNum::new_secure()?;
    number.copy_from_slice(bytes)?;
    number.set_const_time();
    Ok(number)
}

/// Makes an RSA key from libgcrypt's numbers, where `u` is the inverse of `p` modulo `q`. OpenSSL wants the
/// inverse of `q` modulo `p`, so the primes are exchanged.
fn rsa([n, e, d, p, q, u]: [&[u8]; 6]) -> Result<PKey<Private>, ErrorStack> {
    let (d, p, q) = (secret(d)?, secret(q)?, secret(p)?);
    let [d_p, d_q] = [reduced(&d, &p)?, reduced(&d, &q)?];
    let (n, e) = (BigNum::from_slice(n)?, BigNum::from_slice(e)?);
    PKey::from_rsa(Rsa::from_private_components(n, e, d, p, q, d_p, d_q, secret(u)?)?)
}

/// Returns `d` modulo `prime` - 1.
fn reduced(d: &BigNumRef, prime: &BigNumRef) -> Result<BigNum, ErrorStack> {
    let (mut one_less, mut result) = (BigNum::new_secure()?, BigNum::new_secure()?);
    one_less.set_const_time();
    result.set_const_time();
    one_less.checked_sub(prime, &*BigNum::from_u32(1)?)?;
    result.nnmod(d, &one_less, &mut *BigNumContext::new_secure()?)?;
    Ok(result)
}

fn ecdsa(curve: Curve, point: &[u8], d: &[u8]) -> Result<EcKey<Private>, ErrorStack> {
    let group = EcGroup::from_curve_name(curve.nid())?;
    let point = EcPoint::from_bytes(&group, point, &mut *BigNumContext::new()?)?;
    EcKey::from_private_components(&group, &*secret(d)?, &point)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key_file::open;

    #[test]
    fn numbers_that_would_take_minutes_are_refused() {
        let public = PublicKey::Rsa { number: 1, n: vec![0x21], e: vec![3] };
        for (name, is_good) in [("", true), ("d", false), ("p", false), ("q", false), ("u", false)]
        {
            let number = |other: &str| if other == name { "#0101#" } else { "#0005#" };
            let [d, p, q, u] = ["d", "p", "q", "u"].map(number);
            let file = format!("(private-key (rsa (n #21#)(e #03#)(d {d})(p {p})(q {q})(u {u})))");
            let Ok(numbers) = open(file.as_bytes(), b"") else { panic!("{file}") };
            let refused = SecretKey::new(&numbers, &public).err();
            let is_long =
                matches!(&refused, Some(Unusable::Malformed(why)) if why.contains("too long"));
            assert_eq!(is_long, !is_good, "{name}: {refused:?}");
        }
    }
}
