//! Takes over the layout of the old service in the state directory itself, where its `gnupg/` and
//! `phrases/` stand where those of this state belong.
//!
//! Everything is made beside the old directories, in `importing/`: the old service signs meanwhile. When
//! every key has been proved, the new directories change places with the old ones, and the old ones go to
//! `trash/` as they were. Nothing of them is written or removed. Where `importing/` stands, an import has not
//! finished: no other mode makes keys, and the next import goes on.

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

/// Which directory holds the old keyring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// The state's own: the old service signs.
    Before,
    /// That in `importing/`: the new directories are in place.
    After,
    /// None.
    Nowhere,
}

impl OldLayout {
    /// The old layout in the state directory; `None` when there is none, and no import that has to be
    /// finished.
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

    /// Fails where the old directories, or parts of them, are somewhere else: they could not be set aside with
    /// what is in them.
    fn check_directories(&self) -> Result<()> {
        [GNUPG, PHRASES].iter().try_for_each(|part| elsewhere::check(&self.state.join(part)))
    }

    /// Where the directories of the old service are kept whose keys have been taken over.
    pub fn kept(state: &Path) -> Result<Vec<PathBuf>> {
        let entries = old_services(&state.join(TRASH))?;
        Ok(entries.into_iter().map(|(_, entry)| entry).collect())
    }

    /// Says what would be done. Changes nothing: what gpg writes goes to the directory `scratch`.
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
            // Nothing but the rest of an import.
            Stage::Nowhere => return Ok(ImportReport::default()),
        };
        store.import(&ImportSource::in_place(home, phrases)?, options, progress)
    }

    /// Takes the keys over and puts the new directories in place. [`Error::Partly`] in the report when a key
    /// that signed until now could not be taken over, unless `leave_out` is set: then nothing is put in
    /// place, and the old service goes on. Returns where the old directories are.
    pub fn import(
        &self,
        gpg: Gpg,
        options: ImportOptions,
        leave_out: bool,
        progress: &(dyn Fn(usize, usize) + Sync),
    ) -> Result<(ImportReport, Option<PathBuf>)> {
        let _work = interrupt::work();
        // Before a trace of an import is made, which only an import can finish.
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
            // Phrases first: an unprotected key signs with any of them.
            let [ours, theirs] = [&self.importing, &self.state].map(|at| at.join(PHRASES));
            if phrases == ours {
                swap(&ours, &theirs)?;
            }
            if let Err(error) = swap(&self.importing.join(GNUPG), &self.state.join(GNUPG)) {
                // Protected keys sign with their own phrases only.
                if holds_files(&ours)? {
                    swap(&ours, &theirs)?;
                }
                return Err(error);
            }
        }
        let store = Store::open_unfinished(&self.options, gpg.clone())?;
        if self.stage()? == Stage::After {
            let [home, phrases] = [GNUPG, PHRASES].map(|part| self.importing.join(part));
            // It has the old keys in its memory, and would go on looking where they were.
            gpg.end_agent(&home);
            let source = ImportSource::in_place(home, phrases)?;
            // What the old service made since its keyring was read.
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
        // Made by a gpg that was at work when the directory under it became a new one.
        let _ = remove_file(&self.state.join(GNUPG).join(TRUST_DATABASE));
        let kept = self.set_aside(&store)?;
        Ok((report, kept))
    }

    /// Makes homes of all keys and proves them.
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

    /// The directories of the old phrases and of the new ones before the new directories are in place. A killed
    /// import may have exchanged the two already.
    fn phrases(&self) -> Result<[PathBuf; 2]> {
        let [ours, theirs] = [&self.importing, &self.state].map(|at| at.join(PHRASES));
        Ok(if holds_files(&ours)? { [ours, theirs] } else { [theirs, ours] })
    }

    /// Makes `importing/`, in which the links of signd lead where they will lead.
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

    /// Finishes exchanges that were cut off on a file system that cannot exchange at once.
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
            // It was begun and nothing was there to be taken over; what is in it are links.
            remove_tree(&self.importing)?;
            durable::sync(&self.state)?;
            return Ok(None);
        }
        store.keep_old_service(&self.importing).map(Some)
    }
}

/// Whether there is anything but links in a directory; one that is missing holds nothing.
fn holds_files(directory: &Path) -> Result<bool> {
    for path in entries_if_there(directory)? {
        if look(&path)?.is_some_and(|found| !found.is_symlink()) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Whether a directory holds nothing that an import did not make: links, empty files, the configuration of
/// the agent.
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

/// Changes whenever a keyring is written.
fn version(keyring: &Path) -> Option<FileVersion> {
    fs::metadata(keyring).and_then(|found| FileVersion::of(&found)).ok()
}
