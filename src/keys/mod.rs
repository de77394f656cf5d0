//! The store: one identity, one GnuPG home below `keys/`, which is written by `rename` only.
//! Everything in `gnupg/` and `phrases/` is derived from it and repaired on sight.

pub(crate) mod archive;
mod assemble;
mod catalog;
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
mod on_disk;
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

use std::fs::{self, DirBuilder, Metadata, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::error::{Error, Result};
use crate::gpg::Gpg;
use crate::settings::Settings;

pub use archive::{Archived, Restored, Summary};
pub use catalog::{Catalog, Filter, Key};
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
use on_disk::OnDisk;
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
    on_disk: OnDisk,
    passphrases: Passphrases,
    staging: Staging,
    pool: Pool,
    /// `trash/`, made when the first key is removed.
    trash: PathBuf,
    gpg: Gpg,
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
        // Where the state is may be told by a symbolic link, where its parts are may not.
        own_directory(root, |path| fs::metadata(path))?;
        for part in PARTS {
            own_directory(&root.join(part), |path| fs::symlink_metadata(path))?;
        }
        let permits = Arc::new(Permits::new(settings.jobs));
        let looks = Looks::new(Arc::clone(&permits), settings.queue_timeout);
        let passphrases = Passphrases::new(settings);
        let homes = Homes::new(root);
        let signd = SigndView::of(settings, &passphrases);
        let mut directories = vec![homes.directory().into(), signd.secret_keys().into()];
        directories.extend(signd.phrase_links().map(Into::into));
        let store = Self {
            catalog: Catalog::new(root, gpg.clone()),
            looks: Arc::new(looks),
            homes,
            signd,
            on_disk: OnDisk::new(directories),
            passphrases,
            staging: Staging::new(root.join("staging")),
            pool: Pool::new(root, settings.pool_max_age),
            trash: root.join("trash"),
            gpg,
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

/// Makes `path` a directory of this user's with mode 0700. One that cannot be is a setting to be
/// corrected, not a failure that another start might not meet.
fn own_directory(path: &Path, look: fn(&Path) -> io::Result<Metadata>) -> Result<()> {
    let failed = |doing: &str, e| Error::io(format!("{doing} {}", path.display()), e);
    let wrong = |why: String| Err(Error::Settings(format!("{}: {why}", path.display())));
    match DirBuilder::new().mode(0o700).create(path) {
        Ok(()) => {}
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
        Err(e) => return Err(failed("making the directory", e)),
    }
    let found = look(path).map_err(|e| failed("looking at", e))?;
    let me = nix::unistd::geteuid().as_raw();
    if !found.is_dir() {
        return wrong("is not a directory; move it away, or correct the setting state_dir".into());
    }
    if found.uid() != me {
        return wrong(format!(
            "it belongs to uid {}, this process is uid {me}; run it as the owner, or give it away \
             with chown -R",
            found.uid()
        ));
    }
    if found.mode() & 0o077 != 0 {
        log::warn!("{}: had mode {:03o}, made it 700", path.display(), found.mode() & 0o777);
        fs::set_permissions(path, Permissions::from_mode(0o700))
            .map_err(|e| failed("setting the mode of", e))?;
    }
    Ok(())
}
