//! `copr-keygen make`: does for an operator what `POST /gen_key` does for a client.

use std::time::{Duration, Instant};

use gpg::clock;
use keystore::{Key, KeyRequest, Outcome, interrupt};
use serde_json::json;

use super::{look, output, state};
use crate::cli::Make;
use crate::error::{Error, Result};
use crate::settings::Settings;

/// The time limit for making a key, ample for a host that is busy with other keys.
const MAKE_TIME: Duration = Duration::from_secs(120);

/// Makes the key of an identity, or reports the key that exists.
pub fn run(settings: &Settings, options: &Make) -> Result<()> {
    let usage = |error| match error {
        Error::Gpg(gpg::Error::Field { .. }) => Error::Usage(format!("{error}; nothing was done")),
        error => error,
    };
    let (name_email, comment) = (options.name_email.clone(), options.comment.as_deref());
    let length = options.length.map_or_else(|| settings.key_length.get().copied(), Ok)?;
    let lifetime = options.expire.map_or_else(|| settings.expire.get().copied(), Ok)?;
    let request = KeyRequest::new(name_email, &options.real, comment, length, lifetime);
    let request = request.map_err(usage)?;
    settings.queue_timeout.get()?;
    settings.pool_max_age.get()?;
    let store = state::open_with_gpg(settings)?;
    let _work = interrupt::work();
    store.prepare_phrases()?;
    let outcome = store.ensure_key(&request, Instant::now() + MAKE_TIME).map_err(usage)?;
    let (is_new, record) = match outcome {
        Outcome::Made(record) => (true, record),
        Outcome::Existed(record) => (false, record),
    };
    let key = Key { name_email: options.name_email.clone(), record };
    let mut object = output::value(&key)?;
    object["made"] = json!(is_new);
    let text = format!(
        "{}: the key {} {}, {}, expires: {}\n",
        key.name_email,
        key.record.fingerprint,
        if is_new { "was made" } else { "exists, nothing was changed" },
        key.record.algorithm,
        look::expiry(key.record.expires, clock::now()?)
    );
    output::report(options.json, &object, &text)
}
