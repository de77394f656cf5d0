//! Hexadecimal digits become bytes.

/// The byte of two digits.
pub fn byte(high: u8, low: u8) -> Option<u8> {
    let digit = |digit: u8| char::from(digit).to_digit(16);
    u8::try_from(digit(high)? << 4 | digit(low)?).ok()
}

/// Fills `bytes` with what twice as many digits say; `None` when that is not what `digits` holds.
pub fn decode(digits: &[u8], bytes: &mut [u8]) -> Option<()> {
    if digits.len() != 2 * bytes.len() {
        return None;
    }
    for (slot, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        *slot = byte(pair[0], pair[1])?;
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_and_nothing_else_become_bytes() {
        let decoded = |digits: &str| {
            let mut bytes = [0; 2];
            decode(digits.as_bytes(), &mut bytes).map(|()| bytes)
        };
        assert_eq!(decoded("00fF"), Some([0, 255]));
        for wrong in ["", "00f", "00ff0", "00fg", "+0ff", "0 ff", "00é"] {
            assert_eq!(decoded(wrong), None, "{wrong}");
        }
    }
}
