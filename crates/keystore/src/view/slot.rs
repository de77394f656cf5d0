//! One place that obs-signd looks at: the link to a secret key or to a passphrase. Here, and only here,
//! it is decided what may be put in the place of what stands there. A link, an empty file and a copy of
//! what the link leads to hold nothing of their own. Anything else may be somebody's only copy: nothing
//! replaces it, and who empties the slot sets it aside.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::{fs, io};

use crate::error::{Error, Result};
use crate::files::{durable, if_there};
use crate::remedy::{quote, quote_path};
use crate::secrets::passphrase::beginning_of;

/// Where a link of ours has to be.
#[derive(Debug)]
pub struct Slot {
    path: PathBuf,
    /// What the link says.
    target: PathBuf,
    /// The file whose copies are worth nothing.
    original: Option<PathBuf>,
}

/// What stands in a slot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Occupant {
    /// Our link.
    Ours,
    /// Nothing.
    Nobody,
    /// A link that leads there.
    Link(PathBuf),
    /// An empty file, or a copy of what the link would lead to.
    Worthless,
    /// A file with a content of its own.
    Precious,
    /// A directory, a socket, a device.
    Strange,
}

impl Occupant {
    /// What stands at `path`, where no link of ours has to be. A file with the content of `original` is
    /// worth nothing.
    pub fn of(path: &Path, original: Option<&Path>) -> io::Result<Self> {
        let Some(found) = if_there(fs::symlink_metadata(path))? else { return Ok(Self::Nobody) };
        if found.is_symlink() {
            return fs::read_link(path).map(Self::Link);
        }
        if !found.is_file() {
            return Ok(Self::Strange);
        }
        // What cannot be read may hold anything.
        let is_copy = || {
            let content = |path: &Path| beginning_of(path).ok().flatten();
            let bytes = original.and_then(content);
            bytes.is_some() && content(path) == bytes
        };
        Ok(if found.len() == 0 || is_copy() { Self::Worthless } else { Self::Precious })
    }

    /// Whether nothing is lost when it goes.
    pub fn may_go(&self) -> bool {
        !matches!(self, Self::Precious | Self::Strange)
    }
}

impl Slot {
    /// The slot at `path` of a link to `target`.
    pub fn new(path: PathBuf, target: PathBuf) -> Self {
        Self { path, target, original: None }
    }

    /// As it is, but copies of the file `original` hold nothing of their own.
    pub fn with_original(self, original: PathBuf) -> Self {
        Self { original: Some(original), ..self }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether our link is there. One system call.
    pub fn is_ours(&self) -> bool {
        fs::read_link(&self.path).is_ok_and(|found| found == self.target)
    }

    /// What stands there.
    pub fn look(&self) -> io::Result<Occupant> {
        if self.is_ours() {
            return Ok(Occupant::Ours);
        }
        Occupant::of(&self.path, self.original.as_deref())
    }

    /// Fails when our link cannot be put there without a loss.
    pub fn check(&self) -> Result<()> {
        let failed = Error::at("looking at", &self.path);
        match self.look().map_err(failed)? {
            occupant if occupant.may_go() => Ok(()),
            occupant => Err(occupied(&self.path, &occupant)),
        }
    }

    /// Puts our link there, in one step; `false` when it was there.
    pub fn fill(&self) -> Result<bool> {
        let failed = Error::at("linking", &self.path);
        if self.is_ours() {
            return Ok(false);
        }
        // Other requests and removals may make it and take it away at any time.
        loop {
            match symlink(&self.target, &self.path) {
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
        // signd takes no name that begins with a dot for a user.
        let fresh = self.path.with_file_name(format!(".{:016x}", rand::random::<u64>()));
        symlink(&self.target, &fresh).map_err(failed)?;
        let may_go =
            |path: &Path| Occupant::of(path, self.original.as_deref()).is_ok_and(|it| it.may_go());
        match durable::exchange(&fresh, &self.path, may_go) {
            Ok(true) => {
                log::warn!("{}: was not our link to the key, replaced it", self.path.display());
                Ok(true)
            }
            Ok(false) => self.check().map(|()| true),
            Err(e) => Err(failed(e)),
        }
    }

    /// Empties the slot. What is no link is moved to `aside`, where it is kept.
    pub fn clear(&self, aside: &Path) -> Result<()> {
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
}

/// Removes a link to nothing.
pub fn remove_dangling(link: &Path) {
    let missing = |e: &io::Error| e.kind() == io::ErrorKind::NotFound;
    let is_link = fs::symlink_metadata(link).is_ok_and(|found| found.is_symlink());
    if !is_link || !fs::metadata(link).is_err_and(|e| missing(&e)) {
        return;
    }
    match fs::remove_file(link) {
        Err(e) if !missing(&e) => {
            log::warn!("{}: a link to nothing could not be removed: {e}", link.display());
        }
        _ => {}
    }
}

fn occupied(path: &Path, occupant: &Occupant) -> Error {
    let what = match occupant {
        Occupant::Strange => "no file and no link of ours",
        _ => "a file with a content of its own, not our link",
    };
    let aside = path.file_name().unwrap_or_default().to_string_lossy();
    let remedy = format!("mv {} {}", quote_path(path), quote(&format!("./{aside}.kept")));
    Error::Occupied { path: path.into(), what, remedy }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::scratch::scratch;

    #[test]
    fn what_has_nothing_of_its_own_is_replaced_and_all_else_is_kept() {
        let scratch = scratch();
        let root = scratch.path();
        let original = root.join("original");
        fs::write(&original, "phrase\n").unwrap();
        let slot = Slot::new(root.join("slot"), "original".into()).with_original(original);
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
        // Between the look and the exchange somebody writes his only copy.
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
    }
}
