//! What a certificate says about its primary key: the key itself, its fingerprint, and whether it may sign. The
//! keyring of the home is read anew for each request, because a cache could be out of date.
//!
//! Self-signatures are not verified here: gpg verified them when it wrote the keyring. Only the owner of that
//! file can write it, and could replace the secret key just as well.

use gpg::{Fingerprint, hex, keybox, packets};
use keystore::NameEmail;
use openssl::hash::{MessageDigest, hash};

use crate::bytes::Bytes;
use crate::public_key::PublicKey;

/// Packet types (RFC 9580, 5).
const SIGNATURE: u8 = 2;
const PUBLIC_KEY: u8 = 6;
const USER_ID: u8 = 13;
const PUBLIC_SUBKEY: u8 = 14;

/// Signature types (RFC 9580, 5.2.1).
const CERTIFICATIONS: std::ops::RangeInclusive<u8> = 0x10..=0x13;
const DIRECT_KEY: u8 = 0x1f;
const KEY_REVOCATION: u8 = 0x20;

/// Subpacket types (RFC 9580, 5.2.3.7).
const CREATED: u8 = 2;
const KEY_LIFETIME: u8 = 9;
const ISSUER: u8 = 16;
const KEY_FLAGS: u8 = 27;
const ISSUER_FINGERPRINT: u8 = 33;

/// The key flag of a key that may sign data.
const SIGNS: u8 = 2;

/// The parts of a certificate that matter for signing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    /// The primary key.
    pub key: PublicKey,
    /// The fingerprint of the primary key.
    pub fingerprint: [u8; 20],
    /// The time of creation (Unix time).
    pub created: u64,
    /// The time of expiry (Unix time); `None` for never.
    pub expires: Option<u64>,
    /// Whether the primary key has revoked itself.
    pub revoked: bool,
    /// Whether the primary key may sign data.
    pub signs: bool,
    /// The user IDs that are valid UTF-8.
    pub user_ids: Vec<String>,
}

impl Certificate {
    /// Parses the only certificate in a keybox. `Err` is a sentence.
    pub fn read(keybox: &[u8]) -> Result<Self, String> {
        let packets = keybox::one_certificate(keybox)?;
        let packets = packets.packets().ok_or("has a blob that contradicts itself")?;
        Self::parse(packets)
    }

    /// Parses the packets of a certificate. `Err` is a sentence.
    pub fn parse(bytes: &[u8]) -> Result<Self, String> {
        let packets = packets::packets(bytes).map_err(|e| format!("holds a bad packet: {e}"))?;
        let primary = packets.first().filter(|packet| packet.kind == PUBLIC_KEY);
        let primary = &primary.ok_or("begins with something else than a public key")?.body;
        let (key, created) = public_key(primary).ok_or("holds a public key of an unknown form")?;
        let fingerprint = fingerprint(primary).ok_or("holds a public key that is too long")?;
        let mut certificate = Self {
            key,
            fingerprint,
            created,
            expires: None,
            revoked: false,
            signs: false,
            user_ids: Vec::new(),
        };
        // The packets from the first subkey on describe subkeys.
        let own = packets.iter().take_while(|packet| packet.kind != PUBLIC_SUBKEY);
        let own: Vec<_> = own.collect();
        let user_ids = own.iter().filter(|packet| packet.kind == USER_ID);
        let text = |body: &[u8]| std::str::from_utf8(body).ok().map(str::to_owned);
        certificate.user_ids = user_ids.filter_map(|packet| text(&packet.body)).collect();
        let signatures = own.iter().filter(|packet| packet.kind == SIGNATURE);
        let mut newest: Option<SelfSignature> = None;
        for signature in signatures.filter_map(|packet| SelfSignature::parse(&packet.body)) {
            if !signature.is_of(&fingerprint) {
                continue;
            }
            certificate.revoked |= signature.kind == KEY_REVOCATION;
            let describes =
                CERTIFICATIONS.contains(&signature.kind) || signature.kind == DIRECT_KEY;
            if describes && newest.as_ref().is_none_or(|newest| newest.created <= signature.created)
            {
                newest = Some(signature);
            }
        }
        let newest = newest.ok_or("holds no self-signature")?;
        let lifetime = newest.lifetime.filter(|seconds| *seconds > 0);
        certificate.expires = lifetime.map(|seconds| created + u64::from(seconds));
        certificate.signs = newest.flags.is_none_or(|flags| flags & SIGNS != 0);
        Ok(certificate)
    }

