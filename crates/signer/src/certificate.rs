//! What a certificate says about its primary key: the key, its fingerprint, and whether it may sign. Read from the
//! home's keyring at each request, as a cache could be behind it.
//!
//! Self-signatures are not verified. The keyring is a file that only its owner can write, who could as well
//! replace the secret key; gpg has verified them when it wrote it.

use gpg::{Fingerprint, hex, keybox, packets};
use openssl::hash::{MessageDigest, hash};

use crate::bytes::Bytes;
use crate::public_key::PublicKey;

/// Types of packets (RFC 9580, 5).
const SIGNATURE: u8 = 2;
const PUBLIC_KEY: u8 = 6;
const PUBLIC_SUBKEY: u8 = 14;

/// Types of signatures (RFC 9580, 5.2.1).
const CERTIFICATIONS: std::ops::RangeInclusive<u8> = 0x10..=0x13;
const DIRECT_KEY: u8 = 0x1f;
const KEY_REVOCATION: u8 = 0x20;

/// Types of subpackets (RFC 9580, 5.2.3.7).
const CREATED: u8 = 2;
const KEY_LIFETIME: u8 = 9;
const ISSUER: u8 = 16;
const KEY_FLAGS: u8 = 27;
const ISSUER_FINGERPRINT: u8 = 33;

/// The flag of a key that signs data.
const SIGNS: u8 = 2;

/// A certificate, as far as signing needs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    /// The primary key.
    pub key: PublicKey,
    /// Its fingerprint.
    pub fingerprint: [u8; 20],
    /// Unix time of creation.
    pub created: u64,
    /// Unix time of expiry; `None` for never.
    pub expires: Option<u64>,
    /// Whether its owner has revoked it.
    pub revoked: bool,
    /// Whether it may sign data.
    pub signs: bool,
}

impl Certificate {
    /// Reads the only certificate in a keybox. `Err` is a sentence.
    pub fn read(keybox: &[u8]) -> Result<Self, String> {
        let packets = keybox::one_certificate(keybox)?;
        let packets = packets.packets().ok_or("has a blob that contradicts itself")?;
        Self::parse(packets)
    }

    /// Reads the packets of a certificate. `Err` is a sentence.
    pub fn parse(bytes: &[u8]) -> Result<Self, String> {
        let packets = packets::packets(bytes).map_err(|e| format!("holds a bad packet: {e}"))?;
        let primary = packets.first().filter(|packet| packet.kind == PUBLIC_KEY);
        let primary = &primary.ok_or("begins with something else than a public key")?.body;
        let (key, created) = public_key(primary).ok_or("holds a public key of an unknown form")?;
        let fingerprint = fingerprint(primary).ok_or("holds a public key that is too long")?;
        let mut certificate =
            Self { key, fingerprint, created, expires: None, revoked: false, signs: false };
        // What is said about subkeys comes behind the first of them.
        let own = packets.iter().take_while(|packet| packet.kind != PUBLIC_SUBKEY);
        let signatures = own.filter(|packet| packet.kind == SIGNATURE);
        let mut newest = None;
        for signature in signatures.filter_map(|packet| SelfSignature::parse(&packet.body)) {
            if !signature.is_of(&fingerprint) {
                continue;
            }
            certificate.revoked |= signature.kind == KEY_REVOCATION;
            let describes =
                CERTIFICATIONS.contains(&signature.kind) || signature.kind == DIRECT_KEY;
            if describes && newest.as_ref().is_none_or(|(created, _)| *created <= signature.created)
            {
                newest = Some((signature.created, signature));
            }
        }
        let (_, newest) = newest.ok_or("holds no self-signature")?;
        let lifetime = newest.lifetime.filter(|seconds| *seconds > 0);
        certificate.expires = lifetime.map(|seconds| created + u64::from(seconds));
        certificate.signs = newest.flags.is_none_or(|flags| flags & SIGNS != 0);
        Ok(certificate)
    }

    /// The fingerprint as text.
    pub fn fingerprint(&self) -> Option<Fingerprint> {
        Fingerprint::parse(&hex::encode(&self.fingerprint).to_uppercase())
    }

    /// The key ID, the end of the fingerprint.
    pub fn key_id(&self) -> &[u8] {
        &self.fingerprint[12..]
    }
}

/// The key in a packet of version 4, and when it was created.
fn public_key(body: &[u8]) -> Option<(PublicKey, u64)> {
    let mut body = Bytes(body);
    let (4, created) = (body.byte()?, body.u32()?) else { return None };
    Some((PublicKey::parse(body)?, created.into()))
}

/// RFC 9580, 5.5.4.2.
fn fingerprint(body: &[u8]) -> Option<[u8; 20]> {
    let length = u16::try_from(body.len()).ok()?;
    let hashed = [&[0x99], &length.to_be_bytes()[..], body].concat();
    hash(MessageDigest::sha1(), &hashed).ok()?[..].try_into().ok()
}

/// A signature, as far as it may be one by the primary key about itself.
#[derive(Debug, Default)]
struct SelfSignature {
    kind: u8,
    created: u32,
    lifetime: Option<u32>,
    flags: Option<u8>,
    issuers: Vec<Vec<u8>>,
}

impl SelfSignature {
    fn parse(body: &[u8]) -> Option<Self> {
        let mut body = Bytes(body);
        match body.byte()? {
            3 => {
                let (5, kind, created) = (body.byte()?, body.byte()?, body.u32()?) else {
                    return None;
                };
                let issuers = vec![body.take(8)?.to_vec()];
                Some(Self { kind, created, issuers, ..Self::default() })
            }
            4 => {
                let mut signature = Self { kind: body.byte()?, ..Self::default() };
                let _algorithms = body.take(2)?;
                let hashed = usize::from(body.u16()?);
                signature.learn(Bytes(body.take(hashed)?), true)?;
                let unhashed = usize::from(body.u16()?);
                signature.learn(Bytes(body.take(unhashed)?), false)?;
                Some(signature)
            }
            _ => None,
        }
    }

    /// Takes over subpackets. Only those that are hashed say more than who signed.
    fn learn(&mut self, mut subpackets: Bytes, hashed: bool) -> Option<()> {
        while !subpackets.is_empty() {
            let length = match subpackets.byte()? {
                short @ 0..=191 => u32::from(short),
                255 => subpackets.u32()?,
                middle => ((u32::from(middle) - 192) << 8) + u32::from(subpackets.byte()?) + 192,
            };
            let mut subpacket = Bytes(subpackets.take(length.try_into().ok()?)?);
            // The highest bit says that it is critical.
            match (subpacket.byte()? & 0x7f, hashed) {
                (CREATED, true) => self.created = subpacket.u32()?,
                (KEY_LIFETIME, true) => self.lifetime = Some(subpacket.u32()?),
                (KEY_FLAGS, true) => self.flags = Some(subpacket.byte().unwrap_or_default()),
                (ISSUER, _) => self.issuers.push(subpacket.take(8)?.to_vec()),
                (ISSUER_FINGERPRINT, _) => self.issuers.push(subpacket.0.get(1..)?.to_vec()),
                _ => {}
            }
        }
        Some(())
    }

    /// Whether the key with this fingerprint made it, as far as it says.
    fn is_of(&self, fingerprint: &[u8; 20]) -> bool {
        !self.issuers.is_empty() && self.issuers.iter().all(|issuer| fingerprint.ends_with(issuer))
    }
}
