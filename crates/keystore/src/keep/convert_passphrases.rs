//! Seals or unseals every passphrase of a state in place, while all other work goes on. Each new passphrase
//! file is read back and compared, and then replaces the old one by one rename. The conversion can be killed at
//! any time and run again.

use std::fs::{self, File, FileTimes};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use gpg::text;

use crate::Store;
use crate::error::{Error, Result};
use crate::files::durable::{replace, write_new};
use crate::files::lock::{hold, lock};
use crate::files::{is_there, look, remove_file};
use crate::home::staging::StagedHome;
use crate::home::staging::clear::StagingWork;
use crate::keep::passphrase_locations::{self, PassphraseLocation, keygrip};
use crate::keep::plaintext_copies;
use crate::layout::PASSPHRASE;
use crate::parallel;
use crate::remedy;
use crate::secrets::passphrase::{self, Form};
use crate::secrets::sealing_key::CREDENTIAL;
use crate::secrets::sealing_marker::{Marker, Sealing, no_key};

/// How long to wait for keys that are being made, or that other processes have locked. It is longer than such
/// work ever takes.
const WAIT_MAX: Duration = Duration::from_secs(900);
/// The interval between two looks at such keys.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// The result of sealing or unsealing, or of a dry run.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Conversion {
    /// The number of passphrases in the state, including those of keys in the pool and in the trash.
    pub passphrases: usize,
    /// The number of passphrases that got the new form, or would get it.
    pub converted: usize,
    /// The number of passphrases that could not be converted. Each failure has been logged, and so has the
    /// number of homes that stayed locked by another process.
    pub failed: usize,
    /// The number of cleartext passphrases that were found elsewhere in the state. Each has been logged.
    #[serde(rename = "strays")]
    pub copies: usize,
    /// Whether the caller stopped the conversion early.
    pub stopped: bool,
}

/// The callbacks through which a conversion talks to its caller.
pub struct Talk<'a> {
    /// Called with the number of passphrases done and the total.
    pub progress: &'a (dyn Fn(usize, usize) + Sync),
    /// Returns whether the conversion must stop.
    pub stop: &'a (dyn Fn() -> bool + Sync),
}

/// The outcome for one passphrase.
#[derive(Clone, Copy, PartialEq, Eq)]
enum PassphraseFate {
    Converted,
    Right,
    Failed,
    Busy,
    /// There is no passphrase, or it has gone since.
    None,
}

impl Store {
    /// Counts the passphrases that [`Store::convert`] would convert.
    pub fn count_passphrases(&self, to: Form) -> Result<Conversion> {
        let mut report = Conversion::default();
        for location in self.locations()? {
            let Some(form) = location.form()? else { continue };
            report.passphrases += 1;
            report.converted += usize::from(form != to);
        }
        Ok(report)
    }

    /// Gives every passphrase the form `to`, including those that are made in the meantime. A passphrase that
    /// fails is logged and counted.
    ///
    /// The call itself fails if a setting is wrong, the disk is full, a directory or the marker cannot be
    /// accessed, or other work does not end in time. It can then be repeated.
    pub fn convert(&self, to: Form, jobs: usize, talk: &Talk) -> Result<Conversion> {
        let keys = self.homes.directory();
        let in_use = || Error::busy("another process seals or unseals this state");
        let _only = hold(keys, in_use)?;
        self.passphrases.verify()?;
        let marker = self.passphrases.marker()?;
        let key = self.passphrases.key().ok_or_else(|| no_key("nothing"))?;
        if marker.is_none() {
            self.check_sealed_open()?;
        }
        match (to, &marker) {
            (Form::Clear, None) => {}
            (Form::Sealed, Some(found)) if found.state == Sealing::Sealed => {}
            (Form::Clear, Some(_)) => self.mark(&Marker::new(Sealing::Unsealing, key)?)?,
            (Form::Sealed, _) => self.mark(&Marker::new(Sealing::Sealing, key)?)?,
        }
        // A process that asked for the form before the marker was written may still write the old form.
        if !self.wait_for_work(talk)? {
            return Ok(Conversion { stopped: true, ..Conversion::default() });
        }
        let mut report = self.convert_all(to, jobs, talk)?;
        if to == Form::Sealed && !report.stopped {
            report.copies = self.name_copies()?;
        }
        if report.failed + report.copies == 0 && !report.stopped {
            match to {
                Form::Sealed => self.mark(&Marker::new(Sealing::Sealed, key)?)?,
                Form::Clear if self.passphrases.marker()?.is_some() => {
                    Marker::remove(&self.passphrases.marker_path())?;
                }
                Form::Clear => {}
            }
        }
        Ok(report)
    }

