//! The two names of a key: its OpenPGP fingerprint and gpg-agent's keygrip. Both are SHA-1 digests in
//! hexadecimal.

use std::ffi::OsStr;
use std::fmt;

use serde::Serialize;

/// Defines a type that holds 40 upper-case hexadecimal digits.
macro_rules! sha1_digits {
    ($(#[$attribute:meta])* $name:ident) => {
        $(#[$attribute])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
        pub struct $name(String);

        impl $name {
            /// Parses 40 hexadecimal digits in upper case, as GnuPG writes them. Returns `None` for anything
            /// else.
            pub fn parse(text: &str) -> Option<Self> {
                (text.len() == 40 && is_upper_hex(text)).then(|| Self(text.into()))
            }

            /// Returns the 40 digits.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str(&self.0)
            }
        }
    };
}

sha1_digits! {
    /// The fingerprint of an OpenPGP version 4 key (RFC 9580, 5.5.4.2).
    Fingerprint
}

sha1_digits! {
    /// A keygrip, by which gpg-agent names a secret key.
    Keygrip
}

impl Keygrip {
    /// Returns the keygrip in the name of a file of `private-keys-v1.d/`.
    pub fn from_file_name(name: &OsStr) -> Option<Self> {
        Self::parse(name.to_str()?.strip_suffix(".key")?)
    }

    /// Returns the name of the file that holds the secret key.
    pub fn file_name(&self) -> String {
        format!("{}.key", self.0)
    }
}

/// Whether `text` is a fingerprint, or its last 16 digits. Eight digits are too few: anyone can make a key
/// whose fingerprint ends in eight digits of their choice.
pub fn is_key_id(text: &str) -> bool {
    matches!(text.len(), 16 | 40) && is_upper_hex(text)
}

fn is_upper_hex(text: &str) -> bool {
    text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'A'..=b'F'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keygrips_and_fingerprints_are_forty_digits() {
        let good = "0123456789ABCDEF0123456789ABCDEF01234567";
        assert_eq!(Fingerprint::parse(good).map(|f| f.to_string()).as_deref(), Some(good));
        assert!(Keygrip::from_file_name(format!("{good}.key").as_ref()).is_some());
        for bad in ["", "0123", &good.to_lowercase(), &format!("{good}0"), &good.replace('0', "/")]
        {
            assert!(Fingerprint::parse(bad).is_none() && Keygrip::parse(bad).is_none(), "{bad}");
        }
        assert!(is_key_id(good) && is_key_id(&good[24..]));
        for bad in ["", &good[32..], &good[1..], &format!("{good}0"), &good.to_lowercase()] {
            assert!(!is_key_id(bad), "{bad}");
        }
        for bad in [good, "a.key", ".key", &format!("{good}.key.tmp")] {
            assert!(Keygrip::from_file_name(bad.as_ref()).is_none(), "{bad}");
        }
    }
}
