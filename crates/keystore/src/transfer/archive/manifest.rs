//! The manifest, the last member of an archive. It lists every identity that had a key when the backup began,
//! with the SHA-256 of each file that was archived. It is written and read one identity at a time.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::{self, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::Path;

use serde::de::{DeserializeSeed, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

/// The entry of one identity in the manifest.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ManifestEntry {
    /// The identity that owns the key.
    pub name_email: String,
    /// The fingerprint of the key; `None` if it is unknown, for example because the home could not be read.
    pub fingerprint: Option<String>,
    /// The SHA-256 of each file, by path; `None` if the key is not in this archive.
    pub files: Option<BTreeMap<String, String>>,
}

/// A manifest that is being written, in an unlinked file that disappears when this is dropped.
pub struct ManifestDraft {
    file: BufWriter<File>,
    between: &'static str,
}

impl ManifestDraft {
    /// Begins a manifest in the new file `path`, which is unlinked at once.
    pub fn begin(path: &Path) -> io::Result<Self> {
        let mut options = File::options();
        let file = options.read(true).write(true).create_new(true).open(path)?;
        std::fs::remove_file(path)?;
        let mut file = BufWriter::new(file);
        file.write_all(b"{\"keys\":[")?;
        Ok(Self { file, between: "\n" })
    }

    /// Adds the entry of an identity.
    pub fn add(&mut self, entry: &ManifestEntry) -> io::Result<()> {
        self.file.write_all(self.between.as_bytes())?;
        self.between = ",\n";
        Ok(serde_json::to_writer(&mut self.file, entry)?)
    }

    /// Completes the manifest. Returns the file, positioned at its start, and the length in bytes.
    pub fn finish(mut self) -> io::Result<(File, u64)> {
        self.file.write_all(b"\n]}\n")?;
        let mut file = self.file.into_inner().map_err(io::IntoInnerError::into_error)?;
        let length = file.stream_position()?;
        file.seek(SeekFrom::Start(0))?;
        Ok((file, length))
    }
}

/// Reads a manifest to its end and calls `take` with each entry. The message of the error completes a sentence
/// about the manifest.
pub fn read(from: impl Read, mut take: impl FnMut(ManifestEntry)) -> serde_json::Result<()> {
    let mut deserializer = serde_json::Deserializer::from_reader(from);
    deserializer.deserialize_map(Document(&mut take))?;
    deserializer.end()
}

struct Document<'a>(&'a mut dyn FnMut(ManifestEntry));
struct Keys<'a>(&'a mut dyn FnMut(ManifestEntry));

impl<'de> Visitor<'de> for Document<'_> {
    type Value = ();

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("a manifest")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let mut has_keys = false;
        while let Some(name) = map.next_key::<String>()? {
            if name != "keys" {
                map.next_value::<IgnoredAny>()?;
                continue;
            }
            if std::mem::replace(&mut has_keys, true) {
                return Err(serde::de::Error::duplicate_field("keys"));
            }
            map.next_value_seed(Keys(&mut *self.0))?;
        }
        if has_keys { Ok(()) } else { Err(serde::de::Error::missing_field("keys")) }
    }
}

impl<'de> DeserializeSeed<'de> for Keys<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Keys<'_> {
    type Value = ();

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("an array of keys")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut keys: A) -> Result<(), A::Error> {
        while let Some(entry) = keys.next_element()? {
            (self.0)(entry);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(name: &str, files: Option<BTreeMap<String, String>>) -> ManifestEntry {
        ManifestEntry { name_email: name.into(), fingerprint: None, files }
    }

    #[test]
    fn what_is_written_is_read_back() -> io::Result<()> {
        let root = crate::scratch::scratch();
        let path = root.path().join("manifest");
        for count in [0, 1, 3] {
            let files = [("passphrase".to_owned(), "0".repeat(64))].into();
            let entries: Vec<_> = (0..count)
                .map(|n| entry(&format!("ü{n}#b@c"), (n != 1).then(|| BTreeMap::clone(&files))))
                .collect();
            let mut draft = ManifestDraft::begin(&path)?;
            entries.iter().try_for_each(|entry| draft.add(entry))?;
            let (mut file, length) = draft.finish()?;
            assert!(!path.exists());
            let mut text = String::new();
            file.read_to_string(&mut text)?;
            assert_eq!(u64::try_from(text.len()).ok(), Some(length));
            let mut found = Vec::new();
            read(text.as_bytes(), |entry| found.push(entry))?;
            assert_eq!(found, entries);
        }
        Ok(())
    }

    #[test]
    fn half_a_manifest_is_none() {
        let whole = r#"{"version":1,"keys":[{"name_email":"a","fingerprint":null,"files":null}]}"#;
        assert!(read(whole.as_bytes(), drop).is_ok());
        for end in 0..whole.len() {
            assert!(read(&whole.as_bytes()[..end], drop).is_err(), "{}", &whole[..end]);
        }
        for bad in ["{}", "[]", "{\"keys\":1}", "{\"keys\":[],\"keys\":[]}", "{\"keys\":[]} x"] {
            assert!(read(bad.as_bytes(), drop).is_err(), "{bad}");
        }
    }
}
