//! Removed keys. Each lies in `trash/<time>-<name_email>/home`, with the revoked certificate beside it, until
//! it is purged. A home enters and leaves the trash by one `rename`, so a key is always in exactly one place.

use std::fs;
use std::path::{Path, PathBuf};

use gpg::{Fingerprint, Protection, clock};

use crate::error::{Error, Result};
use crate::files::durable::{self, write_new};
use crate::files::lock::{hold_key, lock};
use crate::files::{entries_if_there, is_there, make_directory, remove_file, remove_tree};
use crate::home::finishing;
use crate::home::home_files::HomeFiles;
use crate::home::record::{KeyRecord, secret_keys};
use crate::identity::NameEmail;
use crate::layout::{OLD_SERVICE, TRASH_HOME as HOME};
use crate::remedy::quote_path;
use crate::state::directory::own_part;
use crate::state::elsewhere;
use crate::view::publish::Publication;
use crate::{Store, interrupt};

/// The name of the revoked certificate in an entry.
const REVOKED: &str = "revoked.asc";
/// The name prefix of an entry that is being destroyed.
const PURGING: &str = ".purging-";

/// A removed key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Removed {
    /// The identity that owned the key.
    pub name_email: NameEmail,
    /// The Unix time of the removal.
    pub at: u64,
    /// The directory of the key in the trash.
    pub entry: PathBuf,
}

impl Removed {
    /// The path of the revoked certificate.
    pub fn revoked_certificate(&self) -> PathBuf {
        self.entry.join(REVOKED)
    }

    fn home(&self) -> PathBuf {
        self.entry.join(HOME)
    }

    /// Parses the name of an entry. Returns `None` if it is not the entry of a key.
    fn parse(entry: PathBuf) -> Option<Self> {
        let (time, name) = entry.file_name()?.to_str()?.split_once('-')?;
        let (at, name_email) = (clock::parse_iso_basic(time)?, NameEmail::parse(name).ok()?);
        Some(Self { name_email, at, entry })
    }
}

impl Store {
    /// Moves a key to the trash: first the links for obs-signd are removed, then the home leaves `keys/`.
    ///
    /// Fails with [`Error::InUse`] if another process works on the key.
    pub fn remove(&self, name_email: &NameEmail) -> Result<Removed> {
        self.take_out(name_email, |fingerprint| self.agree_on_removal(name_email, fingerprint))
    }

    /// Like [`Store::remove`], but calls `agree` for consent before anything is changed.
    pub(crate) fn take_out(
        &self,
        name_email: &NameEmail,
        agree: impl FnOnce(&Fingerprint) -> Result<()>,
    ) -> Result<Removed> {
        // The trash is sorted by time, so a wrong clock would mislead a later `purge` or `undo`.
        clock::believed()?;
        let no_key = || Error::NoKey(name_email.clone());
        self.homes.find(name_email)?.ok_or_else(no_key)?;
        let home = self.homes.path(name_email);
        let _held = hold_key(&home, name_email)?;
        let record = self.homes.find(name_email)?.ok_or_else(no_key)?;
        let staged = self.staging.create()?;
        let revoked = self.revoked_certificate(&staged, name_email, &record)?;

        interrupt::check(|| format!("the key of {name_email} was not removed"))?;

        let entry = staged.scratch().join("entry");
        make_directory(&entry)?;
        write_new(&entry.join(REVOKED), &revoked)?;
        durable::sync_tree(&entry)?;
        // Hold the entry until the home is in it. Otherwise a concurrent purge would remove it as an entry
        // without a home.
        let _entry_held = hold_key(&entry, name_email)?;
        let _apart = self.hold_apart(name_email)?;
        agree(&record.fingerprint)?;
        let removed = self.enter(&entry, name_email)?;

        let moved = self.signd.remove(name_email, &record.keygrip, &removed.entry).and_then(|()| {
            let moving = |e| Error::io(format!("moving {} to the trash", home.display()), e);
            durable::rename(&home, &removed.home()).map_err(moving)
        });
        if let Err(e) = moved {
            for undone in [self.relink(name_email).map(drop), remove_hollow(&removed.entry)] {
                undone.unwrap_or_else(|e| log::warn!("{e}"));
            }
            return Err(e);
        }
        durable::sync(&removed.entry)?;
        durable::sync(self.homes.directory())?;
        // A request that found the key before it left may have made its links again.
        self.unlink(name_email, &record.keygrip)?;
        self.signd.mark_changed(staged.scratch());
        Ok(removed)
    }

    /// Renames the entry of a key into the trash.
    fn enter(&self, entry: &Path, name_email: &NameEmail) -> Result<Removed> {
        let (at, entry) = self.put_into_trash(entry, name_email.as_str())?;
        Ok(Removed { name_email: name_email.clone(), at, entry })
    }

