//! The links that obs-signd sees, compared with the homes they stand for, and put in order. Nothing
//! with content is ever removed: a file in place of a link may be somebody's only key.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use gpg::Keygrip;

use crate::error::{Error, Result};
use crate::files::{durable, entries, remove_file};
use crate::home::Homes;
use crate::home::contents::Home;
use crate::home::staging::Staging;
use crate::identity::NameEmail;
use crate::layout::PASSPHRASE;
use crate::view::phrases;
use crate::view::signd::SigndView;
use crate::view::slot::Occupant;

/// An entry of `phrases/` or `gnupg/private-keys-v1.d/` that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OddLink {
    /// Where it is, or should be.
    pub path: PathBuf,
    /// What is wrong.
    pub fault: LinkFault,
    /// What it is for.
    place: Place,
}

/// What is wrong with a link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkFault {
    /// There is none.
    Missing,
    /// It leads elsewhere.
    Elsewhere(PathBuf),
    /// It is of no key, and leads there.
    Stale(PathBuf),
    /// An empty file, or a copy of the passphrase, is in its place.
    File,
    /// A file with a content of its own is in its place, or in that of no link.
    Content,
    /// A file of `phrases_dir` that is not the passphrase of its key any more.
    Outdated,
    /// A file of `phrases_dir` that is of no key.
    Leftover,
    /// Something else: a directory, a socket, a strange name.
    Strange,
}

/// What an entry stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Place {
    SecretKey(NameEmail, Keygrip),
    Phrase(NameEmail),
    NoSecretKey,
    NoPhrase,
}

impl OddLink {
    /// Whether it is in `phrases/`, where signd takes it for a user.
    pub fn is_phrase(&self) -> bool {
        matches!(self.place, Place::Phrase(_) | Place::NoPhrase)
    }

    /// Whether a key cannot be signed with as long as this is so.
    pub fn hides_a_key(&self) -> bool {
        matches!(self.place, Place::SecretKey(..) | Place::Phrase(_))
    }

    /// Whether it is put right with the passphrase of its key, which may be sealed.
    pub fn needs_phrase(&self) -> bool {
        matches!(self.place, Place::Phrase(_))
            && matches!(self.fault, LinkFault::Missing | LinkFault::Outdated)
    }

    /// Whether it can be put right without a loss.
    pub fn can_be_mended(&self) -> bool {
        !matches!(self.fault, LinkFault::Content | LinkFault::Strange)
    }

    /// In this order they are put right: a phrase goes before its key and comes after it.
    fn turn(&self) -> u8 {
        match (&self.place, &self.fault) {
            (Place::NoPhrase, _) => 0,
            (Place::NoSecretKey, _) => 1,
            (Place::SecretKey(..), _) => 2,
            (Place::Phrase(_), _) => 3,
        }
    }
}

/// The links of one state directory.
pub struct Links<'a> {
    /// All homes.
    pub homes: &'a Homes,
    /// Where the links are.
    pub signd: &'a SigndView,
    /// Keys in the making have a link before they have a home.
    pub staging: &'a Staging,
}

