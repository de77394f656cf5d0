//! The parameter file of `gpg --gen-key` ("Unattended key generation" in the GnuPG manual). The types of its
//! values rule out line breaks and the syntax of gpg.

use crate::fingerprint::Keygrip;
use crate::key::{KeyLength, Lifetime};
use crate::user_id::UserId;

/// A description of the key that gpg is to generate.
#[derive(Clone, Debug)]
pub struct KeyParameters {
    /// Its user ID.
    pub user_id: UserId,
    /// The length of its RSA modulus.
    pub length: KeyLength,
    /// How long the key is valid, counted from its creation.
    pub lifetime: Lifetime,
}

/// Returns the parameters of an RSA key that certifies and signs only, created at `created` (Unix time). With a
/// keygrip, gpg uses the secret key of that keygrip, which must be in the home.
pub fn parameter_file(request: &KeyParameters, keygrip: Option<&Keygrip>, created: u64) -> String {
    let user_id = &request.user_id;
    let mut lines = vec![
        // This must be the first line, even with Key-Grip: otherwise GnuPG 2.2 makes another kind of key.
        "Key-Type: RSA".to_owned(),
        match keygrip {
            Some(keygrip) => format!("Key-Grip: {keygrip}"),
            None => format!("Key-Length: {}", request.length.bits()),
        },
        "Key-Usage: sign".to_owned(),
        format!("Creation-Date: seconds={created}"),
        match request.lifetime.seconds() {
            0 => "Expire-Date: 0".to_owned(),
            seconds => format!("Expire-Date: seconds={seconds}"),
        },
        format!("Name-Real: {}", user_id.name_real()),
        format!("Name-Email: {}", user_id.name_email()),
    ];
    lines.extend(user_id.name_comment().map(|comment| format!("Name-Comment: {comment}")));
    lines.push("%commit\n".to_owned());
    lines.join("\n")
}

/// Returns the parameters of a key of which only the secret part will be kept.
pub fn secret_only(length: KeyLength) -> String {
    format!(
        "Key-Type: RSA\nKey-Length: {}\nKey-Usage: sign\nExpire-Date: 0\nName-Real: pool\n%commit\n",
        length.bits()
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Result;

    #[test]
    fn holds_exactly_the_lines_meant() -> Result<()> {
        let email = "@g#p@copr.example.org";
        let mut request = KeyParameters {
            user_id: UserId::parse("%commit Key-Type: DSA", None, email)?,
            length: KeyLength::Rsa4096,
            lifetime: Lifetime::FOREVER,
        };
        assert_eq!(
            parameter_file(&request, None, 1_700_000_000),
            "Key-Type: RSA\nKey-Length: 4096\nKey-Usage: sign\nCreation-Date: seconds=1700000000\n\
             Expire-Date: 0\nName-Real: %commit Key-Type: DSA\nName-Email: @g#p@copr.example.org\n\
             %commit\n"
        );
        request.user_id = UserId::parse("a", Some("b"), email)?;
        assert!(parameter_file(&request, None, 1).ends_with("\nName-Comment: b\n%commit\n"));
        let Some(grip) = Keygrip::parse(&"A".repeat(40)) else { unreachable!("forty digits") };
        let bound = parameter_file(&request, Some(&grip), 1);
        assert!(bound.starts_with(&format!("Key-Type: RSA\nKey-Grip: {grip}\nKey-Usage: sign\n")));
        Ok(())
    }
}
