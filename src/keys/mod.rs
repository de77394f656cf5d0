//! The store: one identity, one GnuPG home below `keys/`, which is written by `rename` only.
//! Everything in `gnupg/` and `phrases/` is derived from it and repaired on sight.

pub(crate) mod archive;
mod assemble;
mod catalog;
mod directory;
mod durable;
mod examine;
mod export;
mod home;
mod import;
mod inspector;
mod links;
mod lock;
mod looks;
mod make;
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
mod space;
mod staging;
mod trash;
mod turns;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::error::Result;
use crate::gpg::Gpg;
use crate::settings::Settings;

pub use archive::{Archived, Restored, Summary};
pub use catalog::{Catalog, Filter, Key};
pub use directory::{check_root, is_volume, owner_of, volume_group};
pub use durable::{rename, rename_by};
pub use examine::{DIRECTORY_MODE, Fault, Home, TRUST_DATABASE, judge};
pub use export::ExportReport;
pub use home::Homes;
pub use import::{ImportOptions, ImportReport, LeftOut, Moved, Shadowed, Source};
pub use inspector::{Inspector, check_path_length};
pub use links::{LinkFault, OddLink};
pub use make::Outcome;
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
use opened::Opened;
use phrases::PhraseFiles;
use pool::Pool;
use signd::SigndView;
use staging::{StagedHome, Staging};
use turns::{Permits, Turns};

/// The keys of this sign host and all it takes to make another one.
#[derive(Debug)]
pub struct Store {
    catalog: Catalog,
    looks: Arc<Looks>,
    homes: Homes,
    signd: SigndView,
    passphrases: Passphrases,
    staging: Staging,
    pool: Pool,
    /// `trash/`, made when the first key is removed.
    trash: PathBuf,
    gpg: Gpg,
    opened: Opened,
    turns: Turns,
    permits: Arc<Permits>,
    queue_timeout: Duration,
}

impl Store {
    /// Opens the state directory: makes what is missing of its layout, refuses what somebody else
    /// owns, takes away permissions of others, and clears up after processes that died.
    pub fn open(settings: &Settings, gpg: Gpg) -> Result<Self> {
        let root = &settings.state_dir;
        staging::check_path_length(root)?;
        directory::own_root(root)?;
        for part in PARTS {
            directory::own_part(&root.join(part))?;
        }
        let permits = Arc::new(Permits::new(settings.jobs));
        let looks = Looks::new(Arc::clone(&permits), settings.queue_timeout);
        let passphrases = Passphrases::new(settings);
        let store = Self {
            catalog: Catalog::new(root, gpg.clone()),
            looks: Arc::new(looks),
            homes: Homes::new(root),
            signd: SigndView::of(settings, &passphrases),
            passphrases,
            staging: Staging::new(root.join("staging")),
            pool: Pool::new(root, settings.pool_max_age),
            trash: root.join("trash"),
            gpg,
            opened: Opened::new(root)?,
            turns: Turns::default(),
            permits,
            queue_timeout: settings.queue_timeout,
        };
        store.signd.phrase_files().map_or(Ok(false), PhraseFiles::is_claimed)?;
        store.clear_staging();
        if !store.signd.is_prepared() {
            store.signd.prepare(store.staging.create()?.scratch())?;
        }
        Ok(store)
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
