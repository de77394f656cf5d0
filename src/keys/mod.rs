//! The store: one identity, one GnuPG home below `keys/`, which is written by `rename` only.
//! Everything in `gnupg/` and `phrases/` is derived from it and repaired on sight.

mod agent;
pub(crate) mod archive;
mod assemble;
mod catalog;
mod directory;
mod durable;
mod evidence;
mod examine;
mod export;
mod home;
mod import;
mod inspector;
mod links;
mod lock;
mod looks;
mod make;
pub mod nested;
mod old_keyring;
mod on_disk;
mod opened;
mod owners;
mod passphrase;
mod phrases;
mod pool;
mod prolong;
mod record;
mod relink;
mod revoke;
mod sealing;
mod signd;
mod slot;
mod space;
mod staging;
mod trash;
mod turns;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::clock;
use crate::error::{Error, Result};
use crate::gpg::{Gpg, Keygrip};
use crate::identity::NameEmail;
use crate::remedy;
use crate::settings::{Settings, Value};

pub use agent::{Agent, AgentHome, Configuration};
pub use archive::{Archived, Restored, Summary};
pub use catalog::{Catalog, Filter, Key};
pub use directory::{
    check_outside, check_root, check_user, is_volume, nobodys, owner_of, volume_group,
};
pub use durable::{rename, rename_by};
pub use evidence::Evidence;
pub use examine::{DIRECTORY_MODE, Fault, Home, TRUST_DATABASE, judge};
pub use export::{ExportReport, Unexported};
pub use home::Homes;
pub use import::{
    IMPORTING, ImportOptions, ImportReport, Keyless, LeftOut, Moved, OldLayout, Phrases, Shadowed,
    Source, Unread, way_out,
};
pub use inspector::{Inspector, check_path_length};
pub use links::{LinkFault, OddLink};
pub use make::Outcome;
pub use old_keyring::find as old_keyring;
pub use owners::{Owner, PARTS, Stranger, give_back, make_part, set_mode};
pub use passphrase::{Form, Passphrases, needs_directory as needs_phrases_dir};
pub use pool::Stock;
pub use prolong::{Prolonged, Term};
pub use record::KeyRecord;
pub use relink::Provided;
pub use sealing::{CREDENTIAL, Conversion, Marker, Sealing, SealingKey, Talk};
pub use space::Space;
pub use staging::Work;
pub use trash::Removed;

use looks::Looks;
use on_disk::OnDisk;
use opened::Opened;
use phrases::PhraseFiles;
use pool::Pool;
use signd::SigndView;
use staging::{Publication, StagedHome, Staging};
use turns::{Permits, Turns};

/// The keys of this sign host and all it takes to make another one.
#[derive(Debug)]
pub struct Store {
    catalog: Catalog,
    looks: Arc<Looks>,
    homes: Homes,
    signd: SigndView,
    on_disk: OnDisk,
    passphrases: Passphrases,
    staging: Staging,
    pool: Pool,
    /// `trash/`, made when the first key is removed.
    trash: PathBuf,
    gpg: Gpg,
    opened: Opened,
    turns: Turns,
    permits: Arc<Permits>,
    queue_timeout: Value<Duration>,
}

impl Store {
    /// Opens the state directory: makes what is missing of its layout, refuses what somebody else
    /// owns, takes away permissions of others, and clears up after processes that died.
    ///
    /// [`Error::OldKeyring`] when it holds the keys of another service, or their import has not finished.
    pub fn open(settings: &Settings, gpg: Gpg) -> Result<Self> {
        Self::check_is_ours(&settings.state_dir)?;
        Self::open_unfinished(settings, gpg)
    }

    /// Fails with [`Error::OldKeyring`] when the state directory holds the keys of another service, or their
    /// import has not finished.
    pub fn check_is_ours(root: &Path) -> Result<()> {
        SigndView::new(root).check_is_ours()?;
        let path = root.join(IMPORTING);
        match fs::symlink_metadata(&path) {
            Ok(_) => Err(Error::OldKeyring { path, remedy: remedy::command(root, "import") }),
            Err(_) => Ok(()),
        }
    }

    /// As [`Store::open`], for the import that is to be finished.
    fn open_unfinished(settings: &Settings, gpg: Gpg) -> Result<Self> {
        let root = &settings.state_dir;
        Self::make_parts(root, &PARTS)?;
        let store = Self::with(settings, gpg, root, |signd| signd)?;
        nested::check(root)?;
        store.clear_staging();
        store.prepare_signd()?;
        Ok(store)
    }

    /// Opens a state whose `gnupg/` and `phrases/` are still those of the old service. What signd is to see
    /// is made in `importing` and `phrases`.
    fn beside_old(
        settings: &Settings,
        gpg: Gpg,
        importing: &Path,
        phrases: PathBuf,
    ) -> Result<Self> {
        let root = &settings.state_dir;
        Self::make_parts(root, &["keys", "pool", "staging"])?;
        let store = Self::with(settings, gpg, root, |signd| signd.beside(importing, phrases))?;
        store.clear_staging();
        store.prepare_signd()?;
        Ok(store)
    }

