//! What `check` does with the keys: it inspects everything in the state, and repairs what can be repaired.
//! Opening an [`Inspector`], unlike a [`crate::Store`], neither makes nor clears anything.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::Instant;

use gpg::{Certificate, Gpg, KeyParameters, Keygrip, SigningAgent, clock, time_of_signature};
use zeroize::Zeroizing;

use crate::Store;
use crate::error::{Error, Result};
use crate::files::durable::replace;
use crate::files::entries;
use crate::files::lock::hold_key;
use crate::files::small_files::read_file;
use crate::home::contents::Home;
use crate::home::home_files::copy;
use crate::home::record::KeyRecord;
use crate::home::staging;
use crate::home::staging::clear::StagingWork;
use crate::home::trial::{SECRET_KEY_MAX, try_copy};
use crate::identity::NameEmail;
use crate::keep::passphrase_locations;
use crate::keep::trash::old_services;
use crate::layout::{PUBRING, RECORD, SECRET_KEYS};
use crate::make::limits::KEY_TIME;
use crate::options::Options;
use crate::secrets::passphrase::{self, Form, Passphrases};
use crate::view::agent_home::{AgentHome, SOCKET};
use crate::view::link_problems::{LinkProblem, Links};

/// The keys of a state directory, for inspection.
#[derive(Debug)]
pub struct Inspector(Store);

impl Inspector {
    /// Opens the state directory that `options` name. It need not exist.
    pub fn new(options: &Options, gpg: Gpg) -> Self {
        Self(Store::unchecked(options, gpg, &options.state_dir, |signd| signd))
    }

    /// Reads the secret key file of a home.
    pub fn secret_key(&self, home: &Home, keygrip: &Keygrip) -> Result<Zeroizing<Vec<u8>>> {
        read_file(&home.path.join(SECRET_KEYS).join(keygrip.file_name()), SECRET_KEY_MAX)
    }

    /// Returns the identities in `keys/`, and the names there that are not names of an identity. Both lists are
    /// sorted.
    pub fn names(&self) -> Result<(Vec<NameEmail>, Vec<OsString>)> {
        let (mut names, mut strange) = (Vec::new(), Vec::new());
        for path in entries(self.0.homes.directory())? {
            let name = path.file_name().unwrap_or_default();
            match name.to_str().and_then(|name| NameEmail::parse(name).ok()) {
                Some(name_email) => names.push(name_email),
                None => strange.push(name.to_owned()),
            }
        }
        names.sort();
        strange.sort();
        Ok((names, strange))
    }

    /// Examines the files of one home; see [`Home::examine`].
    pub fn examine(&self, name_email: NameEmail, owner: u32) -> Option<Home> {
        Home::examine(&self.0.homes, name_email, owner)
    }

    /// Returns the certificate of a whole home. Fails unless it belongs to the secret key of that home.
    pub fn certificate(&self, home: &Home) -> Result<Certificate> {
        let certificate = self.0.catalog.certificate(&home.name_email)?;
        if certificate.keygrip != home.keygrip {
            return Err(Error::damaged(
                &self.0.homes.pubring(&home.name_email),
                "is the certificate of another secret key",
            ));
        }
        Ok(certificate)
    }

    /// The reader of passphrases.
    pub fn passphrases(&self) -> &Passphrases {
        &self.0.passphrases
    }

    /// Fails unless there is a directory in memory for the phrases of a sealed state, or one can be made.
    pub fn would_provide_phrases(&self) -> Result<()> {
        match self.0.signd.phrase_files() {
            // The unit makes the parent directory at every boot, so a missing one is not an error.
            Some(files) if !files.directory().parent().is_some_and(Path::exists) => Ok(()),
            Some(files) => files.would_be_in_memory(),
            None => Err(passphrase::needs_directory()),
        }
    }

    /// Fails if the directory for phrases holds files that do not belong to this state.
    pub fn check_phrases_are_ours(&self) -> Result<()> {
        self.0.signd.check_phrases_are_ours()
    }

    /// Returns the form in which the passphrase of a whole home is stored.
    pub fn passphrase_form(&self, home: &Home) -> Result<Form> {
        passphrase::form_in(&home.path)
    }

