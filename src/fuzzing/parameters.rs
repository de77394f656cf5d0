//! The parameter file as gpg reads it (`read_parameter_file` in g10/keygen.c of GnuPG), to compare
//! it with what was meant.

use crate::gpg::Keygrip;
use crate::key_request::KeyRequest;

/// gpg reads lines into a buffer of this size.
const LINE_MAX: usize = 1024;

/// What gpg takes from the file: keywords with their values in order, and how often it would begin
/// to make a key. `Err` says what gpg would refuse.
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

/// The keywords and values that must be in the file for `request`, and that they are for one key.
pub fn meant(
    request: &KeyRequest,
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
