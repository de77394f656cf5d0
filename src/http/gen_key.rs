//! `POST /gen_key`: parses a JSON object into a [`KeyRequest`], and makes the key.

use std::time::Instant;

use gpg::{KeyLength, Lifetime};
use keystore::{KeyRequest, NameEmail, Outcome};
use serde_json::{Map, Number, Value};

use super::access_log::Subject;
use super::error::{Error, Result};
use super::response::Answer;
use super::service::RequestContext;

/// Makes sure that the key described in the body exists. Answers 201 if the key was made, 200 if it existed.
pub fn answer(context: &RequestContext, subject: &mut Subject) -> Result<Answer<'static>> {
    let (service, started) = (context.service, Instant::now());
    let request = parse(context.body, service.key_length, service.lifetime)?;
    let name_email = request.name_email();
    subject.name_email = Some(name_email.clone());
    context.caller.check(name_email)?;
    let (status, record) = match service.store.ensure_key(&request, context.deadline)? {
        Outcome::Made(record) => {
            service.counters.made(started.elapsed());
            (201, record)
        }
        Outcome::Existed(record) => (200, record),
    };
    subject.fingerprint = Some(record.fingerprint);
    Ok(Answer::text(status, ""))
}

/// Parses the body. Fields that are absent, or whose value counts as absent, take their defaults. Unknown
/// fields are ignored.
pub fn parse(body: &[u8], length: KeyLength, lifetime: Lifetime) -> Result<KeyRequest> {
    if body.is_empty() {
        return Err(Error::Malformed(
            "the body is empty; it must be a JSON object with name_real and name_email".into(),
        ));
    }
    let fields = match serde_json::from_slice(body) {
        Ok(Value::Object(fields)) => fields,
        Ok(_) => return Err(Error::Malformed("the body must be a JSON object".into())),
        Err(e) => return Err(Error::Malformed(format!("the body is not valid JSON: {e}"))),
    };
    let name_email = NameEmail::parse(required(&fields, "name_email")?)?;
    let name_real = required(&fields, "name_real")?;
    let name_comment = text(&fields, "name_comment")?;
    let length = number(&fields, "key_length", is_no_length)?.unwrap_or(length);
    let lifetime = number(&fields, "expire", says_nothing)?.unwrap_or(lifetime);
    Ok(KeyRequest::new(name_email, name_real, name_comment, length, lifetime)?)
}

fn required<'a>(fields: &'a Map<String, Value>, field: &'static str) -> Result<&'a str> {
    text(fields, field)?.ok_or_else(|| Error::field(field, "is missing; it must be a string"))
}

fn text<'a>(fields: &'a Map<String, Value>, field: &'static str) -> Result<Option<&'a str>> {
    match fields.get(field) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(other) => Err(wrong_type(field, "a string", other)),
    }
}

/// Whether the value of a number field counts as absent. The old service evaluated `key_length or 2048` and
/// `expire or 0`, so its clients may send null or an empty string. (It also took `false` and empty arrays for
/// absent; those are mistakes here.)
fn says_nothing(value: &Value) -> bool {
    value.is_null() || value.as_str() == Some("")
}

/// Whether the value of `key_length` counts as absent: as in [`says_nothing`], and also 0, which is no length.
fn is_no_length(value: &Value) -> bool {
    says_nothing(value) || value.as_f64() == Some(0.0)
}

/// Parses a field that is a whole number, or a string that `T` parses. Returns `None` if it is absent or if
/// `is_nothing` is true of it.
fn number<T: std::str::FromStr<Err = String>>(
    fields: &Map<String, Value>,
    field: &'static str,
    is_nothing: impl Fn(&Value) -> bool,
) -> Result<Option<T>> {
    let text = match fields.get(field) {
        None => return Ok(None),
        Some(value) if is_nothing(value) => return Ok(None),
        Some(Value::String(text)) => text.clone(),
        Some(Value::Number(number)) => match whole(number) {
            Some(digits) => digits,
            None => return Err(wrong_type(field, "a whole number or a string", &fields[field])),
        },
        Some(other) => return Err(wrong_type(field, "a whole number or a string", other)),
    };
    text.parse().map(Some).map_err(|reason| Error::field(field, reason))
}

/// Returns the digits of a number, or `None` if it is not whole. JSON has only one type of number: `2048.0` and
/// `2048` are the same.
fn whole(number: &Number) -> Option<String> {
    match number.as_f64() {
        Some(float) if number.is_f64() => {
            let is_exact = float.fract() == 0.0 && float.abs() < f64::from(u32::MAX);
            is_exact.then(|| format!("{:.0}", float + 0.0)) // -0 becomes 0
        }
        _ => Some(number.to_string()),
    }
}

