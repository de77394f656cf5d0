//! Takes over the layout of the old service in the state directory itself. There the old `gnupg/` and
//! `phrases/` stand in the place of the new ones.
//!
//! Everything is made in `importing/`, beside the old directories, while the old service goes on signing. Once
//! every key has been proved, the new directories are exchanged with the old ones, and the old ones move to
//! `trash/` unchanged. Nothing in them is written or removed. While `importing/` exists, an import has not
//! finished: no other mode makes keys, and the next import continues it.

mod prove;
mod switch;

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::{fs, io};

use gpg::Gpg;

use crate::error::{Error, Result};
use crate::files::durable;
use crate::files::lock::hold;
use crate::files::{
    FileVersion, entries, entries_if_there, is_there, look, remove_file, remove_tree,
};
use crate::keep::trash::old_services;
use crate::layout::{GNUPG, IMPORTING, KEYS, PHRASES, SECRET_KEY_LINKS, TRASH, TRUST_DATABASE};
use crate::options::Options;
use crate::state::directory::own_part;
use crate::state::{elsewhere, old_keyring};
use crate::transfer::import::one_key::ImportOptions;
use crate::transfer::import::source::ImportSource;
use crate::transfer::in_place::switch::{finish_swap, old_name, swap};
use crate::transfer::report::ImportReport;
use crate::view::signd_view::SigndView;
use crate::{Passphrases, Store, interrupt};

/// The layout of the old service in a state directory.
#[derive(Debug)]
pub struct OldLayout {
    options: Options,
    state: PathBuf,
    importing: PathBuf,
}

/// Which directory holds the old keyring, which tells how far the import has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// The state directory: the old service still signs.
    Before,
    /// The directory `importing/`: the new directories are in place.
    After,
    /// Neither of them.
    Nowhere,
}

impl OldLayout {
    /// Looks for the old layout in the state directory. Returns `None` if there is none, and no unfinished
    /// import either.
    pub fn find(options: Options) -> Result<Option<Self>> {
        let state = options.state_dir.clone();
        let importing = state.join(IMPORTING);
        let layout = Self { options, state, importing };
        let is_there = is_there(&layout.importing)? || layout.stage()? != Stage::Nowhere;
        if is_there {
            layout.check_directories()?;
        }
        Ok(is_there.then_some(layout))
    }

    /// Fails if the old directories, or parts of them, are links or mount points: they could not be set aside
    /// with their content.
    fn check_directories(&self) -> Result<()> {
        [GNUPG, PHRASES].iter().try_for_each(|part| elsewhere::check(&self.state.join(part)))
    }

    /// Returns the trash entries with the directories of old services whose keys have been taken over.
    pub fn kept(state: &Path) -> Result<Vec<PathBuf>> {
        let entries = old_services(&state.join(TRASH))?;
        Ok(entries.into_iter().map(|(_, entry)| entry).collect())
    }

    /// Reports what an import would do, and changes nothing. gpg writes to the directory `scratch` only.
    pub fn dry_run(
        &self,
        gpg: Gpg,
        scratch: &Path,
        options: ImportOptions,
        progress: &(dyn Fn(usize, usize) + Sync),
    ) -> Result<ImportReport> {
        let store = Store::with(&self.options, gpg, scratch, |signd| signd)?;
        let (home, phrases) = match self.stage()? {
            Stage::Before => (self.state.join(GNUPG), self.phrases()?[0].clone()),
            Stage::After => (self.importing.join(GNUPG), self.importing.join(PHRASES)),
            // Only the leftovers of an import are there.
            Stage::Nowhere => return Ok(ImportReport::default()),
        };
        store.import(&ImportSource::in_place(home, phrases)?, options, progress)
    }

    /// Imports the keys and puts the new directories in place. Returns the report, and where the old
    /// directories are now.
    ///
    /// If a key that signed until now cannot be taken over and `leave_out` is not set, nothing is put in place.
    /// The report then holds [`Error::Partly`], and the old service goes on signing.
    pub fn import(
        &self,
        gpg: Gpg,
        options: ImportOptions,
        leave_out: bool,
        progress: &(dyn Fn(usize, usize) + Sync),
    ) -> Result<(ImportReport, Option<PathBuf>)> {
        let _work = interrupt::work();
        // Check this before `importing/` is made: once it exists, only another import can finish or remove it.
        SigndView::of(&self.options, &Passphrases::new(&self.options)).check_phrases_are_ours()?;
        self.prepare()?;
        let importing = self.importing.display();
        let _held = hold(&self.importing, || {
            Error::Refused(format!("another import is at work in {importing}; wait for it"))
        })?;
        self.finish_renames()?;
        let mut report = ImportReport::default();
        let mut seen = None;
        if self.stage()? == Stage::Before {
            let [old_phrases, phrases] = self.phrases()?;
            let source = ImportSource::in_place(self.state.join(GNUPG), old_phrases)?;
            seen = source.pubring().and_then(version);
            let store =
                Store::beside_old(&self.options, gpg.clone(), &self.importing, phrases.clone())?;
            report = self.take_over(&store, &source, options, leave_out, progress)?;
            if report.stopped.is_some() {
                return Ok((report, None));
            }
            // Exchange the phrases first. The old secret keys are still in place, and one without a passphrase
            // signs with any phrase.
            let [ours, theirs] = [&self.importing, &self.state].map(|at| at.join(PHRASES));
            if phrases == ours {
                swap(&ours, &theirs)?;
            }
            if let Err(error) = swap(&self.importing.join(GNUPG), &self.state.join(GNUPG)) {
                // Put the old phrases back: protected secret keys sign with their own phrases only.
                if holds_files(&ours)? {
                    swap(&ours, &theirs)?;
                }
                return Err(error);
            }
        }
        let store = Store::open_unfinished(&self.options, gpg.clone())?;
        if self.stage()? == Stage::After {
            let [home, phrases] = [GNUPG, PHRASES].map(|part| self.importing.join(part));
            // The agent of the old home still has old keys in its memory, and would go on looking for keys at
            // its old path.
            gpg.end_agent(&home);
            let source = ImportSource::in_place(home, phrases)?;
            // Import also the keys that the old service made after its keyring was read.
            if seen.is_none() || source.pubring().and_then(version) != seen {
                let more = self.take_over(&store, &source, options, true, progress)?;
                report.add(more);
            }
            if report.stopped.is_some() {
                return Ok((report, None));
            }
        }
        store.provide_phrases(&|| {})?;
        store.tell_signd()?;
        // A gpg that was running during the exchange may have made a trust database in the new directory.
        let _ = remove_file(&self.state.join(GNUPG).join(TRUST_DATABASE));
        let kept = self.set_aside(&store)?;
        Ok((report, kept))
    }