    /// Returns the homes of the pool and of the trash, each with the form of its passphrase. A home that has
    /// gone, or whose passphrase cannot be read, is left out.
    pub fn passphrases_apart(&self) -> Result<Vec<(PathBuf, Form)>> {
        let mut locations = passphrase_locations::in_pool(self.0.pool.directory())?;
        locations.extend(passphrase_locations::in_trash(&self.0.trash)?);
        let mut forms = Vec::with_capacity(locations.len());
        for location in locations {
            forms.extend(location.form()?.map(|form| (location.home, form)));
        }
        Ok(forms)
    }

    /// Returns the paths of stray cleartext copies of passphrases in the state. A copy of a passphrase that
    /// cannot be opened is not recognised.
    pub fn plaintext_copies(&self) -> Result<Vec<PathBuf>> {
        self.0.plaintext_copies()
    }

    /// Fails unless the passphrase of a whole home can be read and, if sealed, opened.
    pub fn open_passphrase(&self, home: &Home) -> Result<()> {
        match &home.keygrip {
            Some(keygrip) => self.0.passphrases.read(&home.path, keygrip).map(drop),
            None => Err(Error::NoKey(home.name_email.clone())),
        }
    }

    /// Signs in staging with the secret key and the passphrase of a home, and verifies the signature.
    pub fn try_signature(&self, home: &Home, certificate: &Certificate) -> Result<()> {
        let Some(keygrip) = &home.keygrip else {
            return Err(Error::NoKey(home.name_email.clone()));
        };
        let (gpg, staging, deadline) = (&self.0.gpg, &self.0.staging, Instant::now() + KEY_TIME);
        let phrase = self.0.passphrases.read(&home.path, keygrip)?;
        let key = KeyRecord::of_certificate(certificate, keygrip.clone(), 0);
        let files = [PUBRING, SECRET_KEYS].map(|name| home.path.join(name));
        try_copy(gpg, staging, [&files[0], &files[1]], &phrase, &key, None, deadline)
    }

    /// Whether signd can find both the secret key and the phrase of a whole home.
    pub fn is_seen(&self, home: &Home) -> bool {
        let phrase = self.0.signd.phrases().join(home.name_email.as_str());
        let link = |grip: &Keygrip| self.0.signd.secret_keys().join(grip.file_name());
        phrase.exists() && home.keygrip.as_ref().is_some_and(|grip| link(grip).exists())
    }

    /// Makes a signature as signd does: with the phrase file and the secret key link that signd is given. The
    /// agent that runs in signd's home signs; if none runs there, a temporary agent with the same configuration
    /// does. A home in staging, which holds the certificate, verifies the signature.
    pub fn sign_as_signd(&self, home: &Home, certificate: &Certificate) -> Result<()> {
        self.0.staging.without_sign_of_life(|| self.sign_in_staging(home, certificate))
    }

    /// Makes a key in staging and throws it away: no list of options tells whether gpg, as it is configured, can.
    pub fn try_to_make(&self, key: &KeyParameters) -> Result<()> {
        self.0.staging.without_sign_of_life(|| {
            let staged = self.0.staging.create()?;
            let (phrase, deadline) = (Passphrases::fresh()?, Instant::now() + KEY_TIME);
            let made =
                self.0.gpg.generate(staged.path(), &phrase, key, None, clock::now()?, deadline);
            made.map(drop).or_else(|error| self.0.check_space().and(Err(error.into())))
        })
    }

    /// Verifies a signature over [`gpg::SAMPLE`] that other code made with the key of a home. A home in
    /// staging, which holds nothing but the certificate, verifies it.
    pub fn verify_apart(
        &self,
        home: &Home,
        certificate: &Certificate,
        signature: &[u8],
    ) -> Result<()> {
        self.0.staging.without_sign_of_life(|| {
            let staged = self.0.staging.create()?;
            copy(&home.path.join(PUBRING), &staged.path().join(PUBRING))?;
            let (work, deadline) = (staged.path(), Instant::now() + KEY_TIME);
            Ok(self.0.gpg.verify_sample(work, signature, &certificate.fingerprint, deadline)?)
        })
    }

