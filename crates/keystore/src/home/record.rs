//! `key.json`: what is known of a key without asking gpg. A cache, never the truth.

use std::ffi::OsString;
use std::fmt::Display;
use std::io;
use std::path::{Path, PathBuf};

use gpg::{Certificate, Fingerprint, Keygrip, clock};
use serde::{Deserialize, Serialize, Serializer};

use crate::error::{Error, Result};
use crate::files::durable::write_new;
use crate::files::names_in;
use crate::files::small_files::{Symlinks, beginning, open_regular};
use crate::layout::{RECORD, REVOCATIONS, SECRET_KEYS};

/// The size limit of a record in bytes, so that a strange file is not read into memory.
pub const RECORD_MAX: u64 = 4096;

/// The facts about a key that are cached in `key.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct KeyRecord {
    /// The fingerprint of the primary key.
    #[serde(serialize_with = "as_text")]
    pub fingerprint: Fingerprint,
    /// The keygrip of the secret key.
    #[serde(serialize_with = "as_text")]
    pub keygrip: Keygrip,
    /// The name that gpg gives to the algorithm, like `rsa2048`; empty when unknown.
    pub algorithm: String,
    /// The Unix time of creation; zero when unknown.
    pub created: u64,
    /// The Unix time of expiry; `None` for never, or unknown.
    pub expires: Option<u64>,
    /// The Unix time when the certificate last changed; the time of creation until then.
    pub changed: u64,
}

/// Serializes a value as its text.
pub fn as_text<S: Serializer>(
    value: &impl Display,
    out: S,
) -> std::result::Result<S::Ok, S::Error> {
    out.collect_str(value)
}

/// The content of `key.json` when it is read.
#[derive(Deserialize)]
struct RecordFile {
    fingerprint: String,
    keygrip: String,
    algorithm: String,
    created: u64,
    expires: Option<u64>,
    /// Homes made before this field existed do not have it.
    #[serde(default)]
    changed: u64,
}

impl KeyRecord {
    /// Writes `key.json` into a staged home.
    pub fn write(&self, home: &Path) -> Result<()> {
        let path = home.join(RECORD);
        let failed = Error::at("writing", &path);
        let mut text = serde_json::to_vec(self).map_err(|e| failed(io::Error::from(e)))?;
        text.push(b'\n');
        write_new(&path, &text)
    }

    /// Returns what is known of the key in `home`. `key.json` is a cache: if it is missing, or names a secret
    /// key that is not there, the names of the files are used instead.
    pub fn of(home: &Path) -> Result<Option<Self>> {
        let cached = Self::read(home);
        // Nearly always, the cache is right and enough.
        if cached.as_ref().is_some_and(|record| record.secret_key(home).is_file()) {
            return Ok(cached);
        }
        let revocations = names_in(&home.join(REVOCATIONS))?;
        let named = |name: &OsString| Fingerprint::parse(name.to_str()?.strip_suffix(".rev")?);
        let revocations: Vec<_> = revocations.iter().filter_map(named).collect();
        Ok(Self::told_by(cached, &secret_keys(home)?, &revocations))
    }

    /// Returns what is known of the key of a home with the record `cached` in `key.json`, the secret keys
    /// `grips` and these revocation certificates. `cached` counts if its secret key is there. Otherwise the
    /// names of the files count, if there is one of each. Failing that, `cached` is returned all the same.
    pub fn told_by(
        cached: Option<Self>,
        grips: &[Keygrip],
        revocations: &[Fingerprint],
    ) -> Option<Self> {
        match (&cached, grips, revocations) {
            (Some(record), grips, _) if grips.contains(&record.keygrip) => cached,
            (_, [keygrip], [fingerprint]) => Some(Self {
                fingerprint: fingerprint.clone(),
                keygrip: keygrip.clone(),
                algorithm: String::new(),
                created: 0,
                expires: None,
                changed: 0,
            }),
            _ => cached,
        }
    }

    /// Whether the key was made before `now`, but last changed under a clock that was ahead of `now`. For
    /// example, the key was imported under such a clock.
    pub fn was_changed_ahead(&self, now: u64) -> bool {
        clock::is_behind(now, self.changed) && !clock::is_behind(now, self.created)
    }

    /// Returns how the record contradicts the certificate, if it does.
    pub fn disagreement(&self, certificate: &Certificate) -> Option<String> {
        let date = |at: Option<u64>| at.map_or("never".to_owned(), clock::timestamp);
        if self.fingerprint != certificate.fingerprint {
            return Some("has another fingerprint than the certificate".into());
        }
        if self.expires != certificate.expires {
            let (cached, real) = (date(self.expires), date(certificate.expires));
            return Some(format!(
                "says that the key expires {cached}, the certificate says {real}"
            ));
        }
        let is_alike =
            self.created == certificate.created && self.algorithm == certificate.algorithm;
        (!is_alike).then(|| "has another time of creation or algorithm than the certificate".into())
    }

    /// Makes a record of the key with this certificate, which last changed at the Unix time `changed`.
    pub fn of_certificate(certificate: &Certificate, keygrip: Keygrip, changed: u64) -> Self {
        Self {
            fingerprint: certificate.fingerprint.clone(),
            keygrip,
            algorithm: certificate.algorithm.clone(),
            created: certificate.created,
            expires: certificate.expires,
            changed,
        }
    }

    /// The path of the secret key in `home`.
    pub fn secret_key(&self, home: &Path) -> PathBuf {
        home.join(SECRET_KEYS).join(self.keygrip.file_name())
    }

    /// Reads `key.json`; `None` if it is missing, cannot be read or is not what [`KeyRecord::write`] writes.
    /// The caller then uses the files from which this cache is made.
    pub fn read(home: &Path) -> Option<Self> {
        let file = open_regular(&home.join(RECORD), Symlinks::Refused).ok()??;
        Self::parse(&beginning(file, RECORD_MAX).ok()?)
    }

    /// Parses what [`KeyRecord::write`] writes.
    pub fn parse(text: &[u8]) -> Option<Self> {
        let record: RecordFile = serde_json::from_slice(text).ok()?;
        Some(Self {
            fingerprint: Fingerprint::parse(&record.fingerprint)?,
            keygrip: Keygrip::parse(&record.keygrip)?,
            algorithm: record.algorithm,
            created: record.created,
            expires: record.expires,
            changed: record.changed.max(record.created),
        })
    }

    /// Takes over what gpg knows. Keeps the time of the last change if it was known.
    pub fn learn(&mut self, certificate: &Certificate) {
        self.fingerprint = certificate.fingerprint.clone();
        self.algorithm.clone_from(&certificate.algorithm);
        self.created = certificate.created;
        self.expires = certificate.expires;
        if self.changed == 0 {
            let newest = certificate.signatures.iter().map(|signature| signature.created).max();
            self.changed = newest.unwrap_or_default().max(self.created);
        }
    }
}

/// Returns the keygrips of the secret keys in a home.
pub fn secret_keys(home: &Path) -> Result<Vec<Keygrip>> {
    let names = names_in(&home.join(SECRET_KEYS))?;
    Ok(names.iter().filter_map(|name| Keygrip::from_file_name(name)).collect())
}