    /// Imports all keys into homes and proves them.
    fn take_over(
        &self,
        store: &Store,
        source: &ImportSource,
        options: ImportOptions,
        leave_out: bool,
        progress: &(dyn Fn(usize, usize) + Sync),
    ) -> Result<ImportReport> {
        let mut report = store.import(source, options, progress)?;
        if report.stopped.is_some() {
            return Ok(report);
        }
        let moved: Vec<_> = report.imported.iter().chain(&report.already).cloned().collect();
        let doubts = store.prove(source, &moved, options.jobs, progress)?;
        for (key, doubt) in moved.into_iter().zip(doubts) {
            if let Some(why) = doubt {
                report.fail(&key, format!("it does not sign as the old key did: {why}"));
            }
        }
        store.provide_phrases(&|| {})?;
        let missed = report.missed().count() + report.unread.len();
        if missed > 0 && !leave_out {
            report.stopped = Some(Error::Partly(format!(
                "{missed} keys, or files with keys, cannot be taken over, see above, so the old service's \
                 keyring stays in place and goes on signing; mend them and run the same command again, or \
                 leave them behind with --leave-out"
            )));
        }
        Ok(report)
    }

    fn stage(&self) -> Result<Stage> {
        if old_keyring::find(&self.state.join(GNUPG))?.is_some() {
            return Ok(Stage::Before);
        }
        Ok(match old_keyring::find(&self.importing.join(GNUPG))? {
            Some(_) => Stage::After,
            None => Stage::Nowhere,
        })
    }

    /// Returns the directories of the old phrases and of the new ones, before `gnupg/` is exchanged. An import
    /// that was killed may have exchanged the two already.
    fn phrases(&self) -> Result<[PathBuf; 2]> {
        let [ours, theirs] = [&self.importing, &self.state].map(|at| at.join(PHRASES));
        Ok(if holds_files(&ours)? { [ours, theirs] } else { [theirs, ours] })
    }

    /// Makes `importing/`. It has a link to `keys/`, so the relative links for signd already lead where they
    /// will lead later.
    fn prepare(&self) -> Result<()> {
        own_part(&self.importing)?;
        for part in [GNUPG, SECRET_KEY_LINKS, PHRASES] {
            let path = self.importing.join(part);
            if !is_there(&path)? {
                own_part(&path)?;
            }
        }
        match symlink("../keys", self.importing.join(KEYS)) {
            Err(e) if e.kind() != io::ErrorKind::AlreadyExists => {
                Err(Error::at("linking below", &self.importing)(e))
            }
            _ => durable::sync(&self.state),
        }
    }

    /// Finishes interrupted exchanges on a file system without RENAME_EXCHANGE.
    fn finish_renames(&self) -> Result<()> {
        for part in [PHRASES, GNUPG] {
            let (fresh, target) = (self.importing.join(part), self.state.join(part));
            let old = old_name(&fresh);
            if is_there(&old)? {
                finish_swap(&fresh, &target, &old)?;
            }
        }
        Ok(())
    }

    /// Moves `importing/` with the old directories to the trash.
    fn set_aside(&self, store: &Store) -> Result<Option<PathBuf>> {
        remove_file(&self.importing.join(KEYS))?;
        if self.stage()? == Stage::Nowhere && is_ours_alone(&self.importing, 0)? {
            // The import was begun with nothing to take over, and the directory holds only what it made.
            remove_tree(&self.importing)?;
            durable::sync(&self.state)?;
            return Ok(None);
        }
        store.keep_old_service(&self.importing).map(Some)
    }
}

/// Whether a directory holds anything but links. A missing directory holds nothing.
fn holds_files(directory: &Path) -> Result<bool> {
    for path in entries_if_there(directory)? {
        if look(&path)?.is_some_and(|found| !found.is_symlink()) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Whether a directory holds only what an import makes: links, empty files, and the configuration of the agent.
fn is_ours_alone(directory: &Path, depth: usize) -> Result<bool> {
    for path in entries(directory)? {
        let is_ours = match look(&path)? {
            Some(found) if found.is_dir() => depth < 3 && is_ours_alone(&path, depth + 1)?,
            Some(found) if found.is_file() => found.len() == 0 || path.ends_with("gpg-agent.conf"),
            _ => true,
        };
        if !is_ours {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Returns the version of a keyring file, which changes whenever the keyring is written.
fn version(keyring: &Path) -> Option<FileVersion> {
    fs::metadata(keyring).and_then(|found| FileVersion::of(&found)).ok()
}
