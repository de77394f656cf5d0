//! Compares the links and phrase files for obs-signd with the homes in `keys/`, and repairs them. A file with
//! content of its own is never removed: a file in place of a link may be somebody's only key.

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

/// How long to wait before a suspect is judged again: long enough for a publication to finish.
const PUBLISHING: Duration = Duration::from_millis(200);

/// An entry of one of signd's two directories that is wrong or missing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkProblem {
    /// The path where the entry is, or should be.
    pub path: PathBuf,
    /// What is wrong with the entry.
    pub fault: LinkFault,
    directory: SigndDirectory,
    /// The identity whose entry belongs at this path, if any.
    owner: Option<NameEmail>,
}

/// What is wrong with an entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkFault {
    /// There is no entry.
    Missing,
    /// A link leads elsewhere, to this path.
    Elsewhere(PathBuf),
    /// A link belongs to no key, and leads to this path.
    Stale(PathBuf),
    /// There is an empty file, or a copy of the passphrase, where only a link may be.
    File,
    /// There is a file with content of its own, whether a link belongs there or not.
    Content,
    /// A file in `phrases_dir` does not hold the current passphrase of its key.
    Outdated,
    /// A file in `phrases_dir` belongs to no key.
    Leftover,
    /// Anything else: a directory, a socket, or an unknown name.
    Strange,
}

/// The directories that signd reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SigndDirectory {
    /// `gnupg/private-keys-v1.d`, where signd's agent finds secret keys.
    SecretKeys,
    /// `phrases/` or `phrases_dir`, where signd takes each entry for a user.
    Phrases,
}

impl SigndDirectory {
    /// Returns the stem of the name that the entry of `home` has in this directory.
    fn name_of(self, home: &Home) -> Option<&str> {
        match self {
            Self::SecretKeys => home.keygrip.as_ref().map(Keygrip::as_str),
            Self::Phrases => Some(home.name_email.as_str()),
        }
    }
}

impl LinkProblem {
    /// Whether the entry is in the directory of phrases, where signd takes it for a user.
    pub fn is_phrase(&self) -> bool {
        self.directory == SigndDirectory::Phrases
    }

    /// Whether a key cannot sign until the problem is repaired.
    pub fn hides_a_key(&self) -> bool {
        self.owner.is_some()
    }

    /// Whether the entry is a file with a secret key of which there may be no other copy.
    pub fn may_be_an_only_key(&self) -> bool {
        !self.is_phrase() && matches!(self.fault, LinkFault::Content)
    }

    /// Whether the repair needs the passphrase of the key, which may be sealed.
    pub fn needs_phrase(&self) -> bool {
        let is_written = matches!(self.fault, LinkFault::Missing | LinkFault::Outdated);
        self.is_phrase() && self.hides_a_key() && is_written
    }

    /// Whether the problem can be repaired without losing anything.
    pub fn can_be_mended(&self) -> bool {
        !matches!(self.fault, LinkFault::Content | LinkFault::Strange)
    }

    /// The rank in the order of repairs: a phrase is removed before its secret key, and added after it.
    fn turn(&self) -> u8 {
        match (&self.owner, self.directory) {
            (None, SigndDirectory::Phrases) => 0,
            (None, SigndDirectory::SecretKeys) => 1,
            (Some(_), SigndDirectory::SecretKeys) => 2,
            (Some(_), SigndDirectory::Phrases) => 3,
        }
    }
}

/// The links and phrase files of one state directory.
pub struct Links<'a> {
    /// The published homes.
    pub homes: &'a Homes,
    /// The directories with the links.
    pub signd: &'a SigndView,
    /// The keys that are being made. They have a link before they have a published home.
    pub staging: &'a Staging,
}

impl Links<'_> {
    /// Returns every wrong or missing entry, in the order of repairs. `homes` are the homes in `keys/`. As keys
    /// are made and removed meanwhile, every suspect is judged a second time before it is reported.
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
        // A damaged home is reported by itself, and its phrase is right again once the home is.
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

    /// Returns what is wrong with one entry now.
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
                // If the home has gone, the key was removed in the meantime.
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

    /// Whether an entry without a whole home is still needed. Its key may be in the making, may have been made
    /// since the homes were examined, or may have a damaged home that can be restored.
    fn will_be_needed(&self, directory: SigndDirectory, link: &Path, target: &Path) -> bool {
        let Some(name) = link.file_name() else { return false };
        if directory == SigndDirectory::Phrases {
            let identity = name.to_str().and_then(|name| NameEmail::parse(name).ok());
            return identity
                .is_some_and(|identity| !matches!(self.homes.find(&identity), Ok(None)));
        }
        let Some(grip) = Keygrip::from_file_name(name) else { return false };
        // Look in staging first, as a key moves from there to `keys/` and never back. If it cannot be
        // determined, the link counts as needed.
        self.staging.holds(&grip).unwrap_or(true)
            || identity_in(target).is_some_and(|identity| match self.homes.find(&identity) {
                Ok(record) => record.is_some_and(|record| record.keygrip == grip),
                Err(_) => true, // damaged
            })
    }

    /// Repairs an entry.
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

    /// Removes a link, an empty file or a phrase file that belongs to no key. If the key appears at this very
    /// moment, its maker has counted on the entry, so the entry is added again.
    fn remove(&self, problem: &LinkProblem) -> Result<()> {
        // The entry may have changed since it was judged.
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

/// Returns the identity whose home a link to a secret key leads into.
fn identity_in(target: &Path) -> Option<NameEmail> {
    let home = target.strip_prefix("../../keys").ok()?.iter().next()?;
    NameEmail::parse(home.to_str()?).ok()
}
