//! Our own files, which somebody else may have written: `key.json` and the configuration.

use std::path::Path;

use copr_keygen::settings::Settings;
use keystore::KeyRecord;

use super::accepted;

/// Parses `key.json`, serializes the record and parses that again.
pub fn record(data: &[u8]) {
    let Some(record) = KeyRecord::parse(data) else { return };
    assert!(record.changed >= record.created);
    assert_eq!(record.fingerprint.as_str().len(), 40);
    assert!(
        !record.keygrip.file_name().contains('/') && !record.keygrip.file_name().contains("..")
    );
    let text = serde_json::to_vec(&record).unwrap_or_default();
    assert_eq!(KeyRecord::parse(&text).as_ref(), Some(&record));
}

/// Parses a configuration file, writes all settings out with their values and parses that again.
pub fn config(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let path = Path::new("/etc/copr-keygen/config.toml");
    let Some(settings) = accepted(Settings::of_file(path, text)) else { return };
    assert!(
        settings.state_dir.is_absolute() && settings.gpg.get().is_ok_and(|gpg| gpg.is_absolute())
    );
    assert!(settings.listen.get().is_ok_and(|listen| !listen.is_empty()));
    assert!(settings.jobs.get().is_ok_and(|jobs| (1..=256).contains(jobs)));
    assert!(settings.signd.listen.get().is_ok_and(|listen| !listen.is_empty()));
    assert!(settings.signd.jobs.get().is_ok_and(|jobs| (1..=256).contains(jobs)));
    for time in [&settings.gpg_timeout, &settings.pool_max_age] {
        assert!(time.get().is_ok_and(|time| !time.is_zero()));
    }

    let mut written = toml::Table::new();
    for (name, text, _) in &settings.origins {
        let (table, key) = name.split_once('.').unwrap_or(("", name));
        let entry = written.entry(table).or_insert_with(|| toml::Table::new().into());
        entry.as_table_mut().map(|table| table.insert(key.into(), text.clone().into()));
    }
    if let Some(toml::Value::Table(top)) = written.remove("") {
        written.extend(top);
    }
    let again = accepted(Settings::of_file(path, &written.to_string()));
    let shown = |mut settings: Settings| {
        settings.origins.clear();
        format!("{settings:?}")
    };
    assert_eq!(again.map(shown), Some(shown(settings)));
}
