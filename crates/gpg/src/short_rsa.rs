//! RSA keys that apt stops taking before they expire. Nothing here refuses one.

/// 2030-02-01. From then on apt 3 refuses signatures by RSA keys of less than 3072 bits, also older ones (`rsa2048`
/// in its default-sequoia.config). sqv, sq and rpm by themselves take them on.
pub const APT_ENDS: u64 = 1_896_134_400;

/// Whether a key of this algorithm, in gpg's words, is one of them.
pub fn is_short(algorithm: &str) -> bool {
    let bits = algorithm.strip_prefix("rsa").and_then(|bits| bits.parse::<u32>().ok());
    bits.is_some_and(|bits| bits < 3072)
}

/// Whether a key of this algorithm that expires at `expires` is refused before that.
pub fn ends_early(algorithm: &str, expires: Option<u64>) -> bool {
    is_short(algorithm) && expires.is_none_or(|at| at > APT_ENDS)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::date;

    #[test]
    fn short_keys_end_early_unless_they_expire_before() {
        assert_eq!(date(APT_ENDS), "2030-02-01");
        for short in ["rsa1024", "rsa2048", "rsa3071"] {
            assert!(ends_early(short, None) && ends_early(short, Some(APT_ENDS + 1)), "{short}");
            assert!(!ends_early(short, Some(APT_ENDS)), "{short}");
        }
        for other in ["rsa3072", "rsa4096", "ed25519", "dsa2048", "rsa", "", "rsa99999999999"] {
            assert!(!ends_early(other, None), "{other}");
        }
    }
}
