//! Finds out whether the state directory is still the one that was opened, and whether keys can be made in it.

use std::path::{Path, PathBuf};
use std::{fs, io};

use nix::unistd::{AccessFlags, eaccess};

use crate::files::FileId;
use crate::layout::{GNUPG, KEYS, PHRASES, SECRET_KEY_LINKS, STAGING};
use crate::state::free_space::Space;

/// The directories in which keys are published. If another directory is in the place of one, the state is
/// another one, or there is none.
const SAME: [&str; 2] = ["", KEYS];
/// The other directories that are written to for every key.
const WRITTEN: [&str; 3] = [STAGING, GNUPG, SECRET_KEY_LINKS];

/// The state directory as it was opened.
#[derive(Debug)]
pub struct Opened {
    root: PathBuf,
    /// The identity of each directory in [`SAME`]; `None` if it was missing.
    same: [Option<FileId>; SAME.len()],
    /// Whether passphrases are links in the state.
    has_phrases: bool,
}

impl Opened {
    /// Remembers which directory is at `root` now. If there is none, the state is never ready. `has_phrases`
    /// says whether passphrases are links in the state.
    pub fn new(root: &Path, has_phrases: bool) -> Self {
        let same = SAME.map(|part| identity_of(&root.join(part)).ok());
        Self { root: root.into(), same, has_phrases }
    }

    /// Fails with the reason if no key could be made now. The reason names no path, because a client need not
    /// know where the keys are.
    pub fn look(&self) -> std::result::Result<(), String> {
        for (part, opened) in SAME.into_iter().zip(self.same) {
            match identity_of(&self.root.join(part)) {
                Ok(now) if Some(now) == opened => {}
                Ok(_) => {
                    return Err(format!(
                        "{} is not the one that was opened; see whether its volume is mounted, then restart \
                         the service",
                        name(part)
                    ));
                }
                Err(e) => return Err(format!("{} {}", name(part), reason(&e))),
            }
        }
        let phrases = self.has_phrases.then_some(PHRASES);
        for part in SAME.into_iter().chain(WRITTEN).chain(phrases) {
            if part.is_empty() {
                continue; // no file is made directly in it
            }
            let wanted = AccessFlags::W_OK | AccessFlags::X_OK;
            if let Err(errno) = eaccess(&self.root.join(part), wanted) {
                return Err(format!("{} cannot be written to: {}", name(part), errno.desc()));
            }
        }
        match Space::of(&self.root.join(KEYS)) {
            Ok(space) if space.is_enough() => Ok(()),
            Ok(space) => Err(format!("no space for another key: {space}")),
            Err(_) => Err(format!("{} does not tell how much space there is", name(KEYS))),
        }
    }
}

fn identity_of(path: &Path) -> io::Result<FileId> {
    fs::metadata(path).map(|found| FileId::from(&found))
}

fn name(part: &str) -> String {
    if part.is_empty() { "the state directory".into() } else { format!("{part}/ of the state") }
}

fn reason(e: &io::Error) -> String {
    match e.kind() {
        io::ErrorKind::NotFound => "is not there".into(),
        _ => format!(
            "cannot be looked at: {}",
            nix::errno::Errno::from_raw(e.raw_os_error().unwrap_or(0)).desc()
        ),
    }
}
