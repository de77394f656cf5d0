//! The moment at which the new directories take the place of the old service's. Signatures that are being made
//! then may fail, as they do when signd is restarted; no state is left without a directory.

use std::path::{Path, PathBuf};
use std::{fs, io};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};

use crate::error::{Error, Result};
use crate::files::durable;
use crate::state::elsewhere;

/// Lets two directories change places, durably. `target` need not exist.
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
                // It was mounted a moment ago.
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

/// The steps of an exchange after the old directory was moved to `old`. Each may have been done.
pub fn finish_swap(fresh: &Path, target: &Path, old: &Path) -> Result<()> {
    let failed = |e| Error::io(format!("putting {} in place", target.display()), e);
    if fs::symlink_metadata(target).is_err() {
        durable::rename(fresh, target).map_err(failed)?;
    }
    // Another process made one in its place meanwhile. It holds links, which are made again.
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
        // What is there when it goes on: the old directory in its place, aside, or aside and another one made.
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