    /// Fails unless every sealed passphrase opens with the key of this process. Called when there is no marker:
    /// a marker that names another key would lock these passphrases up.
    fn check_sealed_open(&self) -> Result<()> {
        for location in self.locations()? {
            if location.form()? != Some(Form::Sealed) {
                continue;
            }
            let home = location.home;
            let Some(keygrip) = keygrip(&home)? else { continue };
            match self.passphrases.read(&home, &keygrip) {
                Err(e) if is_there(&home)? => {
                    return Err(Error::Settings(format!(
                        "{e}; sealing.json, which says whose key it was, is missing; nothing was \
                         changed; give the {CREDENTIAL} that it was sealed with (docs/sealing.md)"
                    )));
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn mark(&self, marker: &Marker) -> Result<()> {
        marker.write(&self.passphrases.marker_path(), self.staging.create()?.scratch())
    }

    /// Waits until all work in `staging/` that is in progress now has ended. Returns `false` if the caller
    /// stopped it.
    fn wait_for_work(&self, talk: &Talk) -> Result<bool> {
        let began = Instant::now();
        let works = |wanted: StagingWork| -> Result<Vec<PathBuf>> {
            let all = self.staging.survey()?.into_iter();
            Ok(all.filter(|(_, work)| *work == wanted).map(|(path, _)| path).collect())
        };
        if !works(StagingWork::Foreign)?.is_empty() {
            log::warn!(
                "staging/ holds work of other hosts; run this again when they have finished it"
            );
        }
        let mut before = works(StagingWork::Alive)?;
        while !before.is_empty() {
            if (talk.stop)() {
                return Ok(false);
            }
            if began.elapsed() > WAIT_MAX {
                let keys = text::keys(before.len());
                return Err(Error::busy(format!("{keys} in the making, not finished")));
            }
            std::thread::sleep(LOOK_AGAIN);
            let now = works(StagingWork::Alive)?;
            before.retain(|path| now.contains(path));
        }
        Ok(true)
    }

    /// Repeats rounds until one finds nothing to convert. One round is not enough, because homes move from the
    /// pool to `keys/`, and from there to the trash and back.
    fn convert_all(&self, to: Form, jobs: usize, talk: &Talk) -> Result<Conversion> {
        let began = Instant::now();
        let mut converted = 0;
        loop {
            let fates = self.convert_round(to, jobs, talk)?;
            let count =
                |wanted: PassphraseFate| fates.iter().filter(|fate| **fate == wanted).count();
            converted += count(PassphraseFate::Converted);
            let busy = count(PassphraseFate::Busy);
            let stopped = (talk.stop)();
            let waits = busy > 0 && began.elapsed() < WAIT_MAX;
            if stopped || (!waits && (count(PassphraseFate::Converted) == 0 || busy > 0)) {
                if busy > 0 {
                    log::error!("{}: locked by other processes", text::keys(busy));
                }
                return Ok(Conversion {
                    passphrases: fates.len() - count(PassphraseFate::None),
                    converted,
                    failed: count(PassphraseFate::Failed) + busy,
                    copies: 0,
                    stopped,
                });
            }
            if waits {
                std::thread::sleep(LOOK_AGAIN);
            }
        }
    }

    fn convert_round(&self, to: Form, jobs: usize, talk: &Talk) -> Result<Vec<PassphraseFate>> {
        let locations = self.locations()?;
        let queue = parallel::WorkQueue::new(&locations);
        let (fates, fatal) = (Mutex::new(Vec::with_capacity(locations.len())), Mutex::new(None));
        let work = || -> Result<()> {
            let staged = self.staging.create()?;
            while !(talk.stop)() {
                let Some(location) = queue.take() else { break };
                let fate = match self.convert_one(location, to, &staged) {
                    Ok(fate) => fate,
                    Err(e @ (Error::Gpg(gpg::Error::NoSpace { .. }) | Error::Settings(_))) => {
                        return Err(e);
                    }
                    Err(e) => {
                        log::error!("{e}");
                        PassphraseFate::Failed
                    }
                };
                let mut fates = parallel::lock(&fates);
                fates.push(fate);
                (talk.progress)(fates.len(), locations.len());
            }
            Ok(())
        };
        parallel::on_threads(jobs.min(locations.len()), || {
            if let Err(e) = work() {
                queue.stop();
                parallel::lock(&fatal).get_or_insert(e);
            }
        });
        match parallel::into_inner(fatal) {
            Some(e) => Err(e),
            None => Ok(parallel::into_inner(fates)),
        }
    }

    fn convert_one(
        &self,
        location: &PassphraseLocation,
        to: Form,
        staged: &StagedHome,
    ) -> Result<PassphraseFate> {
        let PassphraseLocation { home, lock: held } = location;
        let form = match passphrase::form_in(home) {
            Ok(form) => form,
            Err(Error::Gpg(gpg::Error::DamagedHome { path, reason }))
                if home.is_dir() && !may_hold_one(&home.join(PASSPHRASE))? =>
            {
                log::warn!("{}: {reason}; there is nothing in it to be converted", path.display());
                return Ok(PassphraseFate::None);
            }
            Err(e) => return gone_or(home, e),
        };
        if form == to {
            let Some(keygrip) = keygrip(home)? else { return Ok(PassphraseFate::Right) };
            return match self.passphrases.read(home, &keygrip) {
                Ok(_) => Ok(PassphraseFate::Right),
                Err(e) => gone_or(home, e),
            };
        }
        let _held = match held.as_deref().map(lock) {
            None => None,
            Some(Ok(Some(held))) => Some(held),
            Some(Ok(None)) if is_there(home)? => return Ok(PassphraseFate::Busy),
            Some(Ok(None)) => return Ok(PassphraseFate::None),
            Some(Err(e)) => return Err(Error::at("locking", home)(e)),
        };
        match self.replace_passphrase(home, to, staged) {
            Ok(()) => Ok(PassphraseFate::Converted),
            // If the home is gone, it was claimed from the pool. The process that claimed it gives the
            // passphrase its new form.
            Err(e) => gone_or(home, e),
        }
    }

    fn replace_passphrase(&self, home: &Path, to: Form, staged: &StagedHome) -> Result<()> {
        let path = home.join(PASSPHRASE);
        let keygrip =
            keygrip(home)?.ok_or_else(|| Error::damaged(home, "holds no single secret key"))?;
        let failed = Error::at("writing", &path);
        let modified = fs::symlink_metadata(&path).and_then(|found| found.modified());
        let phrase = self.passphrases.read(home, &keygrip)?;
        let content = self.passphrases.content(to, &keygrip, &phrase)?;
        let fresh = staged.path().join(PASSPHRASE);
        remove_file(&fresh)?;
        write_new(&fresh, &content)?;
        // The passphrase itself stays the same. A copy of it, as in `phrases_dir`, is recognised as current by
        // the modification time of this file, so that time must stay too.
        let times = FileTimes::new().set_modified(modified.map_err(failed)?);
        File::open(&fresh).and_then(|file| file.set_times(times)).map_err(failed)?;
        if *self.passphrases.read(staged.path(), &keygrip)? != *phrase {
            return Err(Error::damaged(
                home,
                "its passphrase was not the same when it was read back",
            ));
        }
        replace(&fresh, &path)
    }

    /// Logs and counts the cleartext passphrases that lie where a conversion does not find them.
    fn name_copies(&self) -> Result<usize> {
        let mut count = 0;
        for path in self.plaintext_copies()? {
            log::error!(
                "{}: holds the passphrase of a key in the clear; if it is a copy that nobody needs, run: {}; \
                 else move it out of the state",
                path.display(),
                remedy::destroy_copy(&path)
            );
            count += 1;
        }
        for (path, work) in self.staging.survey()? {
            if work == StagingWork::Foreign && self.staging.form_in(&path) == Some(Form::Clear) {
                log::error!(
                    "{}: a key that another host is making, with its passphrase in the clear; wait until \
                     that has finished, or remove it if that host is no more",
                    path.display()
                );
                count += 1;
            }
        }
        Ok(count)
    }

    /// Returns the paths of stray cleartext copies of passphrases in the state. A copy of a passphrase that
    /// cannot be opened is not recognised.
    pub(crate) fn plaintext_copies(&self) -> Result<Vec<PathBuf>> {
        plaintext_copies::find(self.passphrases.root(), &self.locations()?, &self.passphrases)
    }

    /// Returns every home with a passphrase.
    fn locations(&self) -> Result<Vec<PassphraseLocation>> {
        passphrase_locations::all(&self.homes, self.pool.directory(), &self.trash)
    }
}

/// Whether a passphrase that cannot be read is at `path`, or behind it.
fn may_hold_one(path: &Path) -> Result<bool> {
    Ok(look(path)?.is_some_and(|found| !found.is_file() || found.len() > 0))
}

/// Returns `error` if the home still exists. A failure is of no concern if the home is gone.
fn gone_or(home: &Path, error: Error) -> Result<PassphraseFate> {
    if is_there(home)? { Err(error) } else { Ok(PassphraseFate::None) }
}
