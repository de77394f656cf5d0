//! Reads the parameter file as gpg does (`read_parameter_file` in g10/keygen.c of GnuPG), to compare the
//! result with the request.

use gpg::{KeyParameters, Keygrip};

/// The size of the buffer into which gpg reads a line.
const LINE_MAX: usize = 1024;

/// Returns what gpg takes from the file: the keywords with their values in order, and how many keys it would
/// start to make. `Err` describes what gpg would refuse.
pub fn as_gpg_reads(text: &str) -> Result<(Vec<(String, String)>, usize), String> {
    let (mut values, mut keys) = (Vec::new(), 0);
    if !text.ends_with('\n') {
        return Err("the last line has no end".into());
    }
    for line in text.split_terminator('\n') {
        if line.len() + 2 > LINE_MAX || line.contains('\0') {
            return Err("a line is too long or holds NUL".into());
        }
        let line = line.trim_matches(is_space);
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if let Some(control) = line.strip_prefix('%') {
            match control {
                "commit" => keys += 1,
                _ => return Err(format!("the control statement {line:?}")),
            }
            continue;
        }
        let Some((keyword, value)) = line.split_once(':') else {
            return Err(format!("{line:?} is no parameter"));
        };
        if keys > 0 {
            return Err("a parameter behind the key it was meant for".into());
        }
        values.push((keyword.to_ascii_lowercase(), value.trim_matches(is_space).into()));
    }
    Ok((values, keys))
}

/// `isspace` of the C locale.
fn is_space(c: char) -> bool {
    matches!(c, ' ' | '\t'..='\r')
}

/// Returns the keywords and values that the file for `request` must hold, and the number of keys: one.
pub fn meant(
    request: &KeyParameters,
    keygrip: Option<&Keygrip>,
    created: u64,
) -> (Vec<(String, String)>, usize) {
    let user = &request.user_id;
    let expiry = match request.lifetime.seconds() {
        0 => "0".into(),
        seconds => format!("seconds={seconds}"),
    };
    let secret = match keygrip {
        Some(keygrip) => ("key-grip", keygrip.to_string()),
        None => ("key-length", request.length.bits().to_string()),
    };
    let mut values = vec![
        ("key-type", "RSA".into()),
        secret,
        ("key-usage", "sign".into()),
        ("creation-date", format!("seconds={created}")),
        ("expire-date", expiry),
        ("name-real", user.name_real().into()),
        ("name-email", user.name_email().to_string()),
    ];
    values.extend(user.name_comment().map(|comment| ("name-comment", comment.into())));
    (values.into_iter().map(|(keyword, value)| (keyword.into(), value)).collect(), 1)
}

#[cfg(test)]
mod tests {
    use gpg::parameters::parameter_file;
    use gpg::{KeyLength, UserId};
    use keystore::NameEmail;
    use proptest::prelude::*;
    use proptest::sample::select;

    use super::*;

    /// Strings that mean something to gpg, to this project, or to a program that reads a file line by line.
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

    /// Generates fields as a client could send them: strings with a meaning among arbitrary characters. Most
    /// of these fields are acceptable.
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

    /// Whether a user ID must not contain `text`. Formulated independently of `identity.rs`.
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
            let parsed = UserId::parse(&name_real, comment.as_deref(), name_email.as_str());
            let refused = is_refused(&name_real, "<>")
                || name_real.trim().is_empty()
                || comment.as_ref().is_some_and(|comment| is_refused(comment, "<>()"));
            prop_assert_eq!(parsed.is_err(), refused);
            let (Ok(user_id), Ok(lifetime)) = (parsed, days.to_string().parse()) else { return Ok(()) };
            let request = KeyParameters { user_id, length, lifetime };
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