    /// Moves the directories of the old service to the trash, unchanged, where they stay until they are purged.
    pub(crate) fn keep_old_service(&self, directory: &Path) -> Result<PathBuf> {
        self.put_into_trash(directory, OLD_SERVICE).map(|(_, entry)| entry)
    }

    /// Renames a directory into the trash. The name begins with the current time or, if that name is taken,
    /// with the next free second.
    fn put_into_trash(&self, entry: &Path, name: &str) -> Result<(u64, PathBuf)> {
        own_part(&self.trash)?;
        durable::sync_parent(&self.trash)?;
        let mut at = clock::now()?;
        loop {
            let target = self.trash.join(format!("{}-{name}", clock::iso_basic(at)));
            // rename(2) replaces an empty directory, but an entry is never empty.
            match durable::rename(entry, &target) {
                Ok(()) => {
                    durable::sync(&self.trash)?;
                    return Ok((at, target));
                }
                Err(e) if durable::is_taken(&e) => at += 1,
                Err(e) => return Err(Error::at("making", &target)(e)),
            }
        }
    }

    /// Returns the entries of the old service in the trash, each with the Unix time at which it got there.
    pub fn old_services(&self) -> Result<Vec<(u64, PathBuf)>> {
        old_services(&self.trash)
    }

    /// Destroys an entry of the old service. Fails with [`Error::Partly`] if symbolic links in it lead to files
    /// elsewhere, which are not destroyed.
    pub fn purge_old_service(&self, entry: &Path) -> Result<()> {
        let state = self.trash.parent().unwrap_or(&self.trash);
        let mut left = Vec::new();
        for link in elsewhere::links_out(entry, |_| Ok(()))? {
            let to = fs::read_link(&link).map_err(Error::at("reading", &link))?;
            // A relative link counts from the directory where the old service had it, not from the trash.
            let below = link.strip_prefix(entry).ok().filter(|_| link != entry);
            let stood = below.map_or(link.clone(), |below| state.join(below));
            left.push(stood.with_file_name("").join(to).display().to_string());
        }
        self.destroy(entry, entry)?;
        if left.is_empty() {
            return Ok(());
        }
        Err(Error::Partly(format!(
            "{} is destroyed, but not what symbolic links in it led to, which may be secret keys; look there, \
             and destroy them yourself: {}",
            entry.display(),
            left.join(", ")
        )))
    }

    /// Returns all keys in the trash, sorted by the time of removal, oldest first.
    pub fn removed(&self) -> Result<Vec<Removed>> {
        let mut removed = Vec::new();
        for one in entries_if_there(&self.trash)?.into_iter().filter_map(Removed::parse) {
            if is_there(&one.home())? {
                removed.push(one);
            }
        }
        removed.sort_by(|a, b| (a.at, &a.name_email).cmp(&(b.at, &b.name_email)));
        Ok(removed)
    }

    /// Brings back the most recently removed key of an identity. The key is tried before it is published.
    pub fn undo(&self, name_email: &NameEmail) -> Result<KeyRecord> {
        let removed = self.removed()?;
        let Some(last) = removed.iter().rfind(|removed| removed.name_email == *name_email) else {
            return Err(Error::Refused(not_in_trash(name_email, &removed)));
        };
        self.check_no_key(name_email)?;
        let _held = hold_key(&last.entry, name_email)?;
        let from = last.home();
        let Some(files) = HomeFiles::read(&from)? else {
            return Err(Error::InUse(name_email.clone()));
        };
        let staged = self.staging.create()?;
        let (record, _) = self.assemble(staged.path(), name_email, &files)?;
        interrupt::check(|| format!("the key of {name_email} is in the trash still"))?;
        // What somebody else has put into the home stays in the entry.
        finishing::set_leftovers_aside(&from, &last.entry)?;
        let is_unprotected = files.protection() == Some(Protection::None);
        let published = if is_unprotected {
            // Publish the copy in staging, whose secret key is protected now. The home in the trash stays until
            // the copy is published.
            self.publish(staged, name_email, &record.keygrip)?
        } else {
            // Publish the home straight from the trash. It never passes through staging, where it could be
            // deleted.
            self.passphrases.renew(&from, &record.keygrip, staged.scratch())?;
            self.publish_from(&from, &staged, name_email, &record.keygrip)?
        };
        if published == Publication::Lost {
            let present = self.homes.find(name_email)?;
            // The other hosts may have agreed already. Then `copr-keygen follow` on this host may have
            // published the key first.
            if present.is_none_or(|present| present.fingerprint != record.fingerprint) {
                self.check_no_key(name_email)?;
                return Err(Error::InUse(name_email.clone()));
            }
        }
        self.relink(name_email)?;
        if is_unprotected || published == Publication::Lost {
            remove_tree(&from)?;
        }
        self.leave(&last.entry);
        Ok(record)
    }

