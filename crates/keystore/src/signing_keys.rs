//! The keys of this host for a signer of our own. That signer reads keys from their homes, and needs neither
//! the links nor the passphrases that obs-signd is given.

use std::fs::File;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use gpg::{Gpg, Keygrip};
use nix::errno::Errno;
use nix::fcntl::AtFlags;
use nix::sys::stat::fstatat;
use zeroize::Zeroizing;

use crate::error::{Error, Result};
use crate::files::durable::write_new;
use crate::files::small_files::read_file;
use crate::files::{FileId, make_directory};
use crate::home::Homes;
use crate::home::on_disk::HomeVersion;
use crate::home::staging::Staging;
use crate::home::trial::SECRET_KEY_MAX;
use crate::identity::NameEmail;
use crate::keep::catalog::Catalog;
use crate::layout::{PHRASES, PUBRING, SECRET_KEY_LINKS, SECRET_KEYS, STAGING};
use crate::make::job_queue::{JobQueue, RunningJob};
use crate::options::Options;
use crate::secrets::passphrase::{Passphrases, Phrase};
use crate::state::lost_keys;
use crate::store::Store;

/// The size limit of a keyring with one key, in bytes. obs-signd's protocol cannot even answer a
/// certificate of 64 KiB.
const PUBRING_MAX: u64 = 256 * 1024;

/// The number of requests that may wait for gpg-agent.
const AGENT_WAITING_MAX: usize = 32;

/// The keys of this host, to sign with.
#[derive(Debug)]
pub struct SigningKeys {
    root: PathBuf,
    homes: Homes,
    /// The identity of the directory `keys/` when this was made; `None` if it could not be opened.
    keys: Option<FileId>,
    passphrases: Passphrases,
    staging: Staging,
    gpg: Gpg,
    catalog: Catalog,
    jobs: JobQueue,
    /// The jobs for signatures that only gpg-agent can make.
    agent_jobs: JobQueue,
    queue_timeout: Duration,
}

/// Everything needed to sign as one identity.
#[derive(Debug)]
pub struct SigningFiles {
    /// The keygrip of the secret key.
    pub keygrip: Keygrip,
    /// The content of `pubring.kbx`, which holds the certificate.
    pub pubring: Zeroizing<Vec<u8>>,
    /// The content of the secret key's file.
    pub secret_key: Zeroizing<Vec<u8>>,
    /// The passphrase of the secret key.
    pub passphrase: Phrase,
}

impl SigningKeys {
    /// Returns the keys of the state that `options` describe. `gpg` signs with keys that only
    /// gpg-agent can use.
    pub fn new(options: &Options, gpg: Gpg) -> Self {
        let root = options.state_dir.clone();
        let homes = Homes::new(&root);
        Self {
            catalog: Catalog::new(&root, gpg.clone()),
            jobs: JobQueue::new(options.jobs),
            agent_jobs: JobQueue::new((options.jobs / 2).max(1)),
            queue_timeout: options.queue_timeout,
            keys: open_directory(homes.directory()).ok().as_ref().and_then(id_of),
            homes,
            passphrases: Passphrases::new(options),
            staging: Staging::new(root.join(STAGING)),
            root,
            gpg,
        }
    }

    /// Whether an identity has no key, asked after its home was not found. Returns `false` if the home is
    /// there by now. Fails with a sentence if it cannot be known whether there is a key.
    pub fn has_no_key(&self, name_email: &NameEmail) -> std::result::Result<bool, String> {
        let directory = open_directory(self.homes.directory())
            .map_err(|_| "the directory of the keys is not there".to_owned())?;
        if id_of(&directory) != self.keys {
            return Err("the directory of the keys is not the one that was opened".into());
        }
        // The home may have been looked for in another directory of this name, so look in the one that is open.
        let has_home =
            || match fstatat(&directory, name_email.as_str(), AtFlags::AT_SYMLINK_NOFOLLOW) {
                Ok(_) => Ok(true),
                Err(Errno::ENOENT) => Ok(false),
                Err(e) => Err(format!("its home cannot be looked for: {e}")),
            };
        // A link without its home: the home is missing, for example because nothing is mounted there.
        if let Some(link) = lost_keys::link_of(&self.root.join(PHRASES), name_email, has_home)? {
            return Err(format!(
                "its home is missing, to which {} leads; if it was destroyed on purpose: copr-keygen check --repair",
                link.display()
            ));
        }
        Store::check_is_ours(&self.root).map_err(|e| e.to_string())?;
        Ok(!has_home()?)
    }

