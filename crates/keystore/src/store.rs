//! The store: the homes of `keys/`, and everything that works on them.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use gpg::{Gpg, Keygrip, clock};

use crate::error::{Error, Result};
use crate::home::Homes;
use crate::home::on_disk::OnDisk;
use crate::home::staging::{self, StagedHome, Staging};
use crate::identity::NameEmail;
use crate::keep::catalog::Catalog;
use crate::layout::{IMPORTING, KEYS, PARTS, POOL, STAGING, TRASH};
use crate::make::gpg_read_limit::GpgReadLimit;
use crate::make::identity_locks::IdentityLocks;
use crate::make::job_queue::JobQueue;
use crate::make::pool::Pool;
use crate::options::Options;
use crate::remedy;
use crate::secrets::passphrase::Passphrases;
use crate::shared::agreement::Agreement;
use crate::state::host_mark::HostMark;
use crate::state::opened::Opened;
use crate::state::{directory, lost_keys, nested};
use crate::view::phrase_files::PhraseFiles;
use crate::view::publish::{Publication, Publisher};
use crate::view::signd_view::SigndView;

/// The keys of this sign host and all it takes to make another one.
#[derive(Debug)]
pub struct Store {
    pub(crate) catalog: Catalog,
    pub(crate) reads: Arc<GpgReadLimit>,
    pub(crate) homes: Homes,
    pub(crate) signd: SigndView,
    pub(crate) on_disk: OnDisk,
    pub(crate) passphrases: Passphrases,
    pub(crate) staging: Staging,
    pub(crate) pool: Pool,
    /// `trash/`, made when the first key is removed.
    pub(crate) trash: PathBuf,
    pub(crate) gpg: Gpg,
    pub(crate) opened: Opened,
    pub(crate) makers: IdentityLocks,
    pub(crate) jobs: Arc<JobQueue>,
    pub(crate) queue_timeout: Duration,
    /// What decides for all hosts, where there is more than one.
    pub(crate) agreement: Option<Arc<dyn Agreement>>,
    /// Whether the last key that was offered to the other hosts was one that they did not have.
    pub(crate) is_up_to_date: AtomicBool,
    /// The mark of this host, where another one could use the state.
    host: Option<HostMark>,
}

impl Store {
    /// Opens the state directory: makes what is missing of its layout, refuses what somebody else
    /// owns, takes away permissions of others, and clears up after processes that died.
    ///
    /// [`Error::OldKeyring`] when it holds the keys of another service, or their import has not finished.
    pub fn open(options: &Options, gpg: Gpg) -> Result<Self> {
        Self::check_is_ours(&options.state_dir)?;
        // Other hosts have the keys, and give them back.
        if options.agreement.is_none() {
            lost_keys::check(&options.state_dir)?;
        }
        Self::open_unfinished(options, gpg)
    }