    /// Whether one of the user IDs belongs to this identity.
    pub fn is_of(&self, name_email: &NameEmail) -> bool {
        self.user_ids.iter().any(|user_id| name_email.is_in(user_id))
    }

    /// Returns the fingerprint as text.
    pub fn fingerprint(&self) -> Option<Fingerprint> {
        Fingerprint::parse(&hex::encode(&self.fingerprint).to_uppercase())
    }

    /// Returns the key ID, which is the end of the fingerprint.
    pub fn key_id(&self) -> &[u8] {
        &self.fingerprint[12..]
    }
}

/// Parses a public key packet of version 4. Returns the key and its time of creation.
fn public_key(body: &[u8]) -> Option<(PublicKey, u64)> {
    let mut body = Bytes(body);
    let (4, created) = (body.byte()?, body.u32()?) else { return None };
    Some((PublicKey::parse(body)?, created.into()))
}

/// Computes the fingerprint of a version 4 key from its public key packet (RFC 9580, 5.5.4.2).
fn fingerprint(body: &[u8]) -> Option<[u8; 20]> {
    let length = u16::try_from(body.len()).ok()?;
    let hashed = [&[0x99], &length.to_be_bytes()[..], body].concat();
    hash(MessageDigest::sha1(), &hashed).ok()?[..].try_into().ok()
}

