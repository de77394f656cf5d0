//! The keys of this host for a signer of our own, which reads them from their homes and needs neither the links nor
//! the phrases that obs-signd is given.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use gpg::{Gpg, Keygrip};
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
use crate::layout::{PUBRING, SECRET_KEY_LINKS, SECRET_KEYS, STAGING};
use crate::make::job_queue::{JobQueue, RunningJob};
use crate::options::Options;
use crate::secrets::passphrase::{Passphrases, Phrase};
use crate::store::Store;

/// Longer than any keyring of one key.
const PUBRING_MAX: u64 = 1 << 20;

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
            keys: id_of(homes.directory()),
            homes,
            passphrases: Passphrases::new(options),
            staging: Staging::new(root.join(STAGING)),
            root,
            gpg,
        }
    }

    /// Whether that an identity has no home means that it has no key: the directory of the homes is the one of
    /// the start, and they are all that there is. Else a sentence says why not.
    pub fn check_complete(&self) -> std::result::Result<(), String> {
        match id_of(self.homes.directory()) {
            None => Err("the directory of the keys is not there".into()),
            now if now != self.keys => {
                Err("the directory of the keys is not the one that was opened".into())
            }
            Some(_) => Store::check_is_ours(&self.root).map_err(|e| e.to_string()),
        }
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

fn id_of(directory: &Path) -> Option<FileId> {
    fs::metadata(directory).ok().filter(fs::Metadata::is_dir).map(|found| FileId::from(&found))
}