impl Links<'_> {
    /// Every entry that is not as it should be, in the order in which they are to be mended. `homes`
    /// is what is in `keys/`. What seems wrong is looked at once more at the end, as keys are made and
    /// removed meanwhile.
    pub fn survey(&self, homes: &[Home]) -> Result<Vec<OddLink>> {
        self.signd.check_phrases_are_ours()?;
        let whole = || homes.iter().filter(|home| home.is_whole());
        let mut keys: HashMap<&str, &Home> = HashMap::new();
        for home in whole() {
            keys.extend(home.keygrip.as_ref().map(|grip| (grip.as_str(), home)));
        }
        let names: HashMap<&str, &Home> =
            homes.iter().map(|home| (home.name_email.as_str(), home)).collect();
        let mut odd = Vec::new();
        let mut linked = 0;
        for path in entries(self.signd.secret_keys())? {
            let grip = path.file_name().and_then(Keygrip::from_file_name);
            let home = grip.as_ref().and_then(|grip| keys.get(grip.as_str()));
            let place = match (home, grip) {
                (Some(home), Some(grip)) => Place::SecretKey(home.name_email.clone(), grip),
                _ => Place::NoSecretKey,
            };
            linked += usize::from(home.is_some());
            odd.extend(self.judge(path, place));
        }
        if linked < keys.len() {
            for home in whole() {
                let Some(grip) = home.keygrip.clone() else { continue };
                let path = self.signd.secret_keys().join(grip.file_name());
                if fs::symlink_metadata(&path).is_err() {
                    odd.extend(self.judge(path, Place::SecretKey(home.name_email.clone(), grip)));
                }
            }
        }
        linked = 0;
        for path in entries(self.signd.phrases())? {
            let name = path.file_name().and_then(|name| name.to_str());
            if self.signd.phrase_files().is_some() && name.is_some_and(phrases::is_no_user) {
                continue;
            }
            let home = name.and_then(|name| names.get(name));
            let place = match home {
                Some(home) => Place::Phrase(home.name_email.clone()),
                None => Place::NoPhrase,
            };
            linked += usize::from(home.is_some_and(|home| home.is_whole()));
            // A home that is not whole has been named, and its link is right again when that is.
            if home.is_none_or(|home| home.is_whole()) {
                odd.extend(self.judge(path, place));
            }
        }
        if linked < whole().count() {
            for home in whole() {
                let path = self.signd.phrases().join(home.name_email.as_str());
                if fs::symlink_metadata(&path).is_err() {
                    odd.extend(self.judge(path, Place::Phrase(home.name_email.clone())));
                }
            }
        }
        if !odd.is_empty() {
            // Long enough for a key that is being published.
            std::thread::sleep(std::time::Duration::from_millis(200));
        }
        let again = odd.into_iter().filter_map(|odd: OddLink| self.judge(odd.path, odd.place));
        let mut odd: Vec<_> = again.collect();
        odd.sort_by(|a, b| (a.turn(), &a.path).cmp(&(b.turn(), &b.path)));
        Ok(odd)
    }

    /// What is wrong with one entry now.
    fn judge(&self, path: PathBuf, place: Place) -> Option<OddLink> {
        // Nearly all are right, and then this takes a system call or two.
        if self.is_right(&place) {
            return None;
        }
        let original = match &place {
            Place::Phrase(name) => Some(self.homes.path(name).join(PASSPHRASE)),
            _ => None,
        };
        let occupant = Occupant::of(&path, original.as_deref()).unwrap_or(Occupant::Strange);
        let fault = match (&place, occupant) {
            (Place::SecretKey(name, _) | Place::Phrase(name), Occupant::Nobody) => {
                // Removed meanwhile?
                fs::symlink_metadata(self.homes.path(name)).ok()?;
                LinkFault::Missing
            }
            (_, Occupant::Nobody | Occupant::Ours) => return None,
            (Place::SecretKey(..) | Place::Phrase(_), Occupant::Link(to)) => {
                LinkFault::Elsewhere(to)
            }
            (place, Occupant::Link(target)) => {
                if self.will_be_needed(place, &path, &target) {
                    return None;
                }
                LinkFault::Stale(target)
            }
            (Place::Phrase(_), Occupant::Worthless | Occupant::Precious)
                if self.is_file_of(&place) =>
            {
                LinkFault::Outdated
            }
            (Place::NoPhrase, Occupant::Worthless | Occupant::Precious)
                if self.is_file_of(&place) =>
            {
                if self.will_be_needed(&place, &path, &path) {
                    return None;
                }
                LinkFault::Leftover
            }
            (Place::NoSecretKey, _) if Keygrip::from_file_name(path.file_name()?).is_none() => {
                LinkFault::Strange
            }
            (_, Occupant::Worthless) => LinkFault::File,
            (_, Occupant::Precious) => LinkFault::Content,
            (_, Occupant::Strange) => LinkFault::Strange,
        };
        Some(OddLink { path, fault, place })
    }

    /// Whether an entry is as it should be.
    fn is_right(&self, place: &Place) -> bool {
        match (place, self.signd.phrase_files()) {
            (Place::Phrase(name), Some(files)) => files.is_current(name),
            (Place::Phrase(name), None) => self.signd.phrase_slot(name).is_ours(),
            (Place::SecretKey(name, grip), _) => self.signd.secret_key_slot(name, grip).is_ours(),
            (Place::NoSecretKey | Place::NoPhrase, _) => false,
        }
    }

    /// Whether it is a phrase that is a file, not a link.
    fn is_file_of(&self, place: &Place) -> bool {
        self.signd.phrase_files().is_some() && matches!(place, Place::Phrase(_) | Place::NoPhrase)
    }

    /// Whether a link that is of no whole key is one of a key that is being made, of one made since
    /// the homes were looked at, or of a home that is damaged and may be restored.
    fn will_be_needed(&self, place: &Place, link: &Path, target: &Path) -> bool {
        let Some(name) = link.file_name() else { return false };
        if *place == Place::NoPhrase {
            let identity = name.to_str().and_then(|name| NameEmail::parse(name).ok());
            return identity
                .is_some_and(|identity| !matches!(self.homes.find(&identity), Ok(None)));
        }
        let Some(grip) = Keygrip::from_file_name(name) else { return false };
        // In this order: from staging a key goes to keys/, never back. One that cannot be told may.
        self.staging.holds(&grip).unwrap_or(true)
            || identity_in(target).is_some_and(|identity| match self.homes.find(&identity) {
                Ok(record) => record.is_some_and(|record| record.keygrip == grip),
                Err(_) => true, // damaged
            })
    }

    /// Puts an entry right.
    pub fn mend(&self, odd: &OddLink) -> Result<()> {
        if !odd.can_be_mended() {
            return Err(Error::Partly(format!("{}: is left as it is", odd.path.display())));
        }
        self.signd.check_phrases_are_ours()?;
        match &odd.place {
            // Whoever adds a link looks for the home afterwards; it may be on its way to the trash.
            Place::SecretKey(name, grip) => {
                self.signd.add_secret_key(name, grip)?;
                self.signd.remove_dangling_secret_key(grip);
                Ok(())
            }
            Place::Phrase(name) => {
                self.signd.add_phrase(name)?;
                self.signd.remove_dangling_phrase(name);
                durable::sync(self.signd.phrases())
            }
            Place::NoSecretKey | Place::NoPhrase => self.remove(odd),
        }
    }

    /// Removes a link, or an empty file, of no key. Should the key come into being at this very moment,
    /// its request has taken the link for its own, and gets it back.
    fn remove(&self, odd: &OddLink) -> Result<()> {
        // It may have become something else since it was looked at.
        if self.judge(odd.path.clone(), odd.place.clone()).as_ref() != Some(odd) {
            return Ok(());
        }
        remove_file(&odd.path)?;
        let name = odd.path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let identity = match &odd.fault {
            LinkFault::Stale(target) if !odd.is_phrase() => identity_in(target),
            _ => NameEmail::parse(name).ok(),
        };
        let Some(identity) = identity else { return Ok(()) };
        match self.homes.find(&identity) {
            Ok(Some(_)) if odd.is_phrase() => self.signd.add_phrase(&identity).map(drop),
            Ok(Some(record)) if record.keygrip.file_name() == name => {
                self.signd.add_secret_key(&identity, &record.keygrip).map(drop)
            }
            _ => Ok(()),
        }
    }
}

/// Whose key a link to a secret key leads to.
fn identity_in(target: &Path) -> Option<NameEmail> {
    let home = target.strip_prefix("../../keys").ok()?.iter().next()?;
    NameEmail::parse(home.to_str()?).ok()
}