fn wrong_type(field: &'static str, expected: &str, found: &Value) -> Error {
    let found = match found {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    };
    Error::field(field, format!("must be {expected}, not {found}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(body: &str) -> Result<KeyRequest> {
        parse(body.as_bytes(), KeyLength::Rsa2048, Lifetime::FOREVER)
    }

    fn with(extra: &str) -> Result<KeyRequest> {
        read(&format!(r#"{{"name_real": "a_b", "name_email": "a#b@c"{extra}}}"#))
    }

    #[test]
    fn absent_and_null_fields_take_the_defaults() -> Result<()> {
        for extra in ["", r#", "key_length": null, "expire": null, "name_comment": null, "x": [1]"#]
        {
            let request = with(extra)?;
            assert_eq!(request.parameters().length, KeyLength::Rsa2048);
            assert_eq!(request.parameters().lifetime, Lifetime::FOREVER);
            assert_eq!(request.parameters().user_id.name_comment(), None);
        }
        Ok(())
    }

    #[test]
    fn what_the_old_service_took_for_nothing_takes_the_default() -> Result<()> {
        let defaults = (KeyLength::Rsa3072, "5y".parse::<Lifetime>().unwrap_or(Lifetime::FOREVER));
        let asked = |field: &str, value: &str| {
            let body =
                format!(r#"{{"name_real": "a", "name_email": "a#b@c", "{field}": {value}}}"#);
            let request = parse(body.as_bytes(), defaults.0, defaults.1)?;
            Ok::<_, Error>((request.parameters().length, request.parameters().lifetime))
        };
        for value in ["null", "\"\""] {
            assert_eq!(asked("key_length", value)?, defaults, "{value}");
            assert_eq!(asked("expire", value)?, defaults, "{value}");
        }
        for zero in ["0", "0.0", "-0", "-0.0", "0e5"] {
            assert_eq!(asked("key_length", zero)?, defaults, "{zero}");
            assert_eq!(asked("expire", zero)?, (defaults.0, Lifetime::FOREVER), "{zero}");
        }
        for wrong in ["\"0\"", "true", "[0]", "\" \"", "1"] {
            assert!(asked("key_length", wrong).is_err(), "{wrong}");
        }
        for wrong in ["false", "[]", "{}"] {
            assert!(asked("key_length", wrong).is_err(), "{wrong}");
            assert!(asked("expire", wrong).is_err(), "{wrong}");
        }
        Ok(())
    }

    #[test]
    fn numbers_may_be_strings() -> Result<()> {
        let request = with(r#", "key_length": "4096", "expire": 10, "name_comment": "c""#)?;
        assert_eq!(request.parameters().length, KeyLength::Rsa4096);
        assert_eq!(request.parameters().lifetime.seconds(), 864_000);
        assert_eq!(request.parameters().user_id.name_comment(), Some("c"));
        let request = with(r#", "key_length": 2048.0, "expire": 1e1"#)?;
        assert_eq!(
            (request.parameters().length, request.parameters().lifetime.seconds()),
            (KeyLength::Rsa2048, 864_000)
        );
        assert_eq!(with(r#", "expire": -0.0"#)?.parameters().lifetime, Lifetime::FOREVER);
        assert_eq!(with(r#", "expire": "5y""#)?.parameters().lifetime.seconds(), 157_680_000);
        Ok(())
    }

    #[test]
    fn mistakes_name_the_field() {
        for (extra, expected) in [
            (r#", "key_length": 1024"#, "key_length: must be 2048, 3072 or 4096"),
            (r#", "key_length": 9999"#, "key_length: must be 2048"),
            (r#", "key_length": "abc""#, "key_length: must be 2048"),
            (
                r#", "key_length": 2048.5"#,
                "key_length: must be a whole number or a string, not a number",
            ),
            (r#", "key_length": [2048]"#, "not an array"),
            (r#", "expire": -1"#, "expire: must be a number of days"),
            (r#", "expire": "-1""#, "expire: must be a number of days"),
            (r#", "expire": 99999999999999999999"#, "expire: must be a whole number"),
            (r#", "expire": 1e999"#, "not valid JSON"),
            (r#", "expire": 1e300"#, "expire: must be a whole number"),
            (r#", "expire": 9999999"#, "expire: a key must expire before the year 2106"),
            (r#", "expire": true"#, "not a boolean"),
            (r#", "name_comment": {}"#, "name_comment: must be a string, not an object"),
            (r#", "name_comment": "a\nb""#, "name_comment: holds a control character"),
            (r#", "name_real": "a\u0000b""#, "name_real: holds a control character"),
            (r#", "name_real": 5"#, "name_real: must be a string, not a number"),
            (r#", "name_email": "../a#b@c""#, "name_email: must not begin"),
            (r#", "name_real": "\ud800""#, "not valid JSON"),
        ] {
            let message = with(extra).err().map(|e| e.to_string()).unwrap_or_default();
            assert!(message.contains(expected), "{extra} gave {message:?}");
        }
        for (body, expected) in [
            ("", "the body is empty"),
            ("{}", "name_email: is missing"),
            (r#"{"name_email": "a#b@c"}"#, "name_real: is missing"),
            (r#"{"name_real": "a"}"#, "name_email: is missing"),
            ("[]", "must be a JSON object"),
            ("null", "must be a JSON object"),
            ("{", "not valid JSON"),
            ("name_real=a", "not valid JSON"),
            (&"[".repeat(60_000), "not valid JSON"),
        ] {
            let message = read(body).err().map(|e| e.to_string()).unwrap_or_default();
            assert!(message.contains(expected), "{body:.20} gave {message:?}");
        }
        let latin1 = parse(b"{\"name_real\": \"\xfc\"}", KeyLength::Rsa2048, Lifetime::FOREVER);
        assert!(latin1.is_err_and(|e| e.to_string().contains("not valid JSON")));
    }
}