    /// As [`Store::open`], for who brings the keys back that are missing.
    pub fn open_to_fill(options: &Options, gpg: Gpg) -> Result<Self> {
        Self::check_is_ours(&options.state_dir)?;
        Self::open_unfinished(options, gpg)
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
    pub(crate) fn open_unfinished(options: &Options, gpg: Gpg) -> Result<Self> {
        let root = &options.state_dir;
        Self::make_parts(root, &PARTS)?;
        let host = HostMark::take(root)?;
        let store = Self { host, ..Self::with(options, gpg, root, |signd| signd)? };
        nested::check(root)?;
        store.clear_staging();
        store.prepare_signd()?;
        Ok(store)
    }

    /// Opens a state whose `gnupg/` and `phrases/` are still those of the old service. What signd is to see
    /// is made in `importing` and `phrases`.
    pub(crate) fn beside_old(
        options: &Options,
        gpg: Gpg,
        importing: &Path,
        phrases: PathBuf,
    ) -> Result<Self> {
        let root = &options.state_dir;
        Self::make_parts(root, &[KEYS, POOL, STAGING])?;
        let store = Self::with(options, gpg, root, |signd| signd.beside(importing, phrases))?;
        store.clear_staging();
        store.prepare_signd()?;
        Ok(store)
    }

    /// Whatever gpg writes goes to `staging/` in the directory `above`. Looking leaves no other trace.
    pub(crate) fn with(
        options: &Options,
        gpg: Gpg,
        above: &Path,
        view: impl FnOnce(SigndView) -> SigndView,
    ) -> Result<Self> {
        let store = Self::unchecked(options, gpg, above, view);
        store.signd.check_phrases_are_ours()?;
        Ok(store)
    }

    /// As [`Store::with`], whatever is there.
    pub(crate) fn unchecked(
        options: &Options,
        gpg: Gpg,
        above: &Path,
        view: impl FnOnce(SigndView) -> SigndView,
    ) -> Self {
        let root = &options.state_dir;
        let jobs = Arc::new(JobQueue::new(options.jobs));
        let reads = GpgReadLimit::new(Arc::clone(&jobs), options.queue_timeout);
        let passphrases = Passphrases::new(options);
        let homes = Homes::new(root);
        let signd = view(SigndView::of(options, &passphrases));
        let opened = Opened::new(root, signd.phrase_links().is_some());
        let mut directories = vec![homes.directory().into(), signd.secret_keys().into()];
        directories.extend(signd.phrase_links().map(Into::into));
        Self {
            catalog: Catalog::new(root, gpg.clone()),
            reads: Arc::new(reads),
            homes,
            signd,
            on_disk: OnDisk::new(directories),
            passphrases,
            staging: Staging::new(above.join(STAGING)),
            pool: Pool::new(root, options.pool_max_age),
            trash: root.join(TRASH),
            gpg,
            opened,
            makers: IdentityLocks::default(),
            jobs,
            queue_timeout: options.queue_timeout,
            agreement: options.agreement.clone(),
            is_up_to_date: false.into(),
            host: None,
        }
    }

    pub(crate) fn make_parts(root: &Path, parts: &[&str]) -> Result<()> {
        staging::check_path_length(root)?;
        directory::own_root(root)?;
        parts.iter().try_for_each(|part| directory::own_part(&root.join(part)))
    }

    pub(crate) fn prepare_signd(&self) -> Result<()> {
        match self.signd.is_prepared() {
            true => Ok(()),
            false => self.signd.prepare(self.staging.create()?.scratch()),
        }
    }

    /// Publishes a home of staging, after the other hosts have agreed where there are others; see
    /// [`Publisher::publish`]. A key of theirs that counts instead is here then.
    pub(crate) fn publish(
        &self,
        staged: StagedHome,
        name_email: &NameEmail,
        keygrip: &Keygrip,
    ) -> Result<Publication> {
        self.publish_from(staged.path(), &staged, name_email, keygrip)
    }

    /// As [`Store::publish`], of a home elsewhere in the state; `staged` has room for what is not to be published.
    pub(crate) fn publish_from(
        &self,
        home: &Path,
        staged: &StagedHome,
        name_email: &NameEmail,
        keygrip: &Keygrip,
    ) -> Result<Publication> {
        match self.agree_on_key(name_email, home)? {
            true => self.publisher().publish(home, staged.scratch(), name_email, keygrip),
            false => Ok(Publication::Lost),
        }
    }

    /// What publishes homes.
    pub(crate) fn publisher(&self) -> Publisher<'_> {
        Publisher { homes: &self.homes, signd: &self.signd, on_disk: &self.on_disk }
    }

    /// Makes sure that signd can be given phrases where no disk keeps them.
    pub fn check_phrases_in_memory(&self) -> Result<()> {
        self.signd.phrase_files().map_or(Ok(()), PhraseFiles::prepare_in_memory)
    }

    /// Dry run of [`Store::check_phrases_in_memory`].
    pub fn would_have_phrases_in_memory(&self) -> Result<()> {
        self.signd.phrase_files().map_or(Ok(()), PhraseFiles::would_be_in_memory)
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
        self.staging.clear_up(self.signd.secret_keys());
    }

    /// The keys, to look at.
    pub fn catalog(&self) -> &Catalog {
        &self.catalog
    }

    /// The keys for many readers at once. A look that takes gpg takes one of the jobs too.
    pub fn shared_catalog(&self) -> Catalog {
        self.catalog.under(&self.reads)
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

    /// Fails when another host uses this state as well.
    pub(crate) fn check_host(&self) -> Result<()> {
        self.host.as_ref().map_or(Ok(()), HostMark::check)
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
        self.check_host().map_err(|_| "another host uses this state directory")?;
        self.opened.look()?;
        // Its reason names hosts, which are nobody's business who asks without credentials.
        self.agreement.as_ref().map_or(Ok(()), |agreement| {
            agreement.answers().map_err(|e| {
                log::warn!("not ready: {e}");
                "etcd does not answer, or refuses".to_owned()
            })
        })
    }

    /// gpg jobs that run now, and requests that wait for one to end.
    pub fn load(&self) -> (usize, usize) {
        self.jobs.load()
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
