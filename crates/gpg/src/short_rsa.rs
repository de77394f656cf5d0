//! RSA keys that apt will refuse before they expire. Nothing here refuses such a key.

/// 2030-02-01. From this date on, apt 3 refuses signatures by RSA keys of fewer than 3072 bits, older
/// signatures included (`rsa2048` in its default-sequoia.config). sqv, sq and rpm by themselves continue to
/// accept them.
pub const APT_ENDS: u64 = 1_896_134_400;

/// Whether `algorithm`, as gpg names it, is RSA with fewer than 3072 bits.
pub fn is_short(algorithm: &str) -> bool {
    let bits = algorithm.strip_prefix("rsa").and_then(|bits| bits.parse::<u32>().ok());
    bits.is_some_and(|bits| bits < 3072)
}

/// Whether apt refuses a key of this algorithm before the key expires at `expires` (Unix time, `None` for
/// never).
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
