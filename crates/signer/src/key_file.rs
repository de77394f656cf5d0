//! Parses the secret key files of gpg-agent (agent/keyformat.txt and agent/protect.c of GnuPG). It reads both
//! file formats, with the key in the clear or protected by a passphrase in OCB or CBC mode.

use openssl::hash::{Hasher, MessageDigest, hash};
use openssl::memcmp;
use openssl::symm::{Cipher, Crypter, Mode, decrypt_aead};
use zeroize::Zeroizing;

use crate::sexp::Sexp;

/// The maximum number of bytes that are hashed to stretch a passphrase. gpg-agent never chooses more: it aims
/// at 0.1 s.
const S2K_COUNT_MAX: usize = 1 << 30;
/// The size of the authentication tag of OCB in bytes.
const TAG: usize = 16;

/// The numbers of a secret key, by their names like `n` and `d`.
#[derive(Debug)]
pub struct KeyNumbers {
    /// libgcrypt's name of the algorithm: `rsa`, `ecc`, `dsa` or another one.
    pub algorithm: String,
    numbers: Vec<Sexp>,
}

impl KeyNumbers {
    /// Returns the value of a number, or of another parameter like `curve`.
    pub fn get(&self, name: &str) -> Option<&[u8]> {
        let is_named = |number: &&Sexp| number.name() == Some(name.as_bytes());
        match self.numbers.iter().find(is_named)?.list()? {
            [_, value] => value.atom(),
            _ => None,
        }
    }
}

