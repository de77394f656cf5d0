//! One place that obs-signd reads: the link to a secret key, the link to a passphrase, or a file with a
//! passphrase. This module, and only this one, decides what may be replaced there. A link, an empty file and a
//! copy of the link's target hold nothing of their own. Anything else may be somebody's only copy: nothing
//! replaces it, and it is set aside when the slot is emptied.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::{fs, io};

use crate::error::{Error, Result};
use crate::files::{durable, if_there, remove_dangling};
use crate::identity::NameEmail;
use crate::remedy::keep_aside;
use crate::secrets::passphrase::beginning_of;
use crate::view::phrase_files::PhraseFiles;

/// A place that signd reads, and what belongs there.
#[derive(Debug)]
pub struct Slot<'a> {
    path: PathBuf,
    wanted: Wanted<'a>,
}

#[derive(Debug)]
enum Wanted<'a> {
    /// A symbolic link to `target`. A copy of the file `original` in its place may be replaced.
    Link { target: PathBuf, original: Option<PathBuf> },
    /// A file in `phrases_dir` with the passphrase of this identity.
    PhraseFile(&'a PhraseFiles, &'a NameEmail),
}

/// What a slot holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Occupant {
    /// What belongs there.
    Ours,
    /// Nothing.
    Nobody,
    /// A link to this path.
    Link(PathBuf),
    /// An empty file, or a copy of the file that the link would lead to.
    Worthless,
    /// A file with content of its own.
    Precious,
    /// A file in `phrases_dir`, which can be made again from `keys/`.
    Derived,
    /// A directory, a socket or a device.
    Strange,
}

impl Occupant {
    /// Examines `path`, where none of our links is. A file with the same content as `original` is
    /// [`Occupant::Worthless`].
    pub fn of(path: &Path, original: Option<&Path>) -> io::Result<Self> {
        // ENOTDIR, by contrast, is an error: if the parent is a file, nothing can be put there.
        let found = match fs::symlink_metadata(path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Self::Nobody),
            found => found?,
        };
        if found.is_symlink() {
            return fs::read_link(path).map(Self::Link);
        }
        if !found.is_file() {
            return Ok(Self::Strange);
        }
        // A file that cannot be read may hold anything, so it is no copy.
        let is_copy = || {
            let content = |path: &Path| beginning_of(path).ok().flatten();
            let bytes = original.and_then(content);
            bytes.is_some() && content(path) == bytes
        };
        Ok(if found.len() == 0 || is_copy() { Self::Worthless } else { Self::Precious })
    }

    /// Examines `path` in `phrases_dir`, which this state has claimed.
    pub fn in_phrases_dir(path: &Path) -> io::Result<Self> {
        Ok(match Self::of(path, None)? {
            Self::Worthless | Self::Precious => Self::Derived,
            occupant => occupant,
        })
    }

    /// Whether nothing is lost if it is removed.
    pub fn may_go(&self) -> bool {
        !matches!(self, Self::Precious | Self::Strange)
    }
}

impl<'a> Slot<'a> {
    /// Returns the slot at `path` of a link to `target`. A copy of the file `original` may be replaced.
    pub fn of_link(path: PathBuf, target: PathBuf, original: Option<PathBuf>) -> Self {
        Self { path, wanted: Wanted::Link { target, original } }
    }

    /// Returns the slot of the passphrase of an identity, in a file of `files`.
    pub fn of_phrase_file(files: &'a PhraseFiles, name_email: &'a NameEmail) -> Self {
        Self { path: files.path(name_email), wanted: Wanted::PhraseFile(files, name_email) }
    }

    /// The path of the slot.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether the slot holds what belongs there. For a link, this takes one system call.
    pub fn is_ours(&self) -> bool {
        match &self.wanted {
            Wanted::Link { target, .. } => {
                fs::read_link(&self.path).is_ok_and(|found| found == *target)
            }
            Wanted::PhraseFile(files, name_email) => files.is_current(name_email),
        }
    }

    /// Examines what the slot holds.
    pub fn look(&self) -> io::Result<Occupant> {
        match &self.wanted {
            _ if self.is_ours() => Ok(Occupant::Ours),
            Wanted::Link { original, .. } => Occupant::of(&self.path, original.as_deref()),
            Wanted::PhraseFile(..) => Occupant::in_phrases_dir(&self.path),
        }
    }

    /// Fails if the slot cannot be filled without losing something.
    pub fn check(&self) -> Result<()> {
        if let Wanted::PhraseFile(files, _) = self.wanted {
            return files.is_claimed().map(drop);
        }
        match self.look().map_err(Error::at("looking at", &self.path))? {
            occupant if occupant.may_go() => Ok(()),
            occupant => Err(occupied(&self.path, &occupant)),
        }
    }

