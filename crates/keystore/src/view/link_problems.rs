//! Compares what obs-signd sees with the homes it stands for, and puts it in order. Nothing with content is
//! ever removed: a file in place of a link may be somebody's only key.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use gpg::Keygrip;

use crate::error::{Error, Result};
use crate::files::{durable, entries, remove_file};
use crate::home::Homes;
use crate::home::contents::Home;
use crate::home::staging::Staging;
use crate::identity::NameEmail;
use crate::view::phrase_files::is_no_user;
use crate::view::signd_view::SigndView;
use crate::view::slot::Occupant;

/// Long enough for a key that is being published.
const PUBLISHING: Duration = Duration::from_millis(200);

/// An entry of one of the two directories that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkProblem {
    /// Where it is, or should be.
    pub path: PathBuf,
    /// What is wrong.
    pub fault: LinkFault,
    directory: SigndDirectory,
    /// The identity whose link belongs there, if there is one.
    owner: Option<NameEmail>,
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

/// The directories that signd looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SigndDirectory {
    /// `gnupg/private-keys-v1.d`, where its agent finds secret keys.
    SecretKeys,
    /// `phrases/` or `phrases_dir`, where each entry is a user.
    Phrases,
}

impl SigndDirectory {
    /// What the entry of a home is named after.
    fn name_of(self, home: &Home) -> Option<&str> {
        match self {
            Self::SecretKeys => home.keygrip.as_ref().map(Keygrip::as_str),
            Self::Phrases => Some(home.name_email.as_str()),
        }
    }
}

impl LinkProblem {
    /// Whether it is in `phrases/`, where signd takes it for a user.
    pub fn is_phrase(&self) -> bool {
        self.directory == SigndDirectory::Phrases
    }

    /// Whether a key cannot be signed with as long as this is so.
    pub fn hides_a_key(&self) -> bool {
        self.owner.is_some()
    }

    /// Whether it is a secret key, of which there may be no other copy.
    pub fn may_be_an_only_key(&self) -> bool {
        !self.is_phrase() && matches!(self.fault, LinkFault::Content)
    }

    /// Whether it is put right with the passphrase of its key, which may be sealed.
    pub fn needs_phrase(&self) -> bool {
        let is_written = matches!(self.fault, LinkFault::Missing | LinkFault::Outdated);
        self.is_phrase() && self.hides_a_key() && is_written
    }

    /// Whether it can be put right without a loss.
    pub fn can_be_mended(&self) -> bool {
        !matches!(self.fault, LinkFault::Content | LinkFault::Strange)
    }