    /// Reads everything needed to sign as an identity, all of it from one home. Returns `None` if
    /// there is no home.
    pub fn files(&self, name_email: &NameEmail) -> Result<Option<SigningFiles>> {
        self.homes.look_into(name_email, |record, home| {
            let before = HomeVersion::of(home);
            let passphrase = self.passphrases.read(home, &record.keygrip)?;
            let files = SigningFiles {
                secret_key: read_file(&record.secret_key(home), SECRET_KEY_MAX)?,
                pubring: read_file(&home.join(PUBRING), PUBRING_MAX)?,
                passphrase,
                keygrip: record.keygrip,
            };
            // If the home has changed meanwhile, some of the files may belong to another key. After this
            // error, `look_into` reads the home again.
            match before == HomeVersion::of(home) {
                true => Ok(files),
                false => Err(Error::damaged(home, "is replaced again and again")),
            }
        })
    }

    /// Removes the staged copies of secret keys on which the agents of dead processes have worked.
    pub fn clear_staging(&self) {
        self.staging.clear_up(&self.root.join(SECRET_KEY_LINKS));
    }

    /// Returns the armored certificate of an identity.
    pub fn armored_certificate(&self, name_email: &NameEmail) -> Result<String> {
        let _job = self.take_job()?;
        self.catalog.pubkey(&self.catalog.find(name_email)?)
    }

    /// Waits for one of the jobs, behind earlier requests. Fails with [`gpg::Error::Busy`] if that
    /// takes too long.
    pub fn take_job(&self) -> Result<RunningJob<'_>> {
        self.jobs.take(Instant::now() + self.queue_timeout)
    }

    /// Waits for a job as [`SigningKeys::take_job`] does, but for a signature by gpg-agent.
    pub fn take_agent_job(&self) -> Result<RunningJob<'_>> {
        // More of them would fill the table of connections, in which requests that need no agent wait, too.
        if self.agent_jobs.load().1 >= AGENT_WAITING_MAX {
            return Err(Error::busy("too many signatures by gpg-agent are waiting"));
        }
        self.agent_jobs.take(Instant::now() + self.queue_timeout)
    }

    /// The number of jobs that run, and the number of requests that wait for one.
    pub fn load(&self) -> (usize, usize) {
        let ((running, waiting), (by_agent, for_agent)) =
            (self.jobs.load(), self.agent_jobs.load());
        (running + by_agent, waiting + for_agent)
    }

    /// Has gpg-agent sign a digest with a staged copy of the secret key. `hash` is OpenPGP's number of the
    /// hash algorithm. Returns the signature as an S-expression of libgcrypt.
    pub fn sign_by_agent(
        &self,
        files: &SigningFiles,
        hash: u8,
        digest: &[u8],
        deadline: Instant,
    ) -> Result<Vec<u8>> {
        let staged = self.staging.create()?;
        let directory = staged.path().join(SECRET_KEYS);
        make_directory(&directory)?;
        write_new(&directory.join(files.keygrip.file_name()), &files.secret_key)?;
        let (gpg, home, phrase) = (&self.gpg, staged.path(), &files.passphrase);
        Ok(gpg.sign_digest(home, &files.keygrip, phrase, hash, digest, deadline)?)
    }
}

fn id_of(directory: &File) -> Option<FileId> {
    directory.metadata().ok().map(|found| FileId::from(&found))
}

/// Opens a directory so that names can be looked up in it, without permission to list it.
fn open_directory(path: &Path) -> std::io::Result<File> {
    let flags = libc::O_PATH | libc::O_DIRECTORY;
    File::options().read(true).custom_flags(flags).open(path)
}
