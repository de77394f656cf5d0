//! `copr-keygen list`, `show` and `pubkey`: looking at keys. Nothing is ever changed.

use gpg::clock;
use keystore::{Catalog, Evidence, Filter, Key};
use serde_json::json;

use super::output;
use crate::cli::{List, Pubkey, Show};
use crate::error::{Error, Result};
use crate::settings::Settings;

/// Lists keys, ordered by name.
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
    for key in catalog(settings)?.keys(names)? {
        match key {
            Ok(key) => {
                evidence.see(&key.name_email, &key.record);
                keys.extend(filter.takes(&key.record).then_some(key));
            }
            Err(e) => {
                log::error!("{e}");
                unreadable += 1;
            }
        }
    }
    doubt_clock(evidence.against(now));
    keys.sort_by(|a, b| a.name_email.cmp(&b.name_email));
    if output::is_for_people(options.json) {
        let rows: Vec<_> = keys.iter().map(|key| row(key, now)).collect();
        output::table(["NAME_EMAIL", "ALGORITHM", "CREATED", "EXPIRES", "FINGERPRINT"], &rows)?;
    } else {
        output::json_array(keys.iter())?;
    }
    match unreadable {
        0 => Ok(()),
        count => Err(Error::Partly(format!(
            "{count} keys could not be read and are not in the list, see above"
        ))),
    }
}

/// Names a clock that cannot be right. What is recorded is shown all the same.
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
        record.algorithm.clone(),
        clock::date(record.created),
        expiry(record.expires, now),
        record.fingerprint.to_string(),
    ]
}

/// When a key expires, in words.
fn expiry(expires: Option<u64>, now: u64) -> String {
    match expires {
        None => "never".into(),
        Some(at) if at <= now => format!("{} (expired)", clock::date(at)),
        Some(at) => clock::date(at),
    }
}

/// Shows one key.
pub fn show(settings: &Settings, options: &Show) -> Result<()> {
    let catalog = catalog(settings)?;
    let key = catalog.find(&options.name_email)?;
    let certificate = catalog.view(&options.name_email)?;
    let (now, dated) = (clock::now()?, certificate.dated());
    let disagreement =
        || clock::disagreement(now, &format!("the key of {}", key.name_email), dated);
    doubt_clock(clock::is_behind(now, dated).then(disagreement));
    let home = catalog.homes().path(&options.name_email);
    let self_signatures: Vec<_> = certificate
        .signatures
        .iter()
        .filter(|signature| certificate.is_self_signature(signature))
        .collect();
    if !output::is_for_people(options.json) {
        let mut object = serde_json::to_value(&key)
            .map_err(|e| Error::io("writing JSON", std::io::Error::other(e)))?;
        object["user_ids"] = json!(certificate.user_ids);
        object["revoked"] = json!(certificate.revoked);
        object["self_signatures"] =
            self_signatures.iter().map(|s| json!({"created": s.created, "good": s.good})).collect();
        object["home"] = json!(home.to_string_lossy());
        return output::json(&object);
    }
    let mut text = format!("{}\n", key.name_email);
    let mut line = |name: &str, value: &str| text.push_str(&format!("  {name:<16}{value}\n"));
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
    for signature in self_signatures {
        let good = if signature.good { "" } else { " (not valid)" };
        line("self-signature", &format!("{}{good}", clock::timestamp(signature.created)));
    }
    line("home", &home.to_string_lossy());
    output::print(&text)
}

/// Prints the armored certificate of a key.
pub fn pubkey(settings: &Settings, options: &Pubkey) -> Result<()> {
    let catalog = catalog(settings)?;
    let key = catalog.find(&options.name_email)?;
    let armored = catalog.pubkey(&key)?;
    if options.json {
        return output::json(&json!({
            "name_email": key.name_email.as_str(),
            "fingerprint": key.record.fingerprint.as_str(),
            "pubkey": armored,
        }));
    }
    output::print(&armored)
}

fn catalog(settings: &Settings) -> Result<Catalog> {
    Ok(Catalog::new(&settings.state_dir, settings.gnupg()?))
}
