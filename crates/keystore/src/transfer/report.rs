//! What a transfer did and what it did not do, for people and for programs: fields have the names that the JSON
//! has.

use std::fmt;
use std::path::{Path, PathBuf};

use gpg::text::printable;
use gpg::{Certificate, Fingerprint, Keygrip};
use serde::{Serialize, Serializer};

use crate::error::Error;
use crate::identity::NameEmail;

/// A key and the identity that it belongs to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct NamedKey {
    /// The identity.
    pub name_email: NameEmail,
    /// The key.
    pub fingerprint: Fingerprint,
}

/// What is lost when a key stays behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// Nothing: it cannot sign.
    Nothing,
    /// No signature: gpg has signed with another key of its identity until now, and that one was taken.
    Spare,
    /// A key that signed until now.
    Signatures,
}

/// A key that is not where it should be, or does not sign there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct MissingKey {
    /// Its identity, if its user IDs hold one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name_email: Option<NameEmail>,
    /// Its first user ID, where that holds no identity.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user_id: Option<String>,
    /// The key, where the identity may have several.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fingerprint: Option<Fingerprint>,
    /// Why, in words.
    pub reason: String,
    /// What is lost without it.
    #[serde(skip)]
    pub loss: Loss,
}

impl MissingKey {
    /// The only key of an identity, which could sign.
    pub(crate) fn of(name_email: NameEmail, reason: impl Into<String>) -> Self {
        Self {
            name_email: Some(name_email),
            user_id: None,
            fingerprint: None,
            reason: reason.into(),
            loss: Loss::Signatures,
        }
    }

    /// A key that may be one of several of its identity.
    pub(crate) fn key(key: NamedKey, reason: impl Into<String>) -> Self {
        Self { fingerprint: Some(key.fingerprint), ..Self::of(key.name_email, reason) }
    }
}

/// The identity, or the user ID as a terminal can take it, and the fingerprint.
impl fmt::Display for MissingKey {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.name_email, &self.user_id) {
            (Some(name_email), _) => write!(out, "{name_email}")?,
            (None, user_id) => out.write_str(&printable(user_id.as_deref().unwrap_or_default()))?,
        }
        self.fingerprint.as_ref().map_or(Ok(()), |fingerprint| write!(out, "  {fingerprint}"))
    }
}

/// What an import did, with keys in the order of the keyring.
#[derive(Debug, Default, Serialize)]
pub struct ImportReport {
    /// Keys that have homes of their own now, or, after a dry run, would have.
    pub imported: Vec<NamedKey>,
    /// Keys that had homes of their own before.
    pub already: Vec<NamedKey>,
    /// Keys that were not imported.
    pub left_out: Vec<MissingKey>,
    /// Identities that obs-signd may have signed for with the key of another one.
    pub shadowed: Vec<Shadowed>,
    /// Identities with a phrase and without a key.
    pub keyless: Vec<Keyless>,
    /// Names of phrases that no identity can have.
    pub strange_phrases: Vec<String>,
    /// Files of the source that hold keys and were not read.
    pub unread: Vec<Unread>,
    /// What ended the import early; the keys that were still to come are in none of the lists.
    #[serde(skip)]
    pub stopped: Option<Error>,
}

/// An identity that obs-signd may have signed for with the key of another one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Shadowed {
    /// The identity.
    pub name_email: NameEmail,
    /// The other one.
    pub by: NameEmail,
}

/// An identity that has a phrase and no key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Keyless {
    /// The identity.
    pub name_email: NameEmail,
    /// The key that gpg finds under its name; `null` when gpg can sign with none.
    pub signed_by: Option<FoundKey>,
}

/// A key that gpg finds under a name, which need not be its identity.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FoundKey {
    /// Its identity, if its user IDs hold one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name_email: Option<NameEmail>,
    /// Its first user ID, where that holds no identity.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user_id: Option<String>,
    /// The key.
    pub fingerprint: Fingerprint,
}

impl From<Certificate> for FoundKey {
    fn from(found: Certificate) -> Self {
        let name_email = found.user_ids.iter().find_map(|id| NameEmail::of_user_id(id).ok());
        let user_id = found.user_ids.into_iter().next().filter(|_| name_email.is_none());
        Self { name_email, user_id, fingerprint: found.fingerprint }
    }
}

/// The identity, or the user ID as a terminal can take it, and the fingerprint.
impl fmt::Display for FoundKey {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.name_email {
            Some(name_email) => write!(out, "{name_email}")?,
            None => out.write_str(&printable(self.user_id.as_deref().unwrap_or_default()))?,
        }
        write!(out, "  {}", self.fingerprint)
    }
}

/// A file of the source that holds keys and was not read.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct Unread {
    /// The file.
    #[serde(serialize_with = "lossy")]
    pub file: PathBuf,
    /// What it holds, and why that was not read.
    pub reason: String,
    /// The keys in it, as far as they are known.
    pub keys: Vec<UnreadKey>,
    /// Commands that make the keys readable in a copy of the source. `{COPY}` stands for its path.
    #[serde(skip)]
    pub(crate) steps: Vec<String>,
}

/// A key in a file that was not read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct UnreadKey {
    /// The key, if its certificate is known.
    pub fingerprint: Option<Fingerprint>,
    /// The name of its secret key.
    pub keygrip: Option<Keygrip>,
    /// Its first user ID.
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
    /// Keys that signed until now and were not imported.
    pub fn missed(&self) -> impl Iterator<Item = &MissingKey> {
        self.left_out.iter().filter(|key| key.loss == Loss::Signatures)
    }

    /// Leaves out a key after all.
    pub(crate) fn fail(&mut self, key: &NamedKey, reason: String) {
        self.imported.retain(|moved| moved != key);
        self.already.retain(|moved| moved != key);
        self.left_out.push(MissingKey::key(key.clone(), reason));
    }

    /// Adds what a later look at the same keyring found.
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

/// What an export wrote.
#[derive(Debug, Default, Serialize)]
pub struct ExportReport {
    /// The keys in the new home.
    pub exported: Vec<NamedKey>,
    /// Keys that are not there.
    pub left_out: Vec<MissingKey>,
    /// Keys of `exported` that do not sign there as the old service had them sign.
    pub not_signing: Vec<MissingKey>,
}

impl ExportReport {
    /// The keys that are not as they should be.
    pub fn missing(&self) -> impl Iterator<Item = &MissingKey> {
        self.left_out.iter().chain(&self.not_signing)
    }
}

fn lossy<S: Serializer>(path: &Path, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&path.to_string_lossy())
}
