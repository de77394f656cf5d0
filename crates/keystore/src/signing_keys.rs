//! The keys of this host for a signer of our own, which reads them from their homes and needs neither the links nor
//! the phrases that obs-signd is given.

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

/// Longer than any keyring of one key. obs-signd's protocol cannot even answer a certificate of 64 KiB.
const PUBRING_MAX: u64 = 256 * 1024;

/// How many requests wait for gpg-agent.
const AGENT_WAITING_MAX: usize = 32;

/// The keys of this host, to sign with.
#[derive(Debug)]
pub struct SigningKeys {
    root: PathBuf,
    homes: Homes,
    /// The directory of the homes as it was at the start.
    keys: Option<FileId>,
    passphrases: Passphrases,
    staging: Staging,
    gpg: Gpg,
    catalog: Catalog,
    jobs: JobQueue,
    /// For those that only an agent can do.
    agent_jobs: JobQueue,
    queue_timeout: Duration,
}

/// What it takes to sign as an identity.
#[derive(Debug)]
pub struct SigningFiles {
    /// The name of the secret key.
    pub keygrip: Keygrip,
    /// The file with the certificate.
    pub pubring: Zeroizing<Vec<u8>>,
    /// The file of the secret key.
    pub secret_key: Zeroizing<Vec<u8>>,
    /// Its passphrase.
    pub passphrase: Phrase,
}

impl SigningKeys {
    /// The keys of the state that `options` name. `gpg` works where only an agent can sign.
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

    /// Whether an identity whose home was not found has no key; `false` when the home is there by now. `Err` is a
    /// sentence that says why it is not known.
    pub fn has_no_key(&self, name_email: &NameEmail) -> std::result::Result<bool, String> {
        let directory = open_directory(self.homes.directory())
            .map_err(|_| "the directory of the keys is not there".to_owned())?;
        if id_of(&directory) != self.keys {
            return Err("the directory of the keys is not the one that was opened".into());
        }
        // That it was not found may be of another directory: this one is asked.
        let has_home =
            || match fstatat(&directory, name_email.as_str(), AtFlags::AT_SYMLINK_NOFOLLOW) {
                Ok(_) => Ok(true),
                Err(Errno::ENOENT) => Ok(false),
                Err(e) => Err(format!("its home cannot be looked for: {e}")),
            };
        // It is missing, as where nothing is mounted.
        if let Some(link) = lost_keys::link_of(&self.root.join(PHRASES), name_email, has_home)? {
            return Err(format!(
                "its home is missing, to which {} leads; if it was destroyed on purpose: copr-keygen check --repair",
                link.display()
            ));
        }
        Store::check_is_ours(&self.root).map_err(|e| e.to_string())?;
        Ok(!has_home()?)
    }

    /// What it takes to sign as an identity, all of it from one home; `None` when there is none.
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
            // Else some of them may be of another key. It is looked at again.
            match before == HomeVersion::of(home) {
                true => Ok(files),
                false => Err(Error::damaged(home, "is replaced again and again")),
            }
        })
    }

    /// Removes copies of secret keys that agents of processes that died have worked on.
    pub fn clear_staging(&self) {
        self.staging.clear_up(&self.root.join(SECRET_KEY_LINKS));
    }

    /// The certificate of an identity, armored.
    pub fn armored_certificate(&self, name_email: &NameEmail) -> Result<String> {
        let _job = self.take_job()?;
        self.catalog.pubkey(&self.catalog.find(name_email)?)
    }

    /// Waits for one of the jobs, behind earlier requests; [`gpg::Error::Busy`] when that takes too long.
    pub fn take_job(&self) -> Result<RunningJob<'_>> {
        self.jobs.take(Instant::now() + self.queue_timeout)
    }

    /// As [`SigningKeys::take_job`], for work of gpg-agent.
    pub fn take_agent_job(&self) -> Result<RunningJob<'_>> {
        // Else they would fill the table of connections, where those wait that need no agent.
        if self.agent_jobs.load().1 >= AGENT_WAITING_MAX {
            return Err(Error::busy("too many signatures by gpg-agent are waiting"));
        }
        self.agent_jobs.take(Instant::now() + self.queue_timeout)
    }

    /// Jobs that run, and how many wait for one.
    pub fn load(&self) -> (usize, usize) {
        let ((running, waiting), (by_agent, for_agent)) =
            (self.jobs.load(), self.agent_jobs.load());
        (running + by_agent, waiting + for_agent)
    }

    /// Has gpg-agent sign a digest with a copy of the secret key. `hash` is OpenPGP's number of the hash algorithm.
    /// Returns the signature as libgcrypt's S-expression.
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

/// Opens a directory, to look into and not to read.
fn open_directory(path: &Path) -> std::io::Result<File> {
    let flags = libc::O_PATH | libc::O_DIRECTORY;
    File::options().read(true).custom_flags(flags).open(path)
}