    /// In this order they are put right: a phrase goes before its key and comes after it.
    fn turn(&self) -> u8 {
        match (&self.owner, self.directory) {
            (None, SigndDirectory::Phrases) => 0,
            (None, SigndDirectory::SecretKeys) => 1,
            (Some(_), SigndDirectory::SecretKeys) => 2,
            (Some(_), SigndDirectory::Phrases) => 3,
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
    pub fn survey(&self, homes: &[Home]) -> Result<Vec<LinkProblem>> {
        self.signd.check_phrases_are_ours()?;
        let mut suspects = self.suspects(SigndDirectory::SecretKeys, homes)?;
        suspects.extend(self.suspects(SigndDirectory::Phrases, homes)?);
        if !suspects.is_empty() {
            std::thread::sleep(PUBLISHING);
        }
        let again =
            suspects.into_iter().filter_map(|LinkProblem { path, directory, owner, .. }| {
                self.judge(path, directory, owner)
            });
        let mut problems: Vec<_> = again.collect();
        problems.sort_by(|a, b| (a.turn(), &a.path).cmp(&(b.turn(), &b.path)));
        Ok(problems)
    }

    fn suspects(&self, directory: SigndDirectory, homes: &[Home]) -> Result<Vec<LinkProblem>> {
        let (path, ending) = match directory {
            SigndDirectory::SecretKeys => (self.signd.secret_keys(), ".key"),
            SigndDirectory::Phrases => (self.signd.phrases(), ""),
        };
        let is_phrase = directory == SigndDirectory::Phrases;
        let ignores_dots = is_phrase && self.signd.phrase_files().is_some();
        let (whole, damaged): (Vec<&Home>, Vec<&Home>) =
            homes.iter().partition(|home| home.is_whole());
        let mut missing: HashMap<&str, &Home> =
            whole.iter().filter_map(|home| Some((directory.name_of(home)?, *home))).collect();
        // A home that is not whole has been named, and its phrase is right again when that is.
        let damaged: HashSet<&str> = damaged
            .iter()
            .filter(|_| is_phrase)
            .filter_map(|home| directory.name_of(home))
            .collect();
        let mut suspects = Vec::new();
        for path in entries(path)? {
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            let name = name.strip_suffix(ending).unwrap_or_default();
            if damaged.contains(name) || (ignores_dots && is_no_user(name)) {
                continue;
            }
            let owner = missing.remove(name).map(|home| home.name_email.clone());
            suspects.extend(self.judge(path, directory, owner));
        }
        for (name, home) in missing {
            let path = path.join(format!("{name}{ending}"));
            suspects.extend(self.judge(path, directory, Some(home.name_email.clone())));
        }
        Ok(suspects)
    }

    /// What is wrong with one entry now.
    fn judge(
        &self,
        path: PathBuf,
        directory: SigndDirectory,
        owner: Option<NameEmail>,
    ) -> Option<LinkProblem> {
        let keygrip = path.file_name().and_then(Keygrip::from_file_name);
        let is_phrase = directory == SigndDirectory::Phrases;
        let occupant = match (&owner, &keygrip) {
            (Some(owner), _) if is_phrase => self.signd.phrase_slot(owner).look(),
            (Some(owner), Some(keygrip)) => self.signd.secret_key_slot(owner, keygrip).look(),
            _ if is_phrase && self.signd.phrase_files().is_some() => {
                Occupant::in_phrases_dir(&path)
            }
            _ => Occupant::of(&path, None),
        };
        let fault = match (&owner, occupant.unwrap_or(Occupant::Strange)) {
            (_, Occupant::Ours) | (None, Occupant::Nobody) => return None,
            (Some(owner), Occupant::Nobody) => {
                // Removed meanwhile?
                fs::symlink_metadata(self.homes.path(owner)).ok()?;
                LinkFault::Missing
            }
            (Some(_), Occupant::Link(to)) => LinkFault::Elsewhere(to),
            (Some(_), Occupant::Derived) => LinkFault::Outdated,
            (None, Occupant::Link(to)) if !self.will_be_needed(directory, &path, &to) => {
                LinkFault::Stale(to)
            }
            (None, Occupant::Derived) if !self.will_be_needed(directory, &path, &path) => {
                LinkFault::Leftover
            }
            (None, Occupant::Link(_) | Occupant::Derived) => return None,
            (None, _) if !is_phrase && keygrip.is_none() => LinkFault::Strange,
            (_, Occupant::Worthless) => LinkFault::File,
            (_, Occupant::Precious) => LinkFault::Content,
            (_, Occupant::Strange) => LinkFault::Strange,
        };
        Some(LinkProblem { path, fault, directory, owner })
    }

    /// Whether a link that is of no whole key is one of a key that is being made, of one made since
    /// the homes were looked at, or of a home that is damaged and may be restored.
    fn will_be_needed(&self, directory: SigndDirectory, link: &Path, target: &Path) -> bool {
        let Some(name) = link.file_name() else { return false };
        if directory == SigndDirectory::Phrases {
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
    pub fn mend(&self, problem: &LinkProblem) -> Result<()> {
        if !problem.can_be_mended() {
            return Err(Error::Partly(format!("{}: is left as it is", problem.path.display())));
        }
        self.signd.check_phrases_are_ours()?;
        // After adding a link, look for the home again: it may be on its way to the trash.
        match (&problem.owner, problem.path.file_name().and_then(Keygrip::from_file_name)) {
            (Some(owner), _) if problem.is_phrase() => {
                self.signd.add_phrase(owner)?;
                self.signd.remove_dangling_phrase(owner);
                durable::sync(self.signd.phrases())
            }
            (Some(owner), Some(keygrip)) => {
                self.signd.add_secret_key(owner, &keygrip)?;
                self.signd.remove_dangling_secret_key(&keygrip);
                Ok(())
            }
            _ => self.remove(problem),
        }
    }

    /// Removes a link, or an empty file, of no key. Should the key come into being at this very moment,
    /// its request has taken the link for its own, and gets it back.
    fn remove(&self, problem: &LinkProblem) -> Result<()> {
        // It may have become something else since it was looked at.
        let now = self.judge(problem.path.clone(), problem.directory, problem.owner.clone());
        if now.as_ref() != Some(problem) {
            return Ok(());
        }
        remove_file(&problem.path)?;
        let name = problem.path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let identity = match &problem.fault {
            LinkFault::Stale(target) if !problem.is_phrase() => identity_in(target),
            _ => NameEmail::parse(name).ok(),
        };
        let Some(identity) = identity else { return Ok(()) };
        match self.homes.find(&identity) {
            Ok(Some(_)) if problem.is_phrase() => self.signd.add_phrase(&identity).map(drop),
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
