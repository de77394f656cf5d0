//! Exchanges the directories of the old service with the new ones. Signatures that are being made at that
//! moment may fail, as they do when signd is restarted. Where the file system cannot exchange directories in
//! one step, one is missing for a moment. If the import is killed then, the next one finishes the exchange.

use std::path::{Path, PathBuf};
use std::{fs, io};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};

use crate::error::{Error, Result};
use crate::files::durable;
use crate::state::elsewhere;

/// Exchanges two directories, durably. `target` need not exist.
pub fn swap(fresh: &Path, target: &Path) -> Result<()> {
    let failed = |e: io::Error| {
        let hint = match e.raw_os_error() {
            Some(libc::EXDEV) => {
                " (the state directory must be on one file system that can rename directories; on an \
                 overlay, copy it: cp -a STATE STATE.copy, then mv both)"
            }
            _ => "",
        };
        Error::io(format!("putting {} in place{hint}", target.display()), e)
    };
    if !target.exists() {
        durable::rename(fresh, target).map_err(failed)?;
    } else {
        match renameat2(AT_FDCWD, fresh, AT_FDCWD, target, RenameFlags::RENAME_EXCHANGE) {
            Ok(()) => {}
            Err(Errno::EINVAL | Errno::ENOSYS | Errno::EOPNOTSUPP) => {
                let old = old_name(fresh);
                durable::rename(target, &old).map_err(failed)?;
                finish_swap(fresh, target, &old)?;
            }
            Err(errno) => {
                // The old directory may have become a mount point since it was checked.
                elsewhere::check_mount(target)?;
                return Err(failed(errno.into()));
            }
        }
    }
    for directory in [fresh, target].into_iter().filter_map(Path::parent) {
        durable::sync(directory)?;
    }
    Ok(())
}

/// Carries out the steps of an exchange that follow after the old directory was moved to `old`. Any of them may
/// have been done already.
pub fn finish_swap(fresh: &Path, target: &Path, old: &Path) -> Result<()> {
    let failed = |e| Error::io(format!("putting {} in place", target.display()), e);
    if fs::symlink_metadata(target).is_err() {
        durable::rename(fresh, target).map_err(failed)?;
    }
    // Another process has made a directory at `target` in the meantime. It holds only links, which are made
    // again.
    if fs::symlink_metadata(fresh).is_ok() {
        let unused = fresh.with_extension(format!("unused-{:08x}", rand::random::<u32>()));
        durable::rename(fresh, &unused).map_err(failed)?;
    }
    durable::rename(old, fresh).map_err(failed)
}

pub fn old_name(fresh: &Path) -> PathBuf {
    fresh.with_extension("old")
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn directories_change_places_wherever_the_change_was_cut_off() {
        let scratch = crate::scratch::scratch();
        let root = scratch.path();
        let (fresh, target) = (root.join("importing/gnupg"), root.join("gnupg"));
        let old = old_name(&fresh);
        // The directories that exist when the exchange goes on. The old one is in place or set aside. If it is
        // set aside, another process may have made a new one.
        for there in
            [&[&target, &fresh][..], &[&old, &fresh], &[&old, &target], &[&old, &fresh, &target]]
        {
            for directory in [&fresh, &target, &old] {
                let _ = fs::remove_dir_all(directory);
            }
            for directory in there {
                fs::create_dir_all(directory).unwrap();
                fs::write(
                    directory.join("name"),
                    directory.file_name().unwrap().as_encoded_bytes(),
                )
                .unwrap();
            }
            let precious = if there.contains(&&old) { &old } else { &target };
            fs::write(precious.join("precious"), "").unwrap();
            match there.contains(&&old) {
                true => finish_swap(&fresh, &target, &old).unwrap(),
                false => swap(&fresh, &target).unwrap(),
            }
            assert!(fresh.join("precious").exists(), "{there:?}");
            assert!(target.is_dir() && !target.join("precious").exists(), "{there:?}");
        }
    }
}
