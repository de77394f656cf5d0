//! Encodes and decodes hexadecimal digits.

use zeroize::Zeroizing;

/// Encodes each byte as two lower-case digits.
pub fn encode(bytes: &[u8]) -> Zeroizing<String> {
    Zeroizing::new(base16ct::lower::encode_string(bytes))
}

/// Decodes digits of either case. Returns `None` for anything that is not pairs of hexadecimal digits.
pub fn decode(digits: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    base16ct::mixed::decode_vec(digits).ok().map(Zeroizing::new)
}

/// Decodes the two digits of one byte.
pub fn byte(high: u8, low: u8) -> Option<u8> {
    decode(&[high, low]).map(|bytes| bytes[0])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_and_nothing_else_become_bytes() {
        let decoded = |digits: &str| decode(digits.as_bytes()).map(|bytes| bytes.to_vec());
        assert_eq!(decoded("00fF"), Some(vec![0, 255]));
        for wrong in ["00f", "00ff0", "00fg", "+0ff", "0 ff", "00é"] {
            assert_eq!(decoded(wrong), None, "{wrong}");
        }
        assert_eq!(byte(b'F', b'f'), Some(255));
        assert_eq!(encode(&[0, 255]).as_str(), "00ff");
    }
}
