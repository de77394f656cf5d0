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

/// The keys of this sign host, and everything needed to make another key.
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
    /// The path of `trash/`, which is created when the first key is removed.
    pub(crate) trash: PathBuf,
    pub(crate) gpg: Gpg,
    pub(crate) opened: Opened,
    pub(crate) makers: IdentityLocks,
    pub(crate) jobs: Arc<JobQueue>,
    pub(crate) queue_timeout: Duration,
    /// Decides which key of an identity counts on all hosts, if there are several; `None` on a single host.
    pub(crate) agreement: Option<Arc<dyn Agreement>>,
    /// Whether the other hosts accepted the last key that this host offered them.
    pub(crate) is_up_to_date: AtomicBool,
    /// The mark of this host in `state.host`, kept only on a file system that another host can mount.
    host: Option<HostMark>,
}

impl Store {
    /// Opens the state directory. Creates missing directories, refuses directories of another user, removes
    /// the permissions of group and others, and clears up after processes that died.
    ///
    /// Fails with [`Error::OldKeyring`] if the directory holds the keys of another service, or if the import
    /// of these keys has not finished.
    pub fn open(options: &Options, gpg: Gpg) -> Result<Self> {
        Self::check_is_ours(&options.state_dir)?;
        // With an agreement, missing keys are not lost: the other hosts have them and give them back.
        if options.agreement.is_none() {
            lost_keys::check(&options.state_dir)?;
        }
        Self::open_unfinished(options, gpg)
    }

    /// Opens the state directory as [`Store::open`] does, but without the check for lost keys. It is for a
    /// caller that brings the missing keys back.
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

    /// Opens the state directory without the checks for an old keyring, an unfinished import and lost keys.
    /// The import itself uses it to finish.
    pub(crate) fn open_unfinished(options: &Options, gpg: Gpg) -> Result<Self> {
        let root = &options.state_dir;
        Self::make_parts(root, &PARTS)?;
        let host = HostMark::take(root)?;
        let store = Self { host, ..Self::with(options, gpg, root, |signd| signd)? };
        nested::check(root)?;
        store.staging.without_sign_of_life(|| {
            store.clear_staging();
            store.prepare_signd()
        })?;
        Ok(store)
    }

    /// Opens a state whose `gnupg/` and `phrases/` are still those of the old service. The directories that
    /// signd is to use are prepared in `importing` and `phrases`.
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

    /// Makes a store without opening the state. gpg writes only to `staging/` in the directory `above`, so a
    /// mere look leaves no other trace. Fails if `phrases_dir` holds files that do not belong to this state.
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

    /// Makes a store as [`Store::with`] does, whatever `phrases_dir` holds.
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

    /// Publishes a staged home; see [`Publisher::publish`]. If there are other hosts, they must agree on the
    /// key first. If a key of theirs counts instead, this host adopts that key and returns
    /// [`Publication::Lost`].
    pub(crate) fn publish(
        &self,
        staged: StagedHome,
        name_email: &NameEmail,
        keygrip: &Keygrip,
    ) -> Result<Publication> {
        self.publish_from(staged.path(), &staged, name_email, keygrip)
    }

    /// Publishes a home as [`Store::publish`] does, from the directory `home` elsewhere in the state.
    /// `staged` has room for files that are not to be published.
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

    /// Returns the [`Publisher`] of this store's homes.
    pub(crate) fn publisher(&self) -> Publisher<'_> {
        Publisher { homes: &self.homes, signd: &self.signd, on_disk: &self.on_disk }
    }

    /// Prepares `phrases_dir`, if it is set, and fails unless it is in memory: no disk may keep
    /// the passphrases.
    pub fn check_phrases_in_memory(&self) -> Result<()> {
        self.signd.phrase_files().map_or(Ok(()), PhraseFiles::prepare_in_memory)
    }

    /// Dry run of [`Store::check_phrases_in_memory`].
    pub fn would_have_phrases_in_memory(&self) -> Result<()> {
        self.signd.phrase_files().map_or(Ok(()), PhraseFiles::would_be_in_memory)
    }

    /// The directory in which signd finds passphrases.
    pub fn phrases_directory(&self) -> &Path {
        self.signd.phrases()
    }

    /// Removes links in `phrases/` that signd does not read because it reads `phrases_dir`.
    /// Returns their number.
    pub fn remove_old_phrases(&self) -> Result<usize> {
        self.signd.remove_old_phrases()
    }

    /// Prepares `phrases_dir`, if it is set, so that signd can be given passphrases as files.
    pub fn prepare_phrases(&self) -> Result<()> {
        self.signd.phrase_files().map_or(Ok(()), PhraseFiles::prepare)
    }

    /// Removes entries of `staging/` that no living process holds.
    pub fn clear_staging(&self) {
        self.staging.clear_up(self.signd.secret_keys());
    }

    /// The catalog of the keys, for reading.
    pub fn catalog(&self) -> &Catalog {
        &self.catalog
    }

    /// A catalog for many readers at once. A read that runs gpg takes one of the gpg jobs of this store, too.
    pub fn shared_catalog(&self) -> Catalog {
        self.catalog.under(&self.reads)
    }

    /// Tells signd that keys have changed.
    pub fn tell_signd(&self) -> Result<()> {
        self.signd.mark_changed(self.staging.create()?.scratch());
        Ok(())
    }

    /// Creates a staged home in which gpg can work on files that are not to be published.
    pub fn workplace(&self) -> Result<Workplace<'_>> {
        Ok(Workplace { staged: self.staging.create()?, gpg: &self.gpg })
    }

    /// Fails when another host uses this state as well.
    pub(crate) fn check_host(&self) -> Result<()> {
        self.host.as_ref().map_or(Ok(()), HostMark::check)
    }

    /// Fails if no key could be made now. A client sees the reason, so it names neither paths nor hosts.
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
        // The error names hosts, and a client may ask without credentials. So the error goes to the log only.
        self.agreement.as_ref().map_or(Ok(()), |agreement| {
            agreement.answers().map_err(|e| {
                log::warn!("not ready: {e}");
                "etcd does not answer, or refuses".to_owned()
            })
        })
    }

    /// The number of gpg jobs that run now, and the number of requests that wait for a job.
    pub fn load(&self) -> (usize, usize) {
        self.jobs.load()
    }
}

/// A staged home, and a gpg to work in it. The home is removed when this is dropped.
#[derive(Debug)]
pub struct Workplace<'a> {
    staged: StagedHome<'a>,
    gpg: &'a Gpg,
}

impl Workplace<'_> {
    /// The path of the home.
    pub fn path(&self) -> &Path {
        self.staged.path()
    }

    /// The gpg to work with.
    pub fn gpg(&self) -> &Gpg {
        self.gpg
    }
}