    fn sign_in_staging(&self, home: &Home, certificate: &Certificate) -> Result<()> {
        let Some(grip) = &home.keygrip else {
            return Err(Error::NoKey(home.name_email.clone()));
        };
        let staged = self.0.staging.create()?;
        let work = staged.path();
        let failed = |e| Error::io(format!("preparing {}", work.display()), e);
        let agent_home = self.0.signd.agent_home();
        copy(&home.path.join(PUBRING), &work.join(PUBRING))?;
        let socket = agent_home.live_socket();
        if let Some(socket) = &socket {
            symlink(socket, work.join(SOCKET)).map_err(failed)?;
        } else {
            let secret_keys = work.join(SECRET_KEYS);
            fs::create_dir(&secret_keys).map_err(failed)?;
            let link = self.0.signd.secret_keys().join(grip.file_name());
            symlink(link, secret_keys.join(grip.file_name())).map_err(failed)?;
            let configuration = agent_home.configuration_path();
            if let Some(name) = configuration.file_name().filter(|_| configuration.is_file()) {
                symlink(&configuration, work.join(name)).map_err(failed)?;
            }
        }
        let phrase = self.0.signd.phrases().join(home.name_email.as_str());
        // In `phrases/` the entry is a link to the passphrase file, and `read_file` follows no link.
        let phrase = read_file(&phrase.canonicalize().map_err(failed)?, passphrase::FILE_MAX)?;
        let phrase = passphrase::first_line(&phrase);
        let at = time_of_signature(clock::now()?, certificate.created, certificate.expires);
        let deadline = Instant::now() + KEY_TIME;
        let agent = if socket.is_some() { SigningAgent::Running } else { SigningAgent::Own };
        Ok(self.0.gpg.try_signature_by(
            agent,
            work,
            phrase,
            &certificate.fingerprint,
            at,
            deadline,
        )?)
    }

    /// Rewrites `key.json` from the certificate, under the lock of the home.
    ///
    /// Fails with [`Error::InUse`] if another process works on this key.
    pub fn rewrite_record(&self, home: &Home) -> Result<KeyRecord> {
        let _held = hold_key(&home.path, &home.name_email)?;
        // The certificate may have been replaced before the lock was taken, so read it now.
        let certificate = self.certificate(home)?;
        let Some(keygrip) = certificate.keygrip.clone() else {
            return Err(Error::NoKey(home.name_email.clone()));
        };
        // Date the change now: a client that asks for changes may have been given the wrong record before.
        let changed = clock::believed()?.max(certificate.created);
        let record = KeyRecord::of_certificate(&certificate, keygrip, changed);
        let staged = self.0.staging.create()?;
        record.write(staged.path())?;
        replace(&staged.path().join(RECORD), &home.path.join(RECORD))?;
        Ok(record)
    }

    /// Returns the links for obs-signd that are wrong or missing; `homes` are the homes in `keys/`.
    pub fn odd_links(&self, homes: &[Home]) -> Result<Vec<LinkProblem>> {
        self.links().survey(homes)
    }

    /// Repairs a link.
    pub fn mend_link(&self, odd: &LinkProblem) -> Result<()> {
        self.links().mend(odd)
    }

    fn links(&self) -> Links<'_> {
        Links { homes: &self.0.homes, signd: &self.0.signd, staging: &self.0.staging }
    }

    /// The home of the agent that signs.
    pub fn agent_home(&self) -> &AgentHome {
        self.0.signd.agent_home()
    }

    /// Whether the file exists by which signd notices changed keys.
    pub fn has_marker(&self) -> bool {
        self.0.signd.has_marker()
    }

    /// Returns files in that agent's home that keep signd from signing or change what it signs; see
    /// `SigndView::misleading_files`.
    pub fn misleading_files(&self) -> Vec<(PathBuf, &'static str)> {
        self.0.signd.misleading_files()
    }

    /// Makes the missing files of that home, and adds the lines that the agent's configuration lacks.
    pub fn prepare(&self) -> Result<()> {
        self.0.signd.prepare(self.0.staging.create()?.scratch())
    }

    /// Returns the trash entries that hold the directories of the old service.
    pub fn old_services(&self) -> Result<Vec<PathBuf>> {
        Ok(old_services(&self.0.trash)?.into_iter().map(|(_, entry)| entry).collect())
    }

    /// Returns the entries of `staging/`, sorted, and what each one is.
    pub fn work(&self) -> Result<Vec<(PathBuf, StagingWork)>> {
        self.0.staging.survey()
    }

    /// Removes what dead processes left in `staging/`. Returns the number of homes removed.
    pub fn clear_staging(&self) -> Result<usize> {
        self.0.staging.clear(self.0.signd.secret_keys())
    }
}

/// Fails if the path of the state directory `root` is too long for the sockets of gpg-agent below it.
pub fn check_path_length(root: &Path) -> Result<()> {
    staging::check_path_length(root)
}
