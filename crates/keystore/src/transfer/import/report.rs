//! What became of every key of a keyring that was imported, for people and for programs.

use gpg::Fingerprint;
use serde::Serialize;
use serde::ser::{SerializeStruct, Serializer};

use crate::error::Error;
use crate::identity::NameEmail;
use crate::transfer::import::keyless::Phrases;
use crate::transfer::import::unread::Unread;

/// A key that moved.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Moved {
    /// Whose it is.
    #[serde(serialize_with = "text")]
    pub name_email: NameEmail,
    /// Which one.
    #[serde(serialize_with = "text")]
    pub fingerprint: Fingerprint,
}

/// A key that did not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeftOut {
    /// Whose it would be, if that is known.
    pub name_email: Option<NameEmail>,
    /// Its first user ID.
    pub user_id: String,
    /// Which one.
    pub fingerprint: Fingerprint,
    /// Why, in words.
    pub reason: String,
    /// Whether somebody may miss it: its secret key is there and it is not revoked.
    pub usable: bool,
    /// Whether gpg signed with another key of its identity until now, which was taken.
    pub outranked: bool,
}

/// An identity obs-signd may have signed for with the key of another one until now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Shadowed {
    /// Whose signatures they should have been.
    #[serde(serialize_with = "text")]
    pub name_email: NameEmail,
    /// Whose they may be.
    #[serde(serialize_with = "text")]
    pub by: NameEmail,
}

/// What became of every key of the keyring, in its order.
#[derive(Debug, Default, Serialize)]
pub struct ImportReport {
    /// In homes of their own now, or, in a dry run, to be there.
    pub imported: Vec<Moved>,
    /// In homes of their own before.
    pub already: Vec<Moved>,
    /// Not imported.
    pub left_out: Vec<LeftOut>,
    /// Identities that may have been taken for others by the old service.
    pub shadowed: Vec<Shadowed>,
    /// Phrases that are not the phrase of a key.
    #[serde(flatten)]
    pub phrases: Phrases,
    /// Files of the source that hold keys and were not read.
    pub unread: Vec<Unread>,
    /// What ended it early; the keys behind are in none of the lists.
    #[serde(skip)]
    pub stopped: Option<Error>,
}

impl ImportReport {
    /// Keys that signed until now and were not taken over.
    pub fn missed(&self) -> impl Iterator<Item = &LeftOut> {
        self.left_out.iter().filter(|key| key.usable && !key.outranked)
    }

    /// Leaves out a key after all.
    pub(crate) fn fail(&mut self, key: &Moved, reason: String) {
        self.imported.retain(|moved| moved != key);
        self.already.retain(|moved| moved != key);
        self.left_out.push(LeftOut {
            name_email: Some(key.name_email.clone()),
            user_id: key.name_email.to_string(),
            fingerprint: key.fingerprint.clone(),
            reason,
            usable: true,
            outranked: false,
        });
    }

    /// Adds what a later look at the same keyring found.
    pub(crate) fn add(&mut self, later: Self) {
        self.imported.extend(later.imported);
        let is_new = |key: &Moved| !self.imported.contains(key) && !self.already.contains(key);
        let already: Vec<_> = later.already.into_iter().filter(is_new).collect();
        self.already.extend(already);
        for key in later.left_out {
            if self.left_out.iter().all(|known| known.fingerprint != key.fingerprint) {
                self.left_out.push(key);
            }
        }
        self.shadowed = later.shadowed;
        self.phrases = later.phrases;
        self.unread = later.unread;
        self.stopped = later.stopped;
    }
}

impl Serialize for LeftOut {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        let mut object = serializer.serialize_struct("LeftOut", 3)?;
        match &self.name_email {
            Some(name_email) => object.serialize_field("name_email", name_email.as_str())?,
            None => object.serialize_field("user_id", &self.user_id)?,
        }
        object.serialize_field("fingerprint", self.fingerprint.as_str())?;
        object.serialize_field("reason", &self.reason)?;
        object.end()
    }
}

/// Shows a value in JSON as it is shown in text.
pub fn text<S: Serializer>(
    value: &impl std::fmt::Display,
    serializer: S,
) -> std::result::Result<S::Ok, S::Error> {
    serializer.collect_str(value)
}