    /// Whatever gpg writes goes to `staging/` in the directory `above`. Looking leaves no other trace.
    fn with(
        settings: &Settings,
        gpg: Gpg,
        above: &Path,
        view: impl FnOnce(SigndView) -> SigndView,
    ) -> Result<Self> {
        let root = &settings.state_dir;
        let permits = Arc::new(Permits::new(*settings.jobs.get()?));
        let looks = Looks::new(Arc::clone(&permits), settings.queue_timeout.clone());
        let passphrases = Passphrases::new(settings)?;
        let homes = Homes::new(root);
        let signd = view(SigndView::of(settings, &passphrases)?);
        signd.check_phrases_are_ours()?;
        let opened = Opened::new(root, signd.phrase_links().is_some());
        let mut directories = vec![homes.directory().into(), signd.secret_keys().into()];
        directories.extend(signd.phrase_links().map(Into::into));
        Ok(Self {
            catalog: Catalog::new(root, gpg.clone()),
            looks: Arc::new(looks),
            homes,
            signd,
            on_disk: OnDisk::new(directories),
            passphrases,
            staging: Staging::new(above.join("staging")),
            pool: Pool::new(root, settings.pool_max_age.clone()),
            trash: root.join("trash"),
            gpg,
            opened,
            turns: Turns::default(),
            permits,
            queue_timeout: settings.queue_timeout.clone(),
        })
    }

    fn make_parts(root: &Path, parts: &[&str]) -> Result<()> {
        staging::check_path_length(root)?;
        directory::own_root(root)?;
        parts.iter().try_for_each(|part| directory::own_part(&root.join(part)))
    }

    fn prepare_signd(&self) -> Result<()> {
        match self.signd.is_prepared() {
            true => Ok(()),
            false => self.signd.prepare(self.staging.create()?.scratch()),
        }
    }

    /// Publishes a home of staging; see [`StagedHome::publish`].
    fn publish<'a>(
        &'a self,
        staged: StagedHome<'a>,
        name_email: &NameEmail,
        keygrip: &Keygrip,
    ) -> Result<Publication> {
        staged.publish(&self.homes, &self.signd, &self.on_disk, name_email, keygrip)
    }

    /// Makes sure that signd can be given phrases where no disk keeps them.
    pub fn check_phrases_in_memory(&self) -> Result<()> {
        self.signd.phrase_files().map_or(Ok(()), PhraseFiles::prepare_in_memory)
    }

    /// Whether it could be made sure of.
    pub fn foresee_phrases_in_memory(&self) -> Result<()> {
        self.signd.phrase_files().map_or(Ok(()), PhraseFiles::foresee_in_memory)
    }

    /// Where signd finds phrases.
    pub fn phrases_directory(&self) -> &Path {
        self.signd.phrases()
    }

    /// Removes links to passphrases that signd does not read; returns how many.
    pub fn remove_old_phrases(&self) -> Result<usize> {
        self.signd.remove_old_phrases()
    }

    /// Makes sure that signd can be given phrases, where they are files.
    pub fn prepare_phrases(&self) -> Result<()> {
        self.signd.phrase_files().map_or(Ok(()), PhraseFiles::prepare)
    }

    /// Removes the work of processes of this host that did not live to finish it.
    pub fn clear_staging(&self) {
        match self.staging.clear(&self.signd) {
            Ok(0) => {}
            Ok(count) => {
                log::info!("removed {count} unfinished keys of processes that ended early")
            }
            Err(e) => log::warn!("clearing up staging/: {e}; it will be tried again"),
        }
    }

    /// The keys, to look at.
    pub fn catalog(&self) -> &Catalog {
        &self.catalog
    }

    /// The keys for many who look at once. Where that takes gpg, it takes one of the permits too.
    pub fn shared_catalog(&self) -> Catalog {
        self.catalog.under(&self.looks)
    }

    /// Tells signd that keys have changed.
    pub fn tell_signd(&self) -> Result<()> {
        self.signd.mark_changed(self.staging.create()?.scratch());
        Ok(())
    }

    /// A home of staging in which gpg can work on what is not to be published.
    pub fn workplace(&self) -> Result<Workplace<'_>> {
        Ok(Workplace { staged: self.staging.create()?, gpg: &self.gpg })
    }

    /// Why no key could be made now, if so.
    pub fn ready(&self) -> std::result::Result<(), String> {
        clock::believed().map_err(|_| "the clock of this host cannot be right".to_owned())?;
        self.signd.check_is_ours().map_err(|e| match e {
            Error::OldKeyring { .. } => "the keys of another service have not been taken over",
            _ => "gnupg/ of the state cannot be looked at",
        })?;
        self.signd
            .check_phrases_are_ours()
            .map_err(|_| "phrases_dir holds what is not of this state, or cannot be read")?;
        self.opened.look()
    }

    /// gpg jobs that run now, and requests that wait for one to end.
    pub fn load(&self) -> (usize, usize) {
        self.permits.load()
    }
}

/// A home of staging, and gpg to work in it. Gone when dropped.
#[derive(Debug)]
pub struct Workplace<'a> {
    staged: StagedHome<'a>,
    gpg: &'a Gpg,
}

impl Workplace<'_> {
    /// The home.
    pub fn path(&self) -> &Path {
        self.staged.path()
    }

    /// gpg.
    pub fn gpg(&self) -> &Gpg {
        self.gpg
    }
}
