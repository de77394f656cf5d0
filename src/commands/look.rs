//! `copr-keygen list`, `show` and `pubkey`: show keys. They never change anything.

use std::fmt::Write as _;

use gpg::clock;
use gpg::text::printable;
use gpg::{Certificate, Signature};
use keystore::{Catalog, Evidence, Filter, Key, NameEmail};
use serde_json::{Value, json};

use super::{output, state};
use crate::cli::{List, Order, Pubkey, Show};
use crate::error::Result;
use crate::settings::Settings;

/// Lists the keys that match the filters, in the chosen order.
pub fn list(settings: &Settings, options: List) -> Result<()> {
    let now = clock::now()?;
    let names = Filter { pattern: options.pattern, ..Filter::default() };
    let filter = Filter {
        pattern: None,
        expires_before: options.expires_before.map(|moment| moment.after(now)),
        changed_since: options.changed_since.map(|moment| moment.before(now)),
    };
    let mut unreadable = 0;
    let (mut keys, mut evidence): (Vec<Key>, _) = (Vec::new(), Evidence::of(&settings.state_dir));
    for key in state::readable(catalog(settings)?.keys(names)?, &mut unreadable) {
        evidence.see(&key.name_email, &key.record);
        keys.extend(filter.takes(&key.record).then_some(key));
    }
    doubt_clock(evidence.against(now));
    keys.sort_by(|a, b| a.name_email.cmp(&b.name_email));
    match options.sort {
        Order::Name => {}
        Order::Expires => keys.sort_by_key(|key| key.record.expires.unwrap_or(u64::MAX)),
        Order::Created => keys.sort_by_key(|key| key.record.created),
        Order::Changed => keys.sort_by_key(|key| key.record.changed),
    }
    if options.names {
        output::print(&keys.iter().map(|key| format!("{}\n", key.name_email)).collect::<String>())?;
    } else if output::is_for_people(options.json) {
        let rows: Vec<_> = keys.iter().map(|key| row(key, now)).collect();
        let head = ["NAME_EMAIL", "EXPIRES", "ALGORITHM", "CREATED", "FINGERPRINT"];
        output::table(head, &rows, 2)?;
    } else {
        output::json_array(keys.iter())?;
    }
    state::all_done(unreadable == 0, || {
        format!(
            "{} could not be read, see above; the list lacks what is there",
            output::keys(unreadable)
        )
    })
}

/// Warns if the clock cannot be right. Recorded dates are shown all the same.
fn doubt_clock(evidence: Option<String>) {
    let doubt = evidence.or_else(|| Some(clock::believed().err()?.to_string()));
    if let Some(words) = doubt {
        log::warn!(
            "{words}; dates are shown as they are recorded, spans are counted from that clock"
        );
    }
}

fn row(key: &Key, now: u64) -> [String; 5] {
    let record = &key.record;
    [
        key.name_email.to_string(),
        expiry(record.expires, now),
        printable(&record.algorithm),
        clock::date(record.created),
        record.fingerprint.to_string(),
    ]
}

/// Returns in words when a key expires; `expires` and `now` are Unix times.
pub fn expiry(expires: Option<u64>, now: u64) -> String {
    match expires {
        None => "never".into(),
        Some(at) if at <= now => format!("{} (expired)", clock::date(at)),
        Some(at) => clock::date(at),
    }
}

/// Shows keys. Of several keys, one that cannot be shown does not stop the others.
pub fn show(settings: &Settings, options: &Show) -> Result<()> {
    let catalog = catalog(settings)?;
    let as_text = output::is_for_people(options.json);
    let show_one = |name_email: &NameEmail| {
        let key = catalog.find(name_email)?;
        let certificate = catalog.view(name_email)?;
        let (now, dated) = (clock::now()?, certificate.dated());
        let disagreement =
            || clock::disagreement(now, &format!("the key of {}", key.name_email), dated);
        doubt_clock(clock::is_behind(now, dated).then(disagreement));
        let home = catalog.homes().path(name_email);
        match as_text {
            true => Ok(Value::String(text(&key, &certificate, &home.to_string_lossy(), now))),
            false => object(&key, &certificate, &home.to_string_lossy()),
        }
    };
    let (shown, failed) = state::each(&options.names, show_one)?;
    if as_text {
        let texts: Vec<_> = shown.iter().filter_map(Value::as_str).collect();
        output::print(&texts.join("\n"))?;
    } else if let ([object], [_]) = (&shown[..], &options.names[..]) {
        output::json(object)?;
    } else {
        output::json(&shown)?;
    }
    state::all_named(&failed, &options.names, "could not be shown")
}

fn object(key: &Key, certificate: &Certificate, home: &str) -> Result<Value> {
    let mut object = output::value(key)?;
    let signatures = self_signatures(certificate);
    object["user_ids"] = json!(certificate.user_ids);
    object["revoked"] = json!(certificate.revoked);
    object["self_signatures"] =
        signatures.map(|s| json!({"created": s.created, "good": s.good})).collect();
    object["home"] = json!(home);
    Ok(object)
}

fn text(key: &Key, certificate: &Certificate, home: &str, now: u64) -> String {
    let mut text = format!("{}\n", key.name_email);
    let mut line = |name: &str, value: &str| {
        let _ = writeln!(text, "  {name:<16}{}", printable(value));
    };
    for user_id in &certificate.user_ids {
        line("user ID", user_id);
    }
    line("fingerprint", certificate.fingerprint.as_str());
    line("keygrip", key.record.keygrip.as_str());
    line("algorithm", &certificate.algorithm);
    line("created", &clock::timestamp(certificate.created));
    line("expires", &expiry(certificate.expires, now));
    if certificate.revoked {
        line("revoked", "yes");
    }
    line("changed", &clock::timestamp(key.record.changed));
    for signature in self_signatures(certificate) {
        let good = if signature.good { "" } else { " (not valid)" };
        line("self-signature", &format!("{}{good}", clock::timestamp(signature.created)));
    }
    line("home", home);
    text
}

fn self_signatures(certificate: &Certificate) -> impl Iterator<Item = &Signature> {
    certificate.signatures.iter().filter(|signature| certificate.is_self_signature(signature))
}

/// Prints the armored certificate of a key.
pub fn pubkey(settings: &Settings, options: &Pubkey) -> Result<()> {
    let catalog = catalog(settings)?;
    let key = catalog.find(&options.name_email)?;
    let armored = catalog.pubkey(&key)?;
    let object = json!({
        "name_email": key.name_email.as_str(),
        "fingerprint": key.record.fingerprint.as_str(),
        "pubkey": armored,
    });
    output::report(options.json, &object, &armored)
}

fn catalog(settings: &Settings) -> Result<Catalog> {
    Ok(Catalog::new(&settings.state_dir, settings.gnupg()?))
}
