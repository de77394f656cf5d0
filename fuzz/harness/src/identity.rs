//! Identities: `name_email`, the user ID around it, and the JSON that requests a key.

use copr_keygen::http::gen_key;
use gpg::parameters::parameter_file;
use gpg::{KeyLength, KeyParameters, Keygrip, Lifetime, UserId};
use keystore::identity::{FIELD_MAX, NameEmail};
use serde_json::json;

use super::{accepted, parameters};

/// Asserts what file systems, gpg and obs-signd rely on in a `name_email`.
pub fn is_safe_name(name: &NameEmail) {
    let text = name.as_str();
    assert!(!text.is_empty() && text.len() <= FIELD_MAX);
    assert!(!text.contains(['/', '\0', '<', '>', ':', '\\', '"', '*', '%']), "{text:?}");
    assert!(!text.starts_with(['-', '.']) && !text.ends_with(".lock"), "{text:?}");
    assert!(!text.chars().any(|c| c.is_control() || c.is_whitespace()), "{text:?}");
    assert!(text.contains('#') && text.contains('@'));
    assert_eq!(accepted(NameEmail::parse(text)).as_ref(), Some(name));
}

fn is_safe_user_id(name_email: &NameEmail, user: &UserId) {
    is_safe_name(name_email);
    assert_eq!(user.name_email(), name_email.as_str());
    let comment = user.name_comment();
    for part in [Some(user.name_real()), comment].into_iter().flatten() {
        assert!(!part.is_empty() && part.len() <= FIELD_MAX && part == part.trim());
        super::is_one_line(part);
        assert!(!part.contains(['<', '>']));
    }
    assert!(comment.is_none_or(|comment| !comment.contains(['(', ')'])));
    let again = UserId::parse(user.name_real(), comment, user.name_email());
    assert_eq!(accepted(again).as_ref(), Some(user));
}

/// Parses three lines: `name_email`, `name_real` and `name_comment`. A line break inside a field is written
/// `\n`.
pub fn user_id(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let mut fields = text.splitn(3, '\n').map(|field| field.replace("\\n", "\n"));
    let (name_email, name_real, comment) = (fields.next(), fields.next(), fields.next());
    let parsed = accepted(NameEmail::parse(&name_email.unwrap_or_default()));
    parsed.iter().for_each(is_safe_name);
    let name_email = parsed.or_else(|| NameEmail::parse("a#b@c").ok());
    let (Some(name_email), Some(name_real)) = (name_email, name_real) else { return };
    if let Some(user) = accepted(UserId::parse(&name_real, comment.as_deref(), name_email.as_str()))
    {
        is_safe_user_id(&name_email, &user);
    }
}

/// Parses the body of `POST /gen_key`, and follows it up to the parameter file that gpg reads.
pub fn gen_key(data: &[u8]) {
    let defaults = (KeyLength::Rsa3072, Lifetime::FOREVER);
    let Some(request) = accepted(gen_key::parse(data, defaults.0, defaults.1)) else { return };
    let (name_email, request) = (request.name_email().clone(), request.parameters().clone());
    is_safe_user_id(&name_email, &request.user_id);
    let body = json!({
        "name_real": request.user_id.name_real(),
        "name_email": request.user_id.name_email(),
        "name_comment": request.user_id.name_comment(),
        "key_length": request.length.bits(),
        "expire": format!("{}", request.lifetime.seconds() / 86_400),
    });
    let again = gen_key::parse(body.to_string().as_bytes(), KeyLength::Rsa2048, Lifetime::FOREVER);
    let again = accepted(again);
    assert!(again.is_some_and(|again| {
        let KeyParameters { user_id, length, lifetime } = again.parameters().clone();
        (user_id, length, lifetime) == (request.user_id.clone(), request.length, request.lifetime)
    }));
    // Whether the expiry fits into gpg's 32-bit time depends on the time of creation, so `parse` does not
    // check it.
    accepted(request.lifetime.expiry(1_700_000_000));
    for keygrip in [None, Keygrip::parse(&"A0".repeat(20))] {
        let text = parameter_file(&request, keygrip.as_ref(), 1_700_000_000);
        let lines = parameters::as_gpg_reads(&text);
        assert_eq!(lines, Ok(parameters::meant(&request, keygrip.as_ref(), 1_700_000_000)));
    }
}
