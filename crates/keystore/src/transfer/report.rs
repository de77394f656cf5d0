//! Reports on what a transfer did and did not do, for people and for programs. The fields have the names that
//! the JSON has.

use std::fmt;
use std::path::{Path, PathBuf};

use gpg::text::printable;
use gpg::{Certificate, Fingerprint, Keygrip};
use serde::{Serialize, Serializer};

use crate::error::Error;
use crate::identity::NameEmail;

/// A key and the identity that owns it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct NamedKey {
    /// The identity.
    pub name_email: NameEmail,
    /// The fingerprint of the primary key.
    pub fingerprint: Fingerprint,
}

/// What is lost when a key stays behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// Nothing, because the key cannot sign.
    Nothing,
    /// No signature: until now gpg has signed with another key of the same identity, and that key was imported.
    Spare,
    /// The ability to sign with a key that signed until now.
    Signatures,
}

/// A key that was not transferred, or does not sign in the new place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct MissingKey {
    /// The identity in the user IDs, if they hold one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name_email: Option<NameEmail>,
    /// The first user ID, if the user IDs hold no identity.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user_id: Option<String>,
    /// The fingerprint, if the identity may have several keys.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fingerprint: Option<Fingerprint>,
    /// The reason, as a phrase for people.
    pub reason: String,
    /// What is lost without the key.
    #[serde(skip)]
    pub loss: Loss,
}

impl MissingKey {
    /// Describes the only key of an identity, which could sign.
    pub(crate) fn of(name_email: NameEmail, reason: impl Into<String>) -> Self {
        Self {
            name_email: Some(name_email),
            user_id: None,
            fingerprint: None,
            reason: reason.into(),
            loss: Loss::Signatures,
        }
    }

    /// Describes a key that may be one of several of its identity.
    pub(crate) fn key(key: NamedKey, reason: impl Into<String>) -> Self {
        Self { fingerprint: Some(key.fingerprint), ..Self::of(key.name_email, reason) }
    }
}

/// Writes the identity, or else the user ID in a form that is safe for a terminal, and the fingerprint.
impl fmt::Display for MissingKey {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.name_email, &self.user_id) {
            (Some(name_email), _) => write!(out, "{name_email}")?,
            (None, user_id) => out.write_str(&printable(user_id.as_deref().unwrap_or_default()))?,
        }
        self.fingerprint.as_ref().map_or(Ok(()), |fingerprint| write!(out, "  {fingerprint}"))
    }
}

/// The result of an import, with keys in the order of the keyring.
#[derive(Debug, Default, Serialize)]
pub struct ImportReport {
    /// Keys that now have homes of their own or, after a dry run, would have them.
    pub imported: Vec<NamedKey>,
    /// Keys that had homes of their own before.
    pub already: Vec<NamedKey>,
    /// Keys that were not imported.
    pub left_out: Vec<MissingKey>,
    /// Identities for which obs-signd may have signed with the key of another identity.
    pub shadowed: Vec<Shadowed>,
    /// Identities that have a phrase but no key.
    pub keyless: Vec<Keyless>,
    /// Names of phrase files that cannot be names of an identity.
    pub strange_phrases: Vec<String>,
    /// Files of the source that hold keys and were not imported.
    pub unread: Vec<Unread>,
    /// The error that ended the import early. The keys that were still to come are in none of the lists.
    #[serde(skip)]
    pub stopped: Option<Error>,
}

/// An identity for which obs-signd may have signed with the key of another identity.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Shadowed {
    /// The identity.
    pub name_email: NameEmail,
    /// The other identity.
    pub by: NameEmail,
}

/// An identity that has a phrase but no key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Keyless {
    /// The identity.
    pub name_email: NameEmail,
    /// The key that gpg finds under its name and can sign with; `null` if there is none.
    pub signed_by: Option<FoundKey>,
}