/// Why a file was not opened.
#[derive(Debug, PartialEq, Eq)]
pub enum Unopened {
    /// The file may hold a good key, but only gpg-agent can open it; why.
    OnlyByAgent(&'static str),
    /// The passphrase is wrong, or the file was changed.
    WrongPassphrase,
    /// The file is not a secret key file; why.
    Malformed(&'static str),
}

/// Opens the file of a secret key. A key in the clear needs no passphrase.
pub fn open(file: &[u8], passphrase: &[u8]) -> Result<KeyNumbers, Unopened> {
    let malformed = Unopened::Malformed("it holds no S-expression");
    let key = expression(file).and_then(|text| Sexp::parse(&text)).ok_or(malformed)?;
    let parameters = match key.list() {
        Some([_, parameters, ..]) if parameters.name().is_some() => parameters,
        _ => return Err(Unopened::Malformed("its S-expression is not that of a key")),
    };
    match key.name() {
        Some(b"private-key") => numbers_of(parameters, &[]),
        Some(b"protected-private-key") => {
            let secret = unprotect(parameters, passphrase)?;
            numbers_of(parameters, &secret)
        }
        Some(b"shadowed-private-key") => Err(Unopened::OnlyByAgent("the key is on a card")),
        _ => Err(Unopened::Malformed("its S-expression is not that of a secret key")),
    }
}

/// Returns the S-expression in a file of either format.
///
/// The extended format has header lines like those of mail. The expression follows `Key:` and continues on
/// lines that begin with white space.
fn expression(file: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    if file.first() == Some(&b'(') {
        return Some(Zeroizing::new(file.to_vec()));
    }
    let mut lines = file.split(|byte| *byte == b'\n');
    let first = lines.find_map(|line| {
        let (name, value) = line.split_at_checked(4)?;
        name.eq_ignore_ascii_case(b"Key:").then_some(value)
    })?;
    let further = lines.take_while(|line| line.first().is_none_or(u8::is_ascii_whitespace));
    // Each line loses one space at its beginning and all spaces at its end. An empty line stands for a line
    // feed (continuation_length in common/name-value.c).
    let mut text = Zeroizing::new(Vec::with_capacity(file.len()));
    let mut was_empty = false;
    for line in std::iter::once(first).chain(further) {
        let line = match line {
            line if was_empty => line.trim_ascii_start(),
            [first, rest @ ..] if first.is_ascii_whitespace() => rest,
            line => line,
        };
        let line = line.trim_ascii_end();
        was_empty = line.is_empty();
        text.extend_from_slice(if was_empty { b"\n" } else { line });
    }
    Some(text)
}

/// Returns the algorithm and all numbers of a key. `parameters` is the list `(rsa (n …)(e …))`, and `secret`
/// holds the numbers that were protected.
fn numbers_of(parameters: &Sexp, secret: &[Sexp]) -> Result<KeyNumbers, Unopened> {
    let name = parameters.name().and_then(|name| std::str::from_utf8(name).ok());
    let algorithm = name.ok_or(Unopened::Malformed("its algorithm has no name"))?.to_owned();
    let public = parameters.list().unwrap_or_default();
    let numbers = public.iter().chain(secret).filter(|number| number.list().is_some());
    Ok(KeyNumbers { algorithm, numbers: numbers.cloned().collect() })
}

/// Decrypts the secret numbers in `(protected MODE ((sha1 SALT COUNT) NONCE) ENCRYPTED)` among the parameters.
fn unprotect(parameters: &Sexp, passphrase: &[u8]) -> Result<Vec<Sexp>, Unopened> {
    let malformed = Unopened::Malformed("its protection is not one that gpg-agent writes");
    let protected = parameters.find("protected").and_then(Sexp::list);
    let (mode, stretching, encrypted) = match protected {
        Some([_, mode, stretching, encrypted]) => {
            (mode.atom(), stretching.list(), encrypted.atom())
        }
        Some([_, mode, ..]) if mode.atom() == Some(b"openpgp-native") => {
            return Err(Unopened::OnlyByAgent("the key is as it was imported and never used"));
        }
        _ => return Err(malformed),
    };
    let (Some(mode), Some([s2k, nonce]), Some(encrypted)) = (mode, stretching, encrypted) else {
        return Err(malformed);
    };
    let s2k: Option<Vec<_>> = s2k.list().map(|s2k| s2k.iter().filter_map(Sexp::atom).collect());
    let (Some([b"sha1", salt, count]), Some(nonce)) = (s2k.as_deref(), nonce.atom()) else {
        return Err(malformed);
    };
    let count = std::str::from_utf8(count).ok().and_then(|count| count.parse().ok());
    let Some(count) = count.filter(|count| *count <= S2K_COUNT_MAX) else { return Err(malformed) };
    let key = stretch(passphrase, salt, count)?;
    match mode {
        b"openpgp-s2k3-ocb-aes" => {
            let text = open_ocb(parameters, &key, nonce, encrypted)?;
            Ok(secret_numbers(&text).ok_or(malformed)?.0)
        }
        b"openpgp-s2k3-sha1-aes-cbc" => {
            let text = open_cbc(&key, nonce, encrypted)?;
            let (numbers, digest) = secret_numbers(&text).ok_or(Unopened::WrongPassphrase)?;
            let digest = digest.as_ref().and_then(Sexp::atom).unwrap_or_default();
            check_digest(parameters, &numbers, digest)?;
            Ok(numbers)
        }
        _ => Err(Unopened::OnlyByAgent("the key is protected in a way that is not known here")),
    }
}

/// Derives a key of 16 bytes from a passphrase, with OpenPGP's iterated and salted S2K and SHA-1 (RFC 9580,
/// 3.7.1.3).
fn stretch(passphrase: &[u8], salt: &[u8], count: usize) -> Result<Zeroizing<[u8; 16]>, Unopened> {
    /// The approximate number of bytes that are hashed at once.
    const PIECE: usize = 4096;
    let round = Zeroizing::new([salt, passphrase].concat());
    let count = count.max(round.len());
    let rounds_in_piece = PIECE.div_ceil(round.len().max(1));
    let piece = Zeroizing::new(round.repeat(rounds_in_piece));
    let hashed = || {
        let mut hasher = Hasher::new(MessageDigest::sha1())?;
        for _ in 0..count / piece.len().max(1) {
            hasher.update(&piece)?;
        }
        hasher.update(&piece[..count % piece.len().max(1)])?;
        hasher.finish()
    };
    let hashed = hashed().map_err(|_| Unopened::OnlyByAgent("OpenSSL has no SHA-1 here"))?;
    let mut key = Zeroizing::new([0; 16]);
    key.copy_from_slice(&hashed[..16]);
    Ok(key)
}

/// Decrypts `encrypted` with AES-128 in OCB mode and authenticates it. The associated data is the list of all
/// parameters that are not protected.
fn open_ocb(
    parameters: &Sexp,
    key: &[u8; 16],
    nonce: &[u8],
    encrypted: &[u8],
) -> Result<Zeroizing<Vec<u8>>, Unopened> {
    let length = encrypted.len().checked_sub(TAG).filter(|_| nonce.len() == 12);
    let length = length.ok_or(Unopened::Malformed("its protected part is too short"))?;
    let is_open = |parameter: &&Sexp| parameter.name() != Some(b"protected");
    let open = parameters.list().unwrap_or_default().iter().filter(is_open).cloned().collect();
    let mut aad = Vec::new();
    Sexp::List(open).write_canonical(&mut aad);
    // If OpenSSL lacks the cipher, its error queue says so. If the tag is wrong, the error queue is empty.
    let (text, tag) = encrypted.split_at(length);
    match decrypt_aead(Cipher::aes_128_ocb(), key, Some(nonce), &aad, text, tag) {
        Ok(text) => Ok(Zeroizing::new(text)),
        Err(e) if e.errors().is_empty() => Err(Unopened::WrongPassphrase),
        Err(_) => Err(Unopened::OnlyByAgent("OpenSSL has no AES in OCB mode here")),
    }
}

/// Decrypts `encrypted` with AES-128 in CBC mode.
fn open_cbc(
    key: &[u8; 16],
    nonce: &[u8],
    encrypted: &[u8],
) -> Result<Zeroizing<Vec<u8>>, Unopened> {
    if nonce.len() != 16 || encrypted.is_empty() || encrypted.len() % 16 != 0 {
        return Err(Unopened::Malformed("its protected part has a length that cannot be"));
    }
    let decrypted = || {
        let mut crypter = Crypter::new(Cipher::aes_128_cbc(), Mode::Decrypt, key, Some(nonce))?;
        crypter.pad(false);
        let mut text = Zeroizing::new(vec![0; encrypted.len() + 16]);
        let mut length = crypter.update(encrypted, &mut text)?;
        length += crypter.finalize(&mut text[length..])?;
        text.truncate(length);
        Ok::<_, openssl::error::ErrorStack>(text)
    };
    decrypted().map_err(|_| Unopened::OnlyByAgent("OpenSSL has no AES in CBC mode here"))
}

/// Parses a decrypted text `((NUMBERS)(hash sha1 DIGEST))` or `((NUMBERS))`, which padding may follow. Returns
/// the numbers and the digest.
fn secret_numbers(text: &[u8]) -> Option<(Vec<Sexp>, Option<Sexp>)> {
    let (found, _) = Sexp::parse_beginning(text)?;
    let numbers = found.list()?.first()?.list()?.to_vec();
    let digest = match found.find("hash").and_then(Sexp::list) {
        Some([_, algorithm, digest]) if algorithm.atom() == Some(b"sha1") => Some(digest.clone()),
        _ => None,
    };
    Some((numbers, digest))
}

/// Fails unless the digest of the whole key is `expected`. For the digest, the secret numbers stand in the
/// place of the list `protected`.
fn check_digest(parameters: &Sexp, numbers: &[Sexp], expected: &[u8]) -> Result<(), Unopened> {
    let elements = parameters.list().unwrap_or_default().iter();
    let whole = elements.flat_map(|element| match element.name() {
        Some(b"protected") => numbers.to_vec(),
        _ => vec![element.clone()],
    });
    // Allocated with room for the whole key: a vector that grows leaves copies of the secret behind.
    let mut text = Zeroizing::new(Vec::with_capacity(64 * 1024));
    Sexp::List(whole.collect()).write_canonical(&mut text);
    let digest = hash(MessageDigest::sha1(), &text)
        .map_err(|_| Unopened::OnlyByAgent("OpenSSL has no SHA-1 here"))?;
    let is_equal = digest.len() == expected.len() && memcmp::eq(&digest, expected);
    if is_equal { Ok(()) } else { Err(Unopened::WrongPassphrase) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::public_key::PublicKey;
    use crate::secret_key::SecretKey;

    const CLEAR: &str = "Created: 20261126T093226\nKey: (private-key (rsa (n #00E8#)\n  (e #010001#)\n (d\n  #0\n  7#)(p \
                         #05#)(q 1:x)(u #01#)))\n";

    fn protected(mode: &str, s2k: &str, nonce: usize, encrypted: usize) -> Vec<u8> {
        let (nonce, encrypted) = ("a".repeat(nonce), "b".repeat(encrypted));
        format!(
            "(21:protected-private-key(3:rsa(1:n1:x)(1:e1:y)(9:protected{}:{mode}({s2k}{}:{nonce}){}:{encrypted})))",
            mode.len(),
            nonce.len(),
            encrypted.len()
        )
        .into_bytes()
    }

    #[test]
    fn lines_of_the_extended_form_are_joined() -> Result<(), Unopened> {
        let numbers = open(CLEAR.as_bytes(), b"")?;
        assert_eq!(numbers.algorithm, "rsa");
        for (name, expected) in
            [("n", &[0, 0xe8][..]), ("e", &[1, 0, 1]), ("d", &[7]), ("p", &[5]), ("q", b"x")]
        {
            assert_eq!(numbers.get(name), Some(expected), "{name}");
        }
        assert_eq!(numbers.get("x"), None);
        Ok(())
    }

    #[test]
    fn what_is_no_key_is_told_from_what_only_the_agent_opens() {
        let s2k = "(4:sha18:saltsalt5:65536)";
        let (ocb, cbc) = ("openpgp-s2k3-ocb-aes", "openpgp-s2k3-sha1-aes-cbc");
        let is = |file: &[u8]| open(file, b"phrase").err();
        for (file, expected) in [
            (protected(ocb, s2k, 12, 64), Some(Unopened::WrongPassphrase)),
            (protected(cbc, s2k, 16, 64), Some(Unopened::WrongPassphrase)),
        ] {
            assert_eq!(is(&file), expected);
        }
        for file in [
            protected("openpgp-s2k4-new", s2k, 12, 64),
            b"(21:protected-private-key(3:rsa(1:n1:x)(9:protected14:openpgp-native(1:x))))"
                .to_vec(),
            b"(20:shadowed-private-key(3:rsa(1:n1:x)))".to_vec(),
        ] {
            assert!(matches!(is(&file), Some(Unopened::OnlyByAgent(_))), "{:?}", is(&file));
        }
        for file in [
            protected(ocb, s2k, 11, 64),
            protected(ocb, s2k, 12, 15),
            protected(cbc, s2k, 12, 64),
            protected(cbc, s2k, 16, 0),
            protected(cbc, s2k, 16, 65),
            protected(ocb, "(4:sha18:saltsalt10:1073741825)", 12, 64),
            protected(ocb, "(4:sha18:saltsalt2:-1)", 12, 64),
            protected(ocb, "(4:sha18:saltsalt0:)", 12, 64),
            protected(ocb, "(6:sha2568:saltsalt5:65536)", 12, 64),
            protected(ocb, "(4:sha15:65536)", 12, 64),
            protected(ocb, "1:x", 12, 64),
            b"(11:public-key(3:rsa(1:n1:x)))".to_vec(),
            b"(11:private-key)".to_vec(),
            b"(11:private-key3:rsa)".to_vec(),
            b"(11:private-key(2:\xff\xfe))".to_vec(),
            b"Key: \n".to_vec(),
            b"Kez: (1:a)\n".to_vec(),
            Vec::new(),
        ] {
            assert!(matches!(is(&file), Some(Unopened::Malformed(_))), "{:?}", is(&file));
        }
    }

    #[test]
    fn what_is_cut_or_changed_is_refused_or_read_and_nothing_panics() {
        let keys = [
            PublicKey::Rsa { number: 1, n: vec![0xe8], e: vec![1, 0, 1] },
            PublicKey::Ed25519([1; 32]),
        ];
        let s2k = "(4:sha18:saltsalt4:1024)";
        for file in [CLEAR.as_bytes().to_vec(), protected("openpgp-s2k3-sha1-aes-cbc", s2k, 16, 32)]
        {
            for length in 0..file.len() - 3 {
                assert!(open(&file[..length], b"x").is_err(), "{length}");
            }
            for at in 0..file.len() {
                for value in [0, b' ', b'(', b')', b'#', b'\n', b'0', b'9', b':', 0xff] {
                    let mut changed = file.clone();
                    changed[at] = value;
                    let Ok(numbers) = open(&changed, b"x") else { continue };
                    for key in &keys {
                        // Most of these files do not hold a key. If one does, signing with it must not panic.
                        let made = SecretKey::new(&numbers, key);
                        let _ = made.map(|key| key.sign(crate::algorithm::Hash::Sha256, &[7; 32]));
                    }
                }
            }
        }
    }
}