    fn check_no_key(&self, name_email: &NameEmail) -> Result<()> {
        match self.homes.find(name_email)? {
            None => Ok(()),
            Some(present) => Err(Error::Refused(format!(
                "{name_email} has a key: {}; to bring back the one in the trash, `copr-keygen remove` \
                 this one, move the entry of this one from {} to a safe place, and undo again",
                present.fingerprint,
                self.trash.display()
            ))),
        }
    }

    /// Destroys a removed key for good. Files that stood in place of its links were set aside in the same
    /// entry. They stay, because the operator was not asked about them.
    pub fn purge(&self, removed: &Removed) -> Result<()> {
        let _held = hold_key(&removed.entry, &removed.name_email)?;
        // A removal that was killed may have left the link. Without the key, it would look like that of a lost one.
        for keygrip in secret_keys(&removed.home()).unwrap_or_default() {
            self.signd.remove_dangling_secret_key(&keygrip);
        }
        self.destroy(&removed.home(), &removed.entry)?;
        self.leave(&removed.entry);
        Ok(())
    }

    /// Removes an entry whose home has left it, unless the entry holds anything else.
    fn leave(&self, entry: &Path) {
        if let Err(e) = remove_hollow(entry).and_then(|()| durable::sync(&self.trash)) {
            log::warn!("{e}; there may be something in it that is worth to be kept");
        }
    }

    /// Destroys `what`, which is the entry or the home in it. It first gets a new name, by which a later purge
    /// recognises it and can finish an interrupted removal.
    fn destroy(&self, what: &Path, entry: &Path) -> Result<()> {
        let name = entry.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let doomed = self.trash.join(format!("{PURGING}{name}"));
        durable::rename(what, &doomed).map_err(Error::at("purging", entry))?;
        durable::sync(&self.trash)?;
        remove_tree(&doomed)?;
        durable::sync(&self.trash)
    }

    /// Finishes removals, undos and purges that were interrupted. Returns the number of interrupted purges that
    /// it finished.
    pub fn finish_purges(&self) -> Result<usize> {
        let mut count = 0;
        for entry in entries_if_there(&self.trash)? {
            let name = entry.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if name.starts_with(PURGING) {
                match remove_tree(&entry) {
                    Ok(()) => count += 1,
                    // One failure must not keep other keys from being purged.
                    Err(e) => log::warn!(
                        "{e}; look at it and remove it by hand: rm -r {}",
                        quote_path(&entry)
                    ),
                }
            } else if Removed::parse(entry.clone()).is_some() && !is_there(&entry.join(HOME))? {
                // The entry has no home yet, or no longer. A process that works on it holds its lock.
                if let Ok(Some(_held)) = lock(&entry) {
                    if !is_there(&entry.join(HOME))? {
                        remove_hollow(&entry).unwrap_or_else(|e| log::warn!("{e}"));
                    }
                }
            }
        }
        Ok(count)
    }
}

/// Returns the entries of the old service in `trash`; see [`Store::old_services`].
pub fn old_services(trash: &Path) -> Result<Vec<(u64, PathBuf)>> {
    let read = |entry: PathBuf| {
        let (time, name) = entry.file_name()?.to_str()?.split_once('-')?;
        (name == OLD_SERVICE).then_some((clock::parse_iso_basic(time)?, entry))
    };
    Ok(entries_if_there(trash)?.into_iter().filter_map(read).collect())
}

/// Removes an entry that has no home. Fails, and leaves the rest, if the entry holds anything but the revoked
/// certificate.
fn remove_hollow(entry: &Path) -> Result<()> {
    remove_file(&entry.join(REVOKED))?;
    fs::remove_dir(entry).map_err(Error::at("removing", entry))
}

/// How many removed keys an error message lists at most.
const NAMED_MAX: usize = 20;

fn not_in_trash(name_email: &NameEmail, removed: &[Removed]) -> String {
    if removed.is_empty() {
        return format!("there is no removed key of {name_email}; the trash is empty");
    }
    let name =
        |removed: &Removed| format!("{} ({})", removed.name_email, clock::timestamp(removed.at));
    let names: Vec<_> = removed.iter().rev().take(NAMED_MAX).map(name).collect();
    let more = match removed.len().saturating_sub(NAMED_MAX) {
        0 => String::new(),
        count => format!(" and {count} more"),
    };
    format!("there is no removed key of {name_email}; in the trash are: {}{more}", names.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_read_by_their_names() {
        let parse = |name: &str| Removed::parse(Path::new("/trash").join(name));
        let found = parse("20231114T221320-a-b#c@d-e");
        assert_eq!(
            found.map(|found| (found.name_email.to_string(), found.at)),
            Some(("a-b#c@d-e".into(), 1_700_000_000))
        );
        for bad in
            ["", "20231114T221320", "20231114T221320-", "x-a#b@c", ".purging-20231114T221320-a#b@c"]
        {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }
}
