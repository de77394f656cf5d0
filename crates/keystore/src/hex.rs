//! Hexadecimal digits.

use zeroize::Zeroizing;

/// Two lower-case digits for each byte.
pub fn encode(bytes: &[u8]) -> Zeroizing<String> {
    Zeroizing::new(base16ct::lower::encode_string(bytes))
}

/// The bytes that these digits, of either case, stand for.
pub fn decode(digits: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    base16ct::mixed::decode_vec(digits).ok().map(Zeroizing::new)
}