/// The parts of a signature packet that matter for a self-signature.
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

    /// Parses the subpackets of one area. Of the unhashed subpackets, only those that name the issuer are used.
    fn learn(&mut self, mut subpackets: Bytes, hashed: bool) -> Option<()> {
        while !subpackets.is_empty() {
            let length = match subpackets.byte()? {
                short @ 0..=191 => u32::from(short),
                255 => subpackets.u32()?,
                middle => ((u32::from(middle) - 192) << 8) + u32::from(subpackets.byte()?) + 192,
            };
            let mut subpacket = Bytes(subpackets.take(length.try_into().ok()?)?);
            // The highest bit marks a critical subpacket.
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

    /// Whether the signature claims to be made by the key with this fingerprint.
    fn is_of(&self, fingerprint: &[u8; 20]) -> bool {
        !self.issuers.is_empty() && self.issuers.iter().all(|issuer| fingerprint.ends_with(issuer))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the public key packet of a small RSA key that was created at 1000.
    fn primary() -> Vec<u8> {
        let numbers = [&[1, 0, 0x20][..], &[0xff; 4], &[0, 17, 1, 0, 1]].concat();
        packet(PUBLIC_KEY, &[&[4, 0, 0, 3, 0xe8][..], &numbers].concat())
    }

    fn packet(kind: u8, body: &[u8]) -> Vec<u8> {
        [&[0xc0 | kind, 255][..], &(body.len() as u32).to_be_bytes(), body].concat()
    }

    fn own_print() -> [u8; 20] {
        fingerprint(&primary()[6..]).unwrap_or_default()
    }

    fn subpacket(kind: u8, body: &[u8]) -> Vec<u8> {
        [&[body.len() as u8 + 1, kind][..], body].concat()
    }

    fn number(kind: u8, number: u32) -> Vec<u8> {
        subpacket(kind, &number.to_be_bytes())
    }

    /// Returns a version 4 signature packet with these subpackets, hashed and unhashed, but without the
    /// signature itself.
    fn signature(kind: u8, hashed: &[Vec<u8>], unhashed: &[Vec<u8>]) -> Vec<u8> {
        let mut body = vec![4, kind, 1, 8];
        for area in [hashed.concat(), unhashed.concat()] {
            body.extend((area.len() as u16).to_be_bytes());
            body.extend(area);
        }
        packet(SIGNATURE, &body)
    }

    fn by_own_key() -> Vec<u8> {
        subpacket(ISSUER, &own_print()[12..])
    }

    /// Returns a self-signature that was made at `created` and has `more` hashed subpackets.
    fn about_itself(kind: u8, created: u32, more: &[Vec<u8>]) -> Vec<u8> {
        signature(kind, &[&[number(CREATED, created)], more].concat(), &[by_own_key()])
    }

    fn read(packets: &[Vec<u8>]) -> Result<Certificate, String> {
        Certificate::parse(&[&[primary()], packets].concat().concat())
    }

    fn user_id() -> Vec<u8> {
        packet(13, b"user <user#project@copr.example.org>")
    }

    #[test]
    fn the_newest_self_signature_tells() -> Result<(), String> {
        let lifetime = |seconds| number(KEY_LIFETIME, seconds);
        let flags = |flags| subpacket(KEY_FLAGS, &[flags]);
        let first = about_itself(0x13, 1000, &[lifetime(50), flags(3)]);
        let certificate = read(&[user_id(), first.clone()])?;
        assert_eq!(certificate.fingerprint, own_print());
        assert_eq!((certificate.created, certificate.expires), (1000, Some(1050)));
        assert!(certificate.signs && !certificate.revoked);
        for (newer, expected) in [
            (about_itself(0x10, 2000, &[lifetime(5000), flags(2)]), (Some(6000), true)),
            (about_itself(DIRECT_KEY, 2000, &[lifetime(0), flags(1)]), (None, false)),
            (about_itself(0x13, 2000, &[]), (None, true)),
            // An older self-signature.
            (about_itself(0x13, 900, &[lifetime(1)]), (Some(1050), true)),
            // Signatures that are not about the primary key, or not by it.
            (about_itself(0x18, 2000, &[lifetime(1)]), (Some(1050), true)),
            (signature(0x13, &[number(CREATED, 2000)], &[]), (Some(1050), true)),
            (
                signature(0x13, &[number(CREATED, 2000)], &[subpacket(ISSUER, &[7; 8])]),
                (Some(1050), true),
            ),
            (
                about_itself(0x13, 2000, &[subpacket(ISSUER_FINGERPRINT, &[4; 21])]),
                (Some(1050), true),
            ),
            // A lifetime outside of the hashed subpackets is ignored.
            (signature(0x13, &[number(CREATED, 2000)], &[by_own_key(), lifetime(1)]), (None, true)),
        ] {
            for packets in [[first.clone(), newer.clone()], [newer.clone(), first.clone()]] {
                let certificate = read(&[&[user_id()], &packets[..]].concat())?;
                assert_eq!((certificate.expires, certificate.signs), expected, "{newer:?}");
            }
        }
        Ok(())
    }

    #[test]
    fn a_revocation_counts_wherever_it_is() -> Result<(), String> {
        let (own, revocation) =
            (about_itself(0x13, 1000, &[]), about_itself(KEY_REVOCATION, 1001, &[]));
        let of_subkey = [packet(PUBLIC_SUBKEY, &[0]), revocation.clone()];
        for (packets, expected) in [
            (vec![revocation.clone(), user_id(), own.clone()], true),
            (vec![user_id(), own.clone(), revocation.clone()], true),
            ([&[user_id(), own.clone()], &of_subkey[..]].concat(), false),
            (vec![user_id(), own.clone(), about_itself(0x28, 1001, &[])], false),
            (vec![signature(KEY_REVOCATION, &[], &[]), user_id(), own.clone()], false),
        ] {
            assert_eq!(read(&packets)?.revoked, expected);
        }
        Ok(())
    }

    #[test]
    fn what_is_cut_or_changed_is_refused_or_read_and_nothing_panics() -> Result<(), String> {
        let more = [number(KEY_LIFETIME, 50), subpacket(KEY_FLAGS, &[3])];
        let packets = [primary(), user_id(), about_itself(0x13, 1000, &more)];
        let whole = packets.concat();
        assert!(Certificate::parse(&whole).is_ok());
        for length in 0..whole.len() {
            assert!(Certificate::parse(&whole[..length]).is_err(), "{length}");
        }
        for at in 0..whole.len() {
            for value in 0..=255 {
                let mut changed = whole.clone();
                changed[at] = value;
                let Ok(certificate) = Certificate::parse(&changed) else { continue };
                // What is computed from the certificate must not panic either.
                let digest = crate::request::Digest { bytes: vec![4; 32], class_and_time: [0; 5] };
                let hash = crate::algorithm::Hash::Sha256;
                let _ = crate::signature::probe_answer(&certificate, hash, &digest);
                let _ = certificate.key.verifies(hash, &digest.bytes, &[vec![1], vec![]]);
                let _ = certificate.key.verifies(hash, &digest.bytes, &[vec![]]);
                let _ = certificate.key.name();
            }
        }
        Ok(())
    }
}
