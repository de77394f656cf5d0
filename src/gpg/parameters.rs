//! The parameter file that tells gpg what to generate ("Unattended key generation" in the GnuPG
//! manual). Its values come from types that hold neither line breaks nor gpg syntax.

use super::Keygrip;
use crate::key_request::{KeyLength, KeyRequest};

/// The text for `gpg --batch --gen-key`: an RSA key for certification and signatures only, created
/// at `created` (Unix time); with a keygrip, one around the secret key of this keygrip that is there.
pub fn parameter_file(request: &KeyRequest, keygrip: Option<&Keygrip>, created: u64) -> String {
    let user_id = &request.user_id;
    let mut lines = vec![
        // First, and with Key-Grip too: GnuPG 2.2 would make another kind of key.
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

/// The text for a key of which only the secret part will be kept.
pub fn secret_only(length: KeyLength) -> String {
    format!(
        "Key-Type: RSA\nKey-Length: {}\nKey-Usage: sign\nExpire-Date: 0\nName-Real: pool\n%commit\n",
        length.bits()
    )
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proptest::sample::select;

    use super::*;
    use crate::error::Result;
    use crate::fuzzing::parameters::{as_gpg_reads, meant};
    use crate::identity::{NameEmail, UserId};
    use crate::key_request::Lifetime;

    #[test]
    fn holds_exactly_the_lines_meant() -> Result<()> {
        let email = NameEmail::parse("@g#p@copr.example.org")?;
        let mut request = KeyRequest {
            user_id: UserId::parse("%commit Key-Type: DSA", None, email.clone())?,
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

    /// What means something to gpg, to us, or to whoever reads a file line by line.
    const PIECES: [&str; 28] = [
        "\n",
        "\r\n",
        "\r",
        "\0",
        "\u{b}",
        "\u{c}",
        "\u{85}",
        "\u{2028}",
        "\u{2029}",
        "\u{202e}",
        "\u{feff}",
        "\u{a0}",
        "\u{3000}",
        "\t",
        " ",
        "  ",
        "%commit",
        "\n%commit\n",
        "%no-protection",
        "%",
        "#",
        ":",
        "Key-Type: DSA",
        "Passphrase: x",
        "\\n",
        "\\x0a",
        "<a@b>",
        "(",
    ];

    /// Fields as a client could send them: pieces that mean something among any characters, most of
    /// them such as are accepted.
    fn field() -> impl Strategy<Value = String> {
        let piece = prop_oneof![
            4 => select(&PIECES[13..26]).prop_map(str::to_owned),
            1 => select(&PIECES[..]).prop_map(str::to_owned),
            6 => "[ -;=?-~]{1,8}",
            4 => "[\\PC&&[^<>()]]{1,8}",
            1 => any::<char>().prop_map(String::from),
            1 => Just("Ω".repeat(97)),
        ];
        proptest::collection::vec(piece, 0..8).prop_map(|pieces| pieces.concat())
    }

    fn email() -> impl Strategy<Value = String> {
        prop_oneof![9 => "@?[\\w.-]{1,20}#[\\w.-]{0,20}@[\\w.-]{0,20}", 1 => field()]
    }

    /// What may be in no user ID, said otherwise than in `identity.rs`.
    fn is_refused(text: &str, forbidden: &str) -> bool {
        let separates = |c: char| {
            ('\u{2028}'..='\u{202e}').contains(&c) || ('\u{2066}'..='\u{2069}').contains(&c)
        };
        text.len() > 200
            || text.contains(|c: char| c < ' ' || ('\u{7f}'..'\u{a0}').contains(&c) || separates(c))
            || text.contains(|c| forbidden.contains(c))
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..Default::default() })]

        #[test]
        fn whatever_the_fields_hold_the_lines_are_those_that_were_meant(
            name_email in email(),
            name_real in field(),
            comment in proptest::option::of(field()),
            days in 0_u32..=49_710,
            length in select(&KeyLength::ALL[..]),
            in_advance in any::<bool>(),
            created in 0_u64..=4_294_967_295,
        ) {
            let parsed = NameEmail::parse(&name_email);
            let Ok(name_email) = parsed.or_else(|_| NameEmail::parse("a#b@c")) else { unreachable!() };
            let parsed = UserId::parse(&name_real, comment.as_deref(), name_email);
            let refused = is_refused(&name_real, "<>")
                || name_real.trim().is_empty()
                || comment.as_ref().is_some_and(|comment| is_refused(comment, "<>()"));
            prop_assert_eq!(parsed.is_err(), refused);
            let (Ok(user_id), Ok(lifetime)) = (parsed, days.to_string().parse()) else { return Ok(()) };
            let request = KeyRequest { user_id, length, lifetime };
            let grip = in_advance.then(|| Keygrip::parse(&"0F".repeat(20))).flatten();
            let text = parameter_file(&request, grip.as_ref(), created);
            prop_assert_eq!(as_gpg_reads(&text), Ok(meant(&request, grip.as_ref(), created)));
            let comments = usize::from(request.user_id.name_comment().is_some());
            prop_assert_eq!(text.matches(char::is_control).count(), 8 + comments);
        }
    }

    #[test]
    fn reading_as_gpg_does_finds_what_was_not_meant() {
        for (text, keys) in [("a: b\n%commit\n", 1), ("# x\n\n a : b \n%commit\n%commit\n", 2)] {
            let read = Ok((vec![("a".to_owned(), "b".to_owned())], keys));
            assert_eq!(
                as_gpg_reads(text).map(|(mut v, k)| {
                    v[0].0 = v[0].0.trim().into();
                    (v, k)
                }),
                read
            );
        }
        for bad in [
            "a: b",
            "%no-protection\n",
            "a\n",
            "%commit\na: b\n",
            "a: b\0\n",
            &format!("a: {}\n", "x".repeat(1024)),
        ] {
            assert!(as_gpg_reads(bad).is_err(), "{bad:.20}");
        }
    }
}