/// A key that gpg finds under a name. The name need not be that of the key's own identity.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FoundKey {
    /// The identity in the user IDs, if they hold one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name_email: Option<NameEmail>,
    /// The first user ID, if the user IDs hold no identity.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user_id: Option<String>,
    /// The fingerprint of the primary key.
    pub fingerprint: Fingerprint,
}

impl From<Certificate> for FoundKey {
    fn from(found: Certificate) -> Self {
        let name_email = found.user_ids.iter().find_map(|id| NameEmail::of_user_id(id).ok());
        let user_id = found.user_ids.into_iter().next().filter(|_| name_email.is_none());
        Self { name_email, user_id, fingerprint: found.fingerprint }
    }
}

/// Writes the identity, or else the user ID in a form that is safe for a terminal, and the fingerprint.
impl fmt::Display for FoundKey {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.name_email {
            Some(name_email) => write!(out, "{name_email}")?,
            None => out.write_str(&printable(self.user_id.as_deref().unwrap_or_default()))?,
        }
        write!(out, "  {}", self.fingerprint)
    }
}

/// A file of the source that holds keys and was not imported.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct Unread {
    /// The path of the file.
    #[serde(serialize_with = "lossy")]
    pub file: PathBuf,
    /// What the file holds, and why it was not imported.
    pub reason: String,
    /// The keys in the file, as far as they are known.
    pub keys: Vec<UnreadKey>,
    /// The commands that make the keys readable in a copy of the source. `{COPY}` stands for the path of the
    /// copy.
    #[serde(skip)]
    pub(crate) steps: Vec<String>,
}

/// A key in a file that was not imported.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct UnreadKey {
    /// The fingerprint, if the certificate is known.
    pub fingerprint: Option<Fingerprint>,
    /// The keygrip of the primary key, if it is known.
    pub keygrip: Option<Keygrip>,
    /// The first user ID, if the certificate is known.
    pub user_id: Option<String>,
}

impl From<&Certificate> for UnreadKey {
    fn from(certificate: &Certificate) -> Self {
        Self {
            fingerprint: Some(certificate.fingerprint.clone()),
            keygrip: certificate.keygrip.clone(),
            user_id: certificate.user_ids.first().cloned(),
        }
    }
}

impl ImportReport {
    /// Returns the keys that signed until now and were not imported.
    pub fn missed(&self) -> impl Iterator<Item = &MissingKey> {
        self.left_out.iter().filter(|key| key.loss == Loss::Signatures)
    }

    /// Moves a key from the imported ones to those left out.
    pub(crate) fn fail(&mut self, key: &NamedKey, reason: String) {
        self.imported.retain(|moved| moved != key);
        self.already.retain(|moved| moved != key);
        self.left_out.push(MissingKey::key(key.clone(), reason));
    }

    /// Merges the report of a later import of the same keyring.
    pub(crate) fn add(&mut self, later: Self) {
        self.imported.extend(later.imported);
        for key in later.already {
            if !self.imported.contains(&key) && !self.already.contains(&key) {
                self.already.push(key);
            }
        }
        for key in later.left_out {
            if self.left_out.iter().all(|known| known.fingerprint != key.fingerprint) {
                self.left_out.push(key);
            }
        }
        let [imported, already] = [&mut self.imported, &mut self.already].map(std::mem::take);
        let left_out = std::mem::take(&mut self.left_out);
        *self = Self { imported, already, left_out, ..later };
    }
}

/// The result of an export.
#[derive(Debug, Default, Serialize)]
pub struct ExportReport {
    /// The keys in the new home.
    pub exported: Vec<NamedKey>,
    /// Keys that were not exported.
    pub left_out: Vec<MissingKey>,
    /// Keys of `exported` that do not sign in the new home as they would with the old service.
    pub not_signing: Vec<MissingKey>,
}

impl ExportReport {
    /// Returns the keys that were not exported or do not sign.
    pub fn missing(&self) -> impl Iterator<Item = &MissingKey> {
        self.left_out.iter().chain(&self.not_signing)
    }
}

fn lossy<S: Serializer>(path: &Path, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&path.to_string_lossy())
}
