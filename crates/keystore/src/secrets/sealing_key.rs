//! Sealed passphrases. They are encrypted under a key that is not on this disk, so that the state
//! directory or a backup alone signs nothing. The key is never written to a file, and no message tells
//! anything of its content.

use std::fmt;
use std::sync::Arc;

use base64ct::{Base64, Encoding};
use chacha20poly1305::aead::{Aead, Payload};
use chacha20poly1305::{KeyInit, XChaCha20Poly1305, XNonce};
use rand::TryRng;
use rand::rngs::SysRng;
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use crate::error::{Error, Result};
use gpg::hex;

/// The name of the credential that holds the sealing key.
pub const CREDENTIAL: &str = "passphrase-key";

/// The beginning of a sealed line: the format and its version number.
const PREFIX: &[u8] = b"sealed:1:";

/// The smallest and the largest size, in bytes, of a key that is given as random bytes.
const RAW_MIN: usize = 32;
const RAW_MAX: usize = 4096;

/// The size of a nonce in bytes. It is so long that random nonces never collide.
const NONCE: usize = 24;

/// The key that passphrases are sealed with.
#[derive(Clone)]
pub struct SealingKey(Arc<Zeroizing<[u8; 32]>>);

/// Shows nothing of the key.
impl fmt::Debug for SealingKey {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("SealingKey")
    }
}

impl SealingKey {
    /// Parses a key: either 64 hexadecimal digits, with or without a line end, or 32 to 4096 random bytes. Both
    /// forms of the same bits are the same key. Bytes that are all ASCII text are taken for the first form.
    pub fn parse(given: &[u8]) -> std::result::Result<Self, &'static str> {
        let wrong = "holds no key: it must hold 64 hexadecimal digits, or 32 random bytes or more";
        let line = given.strip_suffix(b"\n").unwrap_or(given);
        let is_text = given.iter().all(|b| b.is_ascii_graphic() || b.is_ascii_whitespace());
        let bits;
        let raw: &[u8] = match (is_text, line.len()) {
            (true, 64) => {
                bits = hex::decode(line).ok_or(wrong)?;
                &bits
            }
            (false, _) if (RAW_MIN..=RAW_MAX).contains(&given.len()) => given,
            _ => return Err(wrong),
        };
        // Many file systems leave such bytes of a file that was cut off or never written.
        if raw.iter().all(|byte| *byte == raw[0]) {
            return Err("holds no key: all its bytes are the same");
        }
        // The prefix makes a key for this use only, whatever else these bits are used for.
        let mut hash = Sha256::new_with_prefix(b"copr-keygen passphrase key 1\0");
        hash.update(raw);
        Ok(Self(Arc::new(Zeroizing::new(hash.finalize().into()))))
    }

    /// Seals `secret` for `purpose`. Returns one line, without a line end.
    pub(crate) fn seal(&self, purpose: &[u8], secret: &[u8]) -> Result<String> {
        let failed = |e| Error::io("sealing a passphrase", std::io::Error::other(e));
        let mut nonce = [0_u8; NONCE];
        SysRng.try_fill_bytes(&mut nonce).map_err(|e| failed(e.to_string()))?;
        let sealed = self
            .cipher()
            .encrypt(XNonce::from_slice(&nonce), Payload { msg: secret, aad: purpose })
            .map_err(|e| failed(e.to_string()))?;
        let text = Base64::encode_string(&[&nonce[..], &sealed].concat());
        Ok(format!("{}{text}", String::from_utf8_lossy(PREFIX)))
    }

    /// Opens a line that [`SealingKey::seal`] has made for the same purpose with the same key. Returns `None`
    /// for anything else.
    pub(crate) fn open(&self, purpose: &[u8], line: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
        let text = std::str::from_utf8(line.strip_prefix(PREFIX)?).ok()?;
        let bytes = Base64::decode_vec(text).ok()?;
        let (nonce, sealed) = bytes.split_at_checked(NONCE)?;
        let payload = Payload { msg: sealed, aad: purpose };
        self.cipher().decrypt(XNonce::from_slice(nonce), payload).ok().map(Zeroizing::new)
    }

    /// Returns the cipher. Its memory is zeroed when it is dropped.
    fn cipher(&self) -> XChaCha20Poly1305 {
        XChaCha20Poly1305::new(self.0.as_slice().into())
    }
}

/// Whether a line claims to be sealed, in this format or in a later one.
pub fn is_sealed(line: &[u8]) -> bool {
    line.starts_with(b"sealed:")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(byte: u8) -> SealingKey {
        let mut bits = [byte; 32];
        bits[0] = 1;
        let Ok(key) = SealingKey::parse(&bits) else { unreachable!("32 bytes") };
        key
    }

    #[test]
    fn what_is_sealed_opens_with_the_same_key_for_the_same_purpose_only() -> Result<()> {
        let line = key(7).seal(b"A", b"phrase")?;
        assert_ne!(line, key(7).seal(b"A", b"phrase")?, "a nonce was used twice");
        let open = |key: SealingKey, purpose: &[u8], line: &str| {
            key.open(purpose, line.as_bytes()).map(|opened| opened.to_vec())
        };
        assert_eq!(open(key(7), b"A", &line).as_deref(), Some(&b"phrase"[..]));
        assert_eq!(open(key(8), b"A", &line), None);
        assert_eq!(open(key(7), b"B", &line), None);
        for length in 0..line.len() {
            assert_eq!(open(key(7), b"A", &line[..length]), None, "{length}");
        }
        for at in 0..line.len() {
            let mut spoilt = line.clone().into_bytes();
            spoilt[at] = if spoilt[at] == b'A' { b'B' } else { b'A' };
            assert_eq!(key(7).open(b"A", &spoilt).map(|_| at), None);
        }
        assert_eq!(open(key(7), b"A", &format!("{line}\n")), None);
        Ok(())
    }

    #[test]
    fn keys_are_digits_or_bytes_and_the_same_bits_are_the_same_key() {
        let raw: Vec<u8> = (0..32).map(|byte| byte * 7).collect();
        let digits = hex::encode(&raw).to_string();
        let parse = |given: &[u8]| SealingKey::parse(given).map(|key| **key.0);
        let expected = parse(&raw);
        assert!(expected.is_ok());
        for same in [digits.clone(), format!("{digits}\n"), digits.to_uppercase()] {
            assert_eq!(parse(same.as_bytes()), expected, "{same}");
        }
        let longer: Vec<u8> = (0..=255).collect();
        assert!(parse(&longer).is_ok_and(|key| Ok(key) != expected));
        let long = [&raw[..]; 200].concat();
        for bad in [
            &b""[..],
            b"\n",
            &raw[..31],
            &digits.as_bytes()[..63],
            format!("{digits}\n\n").as_bytes(),
            format!(" {digits}").as_bytes(),
            format!("{digits}0").as_bytes(),
            "correct horse battery staple, and more".as_bytes(),
            &[0; 32],
            &[255; 64],
            "0".repeat(64).as_bytes(),
            &long,
        ] {
            let why = SealingKey::parse(bad).err().unwrap_or("it was taken");
            assert!(why.starts_with("holds no key"), "{bad:?}: {why}");
        }
    }

    #[test]
    fn nothing_of_a_key_is_shown() {
        assert_eq!(format!("{:?}", Some(key(9))), "Some(SealingKey)");
    }
}