    /// Fills the slot in one step. Returns `true` if there is a new link, which may not be on the disk yet.
    pub fn fill(&self) -> Result<bool> {
        let (target, original) = match &self.wanted {
            Wanted::Link { target, original } => (target, original.as_deref()),
            Wanted::PhraseFile(files, name_email) => return files.add(name_email).map(|()| false),
        };
        let failed = Error::at("linking", &self.path);
        if self.is_ours() {
            return Ok(false);
        }
        // Other requests and removals may make the link, or remove it, at any time.
        loop {
            match symlink(target, &self.path) {
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
                made => return made.map(|()| true).map_err(failed),
            }
            match self.look().map_err(failed)? {
                Occupant::Ours => return Ok(true),
                Occupant::Nobody => {}
                _ => break,
            }
        }
        self.check()?;
        // signd does not take a name that begins with a dot for a user.
        let fresh = self.path.with_file_name(format!(".{:016x}", rand::random::<u64>()));
        symlink(target, &fresh).map_err(failed)?;
        let may_go = |path: &Path| Occupant::of(path, original).is_ok_and(|it| it.may_go());
        match durable::exchange(&fresh, &self.path, may_go).map_err(failed)? {
            true => {
                log::warn!("{}: was not our link to the key, replaced it", self.path.display());
                Ok(true)
            }
            // What came at the last moment stays. It may be gone already.
            false => self.check().and_then(|()| self.fill()),
        }
    }

    /// Empties the slot. Anything but a link or a file of `phrases_dir` is moved to `aside` and kept there.
    pub fn clear(&self, aside: &Path) -> Result<()> {
        if let Wanted::PhraseFile(files, name_email) = self.wanted {
            return files.remove(name_email);
        }
        let failed = Error::at("removing", &self.path);
        let cleared = match self.look().map_err(failed)? {
            Occupant::Nobody => Ok(()),
            Occupant::Ours | Occupant::Link(_) => fs::remove_file(&self.path),
            _ => {
                let (path, to) = (self.path.display(), aside.display());
                log::warn!("{path}: was not our link to the key, moved it to {to}");
                durable::rename(&self.path, aside)
            }
        };
        if_there(cleared).map(drop).map_err(failed)
    }

    /// Empties the slot of a key that no longer exists.
    pub fn remove_dangling(&self) {
        match self.wanted {
            Wanted::Link { .. } => remove_dangling(&self.path),
            Wanted::PhraseFile(files, name_email) => files.remove_dangling(name_email),
        }
    }
}

fn occupied(path: &Path, occupant: &Occupant) -> Error {
    let what = match occupant {
        Occupant::Strange => "no file and no link of ours",
        _ => "a file with a content of its own, not our link",
    };
    let remedy = keep_aside(Path::new("."), path);
    Error::Occupied { path: path.into(), what, remedy }
}

#[allow(clippy::unwrap_used)]
#[cfg(test)]
mod tests {
    use super::*;
    use crate::scratch::scratch;

    #[test]
    fn what_has_nothing_of_its_own_is_replaced_and_all_else_is_kept() {
        let scratch = scratch();
        let root = scratch.path();
        let original = root.join("original");
        fs::write(&original, "phrase\n").unwrap();
        let slot = Slot::of_link(root.join("slot"), "original".into(), Some(original));
        assert_eq!(slot.look().unwrap(), Occupant::Nobody);
        assert!(slot.fill().unwrap() && !slot.fill().unwrap());
        let write = |content: &str| {
            let _ = fs::remove_file(slot.path());
            fs::write(slot.path(), content).unwrap();
        };
        for content in ["", "phrase\n"] {
            write(content);
            assert_eq!(slot.look().unwrap(), Occupant::Worthless, "{content:?}");
            assert!(slot.fill().unwrap() && slot.is_ours(), "{content:?}");
        }
        fs::remove_file(slot.path()).unwrap();
        symlink("/nowhere", slot.path()).unwrap();
        assert!(slot.fill().unwrap() && slot.is_ours());

        write("precious");
        for result in [slot.check(), slot.fill().map(drop)] {
            assert!(matches!(result, Err(Error::Occupied { .. })), "{result:?}");
        }
        assert_eq!(fs::read(slot.path()).unwrap(), b"precious");
        let aside = root.join("aside");
        slot.clear(&aside).unwrap();
        assert_eq!(fs::read(&aside).unwrap(), b"precious");
        fs::create_dir(slot.path()).unwrap();
        assert!(matches!(slot.fill(), Err(Error::Occupied { .. })));
        assert!(slot.path().is_dir());
        assert_eq!(fs::read_dir(root).unwrap().count(), 3, "nothing is left behind");
    }

    #[test]
    fn what_comes_at_the_last_moment_is_kept() {
        let scratch = scratch();
        let root = scratch.path();
        let (fresh, target) = (root.join("fresh"), root.join("target"));
        fs::write(&target, "").unwrap();
        fs::write(&fresh, "new").unwrap();
        // Between the look and the exchange, somebody writes a file that has no other copy.
        let looks = std::cell::Cell::new(0);
        let may_go = |path: &Path| {
            looks.set(looks.get() + 1);
            let goes = fs::read(path).unwrap().is_empty();
            fs::write(&target, "precious").unwrap();
            goes
        };
        assert!(!durable::exchange(&fresh, &target, may_go).unwrap());
        assert_eq!(looks.get(), 2);
        assert_eq!(fs::read(&target).unwrap(), b"precious");
        assert!(!fresh.exists());

        // Then, before that file is put back, a removal takes our link away.
        fs::write(&target, "").unwrap();
        fs::write(&fresh, "new").unwrap();
        let may_go = |path: &Path| {
            let goes = path == target;
            match goes {
                true => fs::write(&target, "precious").unwrap(),
                false => fs::remove_file(&target).unwrap(),
            }
            goes
        };
        assert!(!durable::exchange(&fresh, &target, may_go).unwrap());
        assert_eq!(fs::read(&target).unwrap(), b"precious");
        assert!(!fresh.exists());
    }
}
