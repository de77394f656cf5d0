//! Finds a state inside another state, which is what `mv NEW OLD` makes if OLD is still there.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::home::Homes;
use crate::layout::{IMPORTING, PARTS, TRASH};
use crate::remedy::quote_path;

/// Returns the directories directly below the state directory `root` that hold keys as a state does.
pub fn states(root: &Path) -> Result<Vec<PathBuf>> {
    let reading = Error::at("reading", root);
    let mut found = Vec::new();
    for entry in fs::read_dir(root).map_err(reading)? {
        let entry = entry.map_err(reading)?;
        let is_part = entry.file_name().to_str().is_some_and(is_part);
        let is_directory = entry.file_type().is_ok_and(|kind| kind.is_dir());
        if is_directory && !is_part && has_keys(&entry.path()) {
            found.push(entry.path());
        }
    }
    found.sort();
    Ok(found)
}

/// Fails if the state has no key of its own but a state inside it does: keys that exist would be made anew.
pub fn check(root: &Path) -> Result<()> {
    // This runs at every start, so it looks at the keys only if there is something to doubt.
    match &states(root)?[..] {
        [inner, ..] if !has_keys(root) => Err(Error::Settings(format!(
            "{} has no keys, but {} inside of it has: one directory was moved into the other, and nothing was \
             changed; put it in place with: {}",
            root.display(),
            inner.display(),
            put_in_place(root, inner)
        ))),
        _ => Ok(()),
    }
}

/// Returns the command that puts the state `inner` in the place of the one around it.
pub fn put_in_place(root: &Path, inner: &Path) -> String {
    let mut outer = root.as_os_str().to_owned();
    outer.push(".outer");
    let outer = PathBuf::from(outer);
    let moved = outer.join(inner.file_name().unwrap_or_default());
    let (root, outer, moved) = (quote_path(root), quote_path(&outer), quote_path(&moved));
    format!("mv -T {root} {outer} && mv -T {moved} {root}")
}

/// Returns the directories beside the state directory `root` that hold keys as a state does. Only names that
/// begin with the name of `root` count.
pub fn states_beside(root: &Path) -> Vec<PathBuf> {
    let (Some(parent), Some(name)) = (root.parent(), root.file_name()) else { return Vec::new() };
    // If the directory cannot be read, there is nothing to tell.
    let entries = fs::read_dir(parent).into_iter().flatten().flatten();
    let is_called_so = |path: &PathBuf| {
        let other = path.file_name().unwrap_or_default();
        other != name && other.as_bytes().starts_with(name.as_bytes())
    };
    let paths = entries.map(|entry| entry.path()).filter(is_called_so);
    let mut found: Vec<_> = paths.filter(|path| path.is_dir() && has_keys(path)).collect();
    found.sort();
    found
}

/// Returns the command that puts the state `aside` in the place of `root`. `root` has no keys and is kept
/// under another name.
pub fn exchange(root: &Path, aside: &Path) -> String {
    let mut empty = root.as_os_str().to_owned();
    empty.push(".empty");
    let (root, aside, empty) = (quote_path(root), quote_path(aside), quote_path(Path::new(&empty)));
    format!("mv -T {root} {empty} && mv -T {aside} {root}")
}

/// Whether a state has a directory of this name.
fn is_part(name: &str) -> bool {
    PARTS.contains(&name) || [TRASH, IMPORTING].contains(&name)
}

fn has_keys(root: &Path) -> bool {
    Homes::new(root).identities().is_ok_and(|mut names| names.next().is_some())
}
