//! Makes secret key files as gpg-agent keeps them, protected by a passphrase (agent/protect.c and
//! agent/keyformat.txt of GnuPG).

use aes::Aes128;
use ed25519_dalek::SigningKey;
use ocb3::aead::consts::U12;
use ocb3::aead::{Aead, KeyInit, Payload};
use ocb3::{Nonce, Ocb3};
use sha1::{Digest, Sha1};

use crate::Result;
use crate::openpgp::hex;

/// The number of bytes that are hashed to derive a key from the passphrase; the same as
/// for gpg, see [`crate::bare::S2K`].
const S2K_COUNT: usize = 65536;

/// Returns the text of a file in `private-keys-v1.d/`. `created` has the form `20261123T011033`.
pub fn file(key: &SigningKey, passphrase: &str, created: &str) -> Result<String> {
    let (salt, nonce): ([u8; 8], [u8; 12]) = (rand::random(), rand::random());
    let public = [&[0x40], key.verifying_key().as_bytes().as_slice()].concat();
    let secret = [b"(((1:d32:", key.as_bytes().as_slice(), b")))"].concat();
    // The public rest of the key is authenticated in its canonical form, without white space.
    let protected_at = format!("(12:protected-at15:{created})");
    let rest = [
        b"(3:ecc(5:curve7:Ed25519)(5:flags5:eddsa)(1:q33:",
        public.as_slice(),
        b")",
        protected_at.as_bytes(),
        b")",
    ];
    let cipher = Ocb3::<Aes128, U12>::new(&stretch(passphrase, salt).into());
    let payload = Payload { msg: &secret, aad: &rest.concat() };
    let encrypted = cipher.encrypt(Nonce::from_slice(&nonce), payload);
    let encrypted = encrypted.map_err(|_| "a secret key could not be encrypted")?;
    Ok(format!(
        "Created: {created}\n\
         Key: (protected-private-key (ecc (curve Ed25519)(flags eddsa)(q\n  \
         #{}#)\n \
         (protected openpgp-s2k3-ocb-aes ((sha1 #{}#\n  \
         \"{S2K_COUNT}\")#{}#)#{}#)\n \
         (protected-at \"{created}\")))\n",
        hex(&public),
        hex(&salt),
        hex(&nonce),
        hex(&encrypted)
    ))
}

/// Derives a key of 16 bytes with the iterated and salted S2K of OpenPGP (RFC 4880, 3.7.1.3).
fn stretch(passphrase: &str, salt: [u8; 8]) -> [u8; 16] {
    let round = [&salt, passphrase.as_bytes()].concat();
    let mut all = round.repeat(S2K_COUNT.div_ceil(round.len()));
    all.truncate(S2K_COUNT);
    let hash: [u8; 20] = Sha1::digest(&all).into();
    let mut key = [0; 16];
    key.copy_from_slice(&hash[..16]);
    key
}
