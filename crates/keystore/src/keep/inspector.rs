//! What `check` does with the keys: looks at all that is there, and mends what can be mended. It makes
//! and clears nothing by being opened, unlike [`crate::Store`].

use std::ffi::OsString;
use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::Instant;

use gpg::{Certificate, Gpg, Keygrip, SigningAgent, clock, time_of_signature};
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

/// The keys of a state directory, for looking at them.
#[derive(Debug)]
pub struct Inspector(Store);

impl Inspector {
    /// The keys of the state directory in `options`, which need not exist.
    pub fn new(options: &Options, gpg: Gpg) -> Self {
        Self(Store::unchecked(options, gpg, &options.state_dir, |signd| signd))
    }

    /// The file of the secret key of a home.
    pub fn secret_key(&self, home: &Home, keygrip: &Keygrip) -> Result<Zeroizing<Vec<u8>>> {
        read_file(&home.path.join(SECRET_KEYS).join(keygrip.file_name()), SECRET_KEY_MAX)
    }

    /// The identities in `keys/`, and the names there that no identity has, both ordered.
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

    /// The files of one home; see [`Home::examine`].
    pub fn examine(&self, name_email: NameEmail, owner: u32) -> Option<Home> {
        Home::examine(&self.0.homes, name_email, owner)
    }

    /// The certificate of a whole home. It must be one of the secret key beside it.
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

    /// How passphrases are read.
    pub fn passphrases(&self) -> &Passphrases {
        &self.0.passphrases
    }

    /// Whether there is a place in memory for the phrases of a sealed state.
    pub fn would_provide_phrases(&self) -> Result<()> {
        match self.0.signd.phrase_files() {
            // What is above it is made by the unit, at every boot.
            Some(files) if !files.directory().parent().is_some_and(Path::exists) => Ok(()),
            Some(files) => files.would_be_in_memory(),
            None => Err(passphrase::needs_directory()),
        }
    }

    /// Fails when the directory for phrases holds what is not of this state.
    pub fn check_phrases_are_ours(&self) -> Result<()> {
        self.0.signd.check_phrases_are_ours()
    }

    /// In which form the passphrase of a whole home is kept.
    pub fn passphrase_form(&self, home: &Home) -> Result<Form> {
        passphrase::form_in(&home.path)
    }

    /// The homes of the pool and of the trash, and in which form the passphrase of each is kept. One that
    /// is gone by now, or has none that can be read, is left out.
    pub fn passphrases_apart(&self) -> Result<Vec<(PathBuf, Form)>> {
        let mut locations = passphrase_locations::in_pool(self.0.pool.directory())?;
        locations.extend(passphrase_locations::in_trash(&self.0.trash)?);
        let mut forms = Vec::with_capacity(locations.len());
        for location in locations {
            forms.extend(location.form()?.map(|form| (location.home, form)));
        }
        Ok(forms)
    }

    /// Where copies of passphrases in the clear lie about in the state, as far as passphrases can be opened.
    pub fn plaintext_copies(&self) -> Result<Vec<PathBuf>> {
        self.0.plaintext_copies()
    }

    /// Tries whether the passphrase of a whole home opens.
    pub fn open_passphrase(&self, home: &Home) -> Result<()> {
        match &home.keygrip {
            Some(keygrip) => self.0.passphrases.read(&home.path, keygrip).map(drop),
            None => Err(Error::NoKey(home.name_email.clone())),
        }
    }

    /// Makes a signature in staging with the secret key and the passphrase of a home, and verifies it.
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

    /// Whether signd is given what it takes to sign with a whole home: its secret key and its phrase.
    pub fn is_seen(&self, home: &Home) -> bool {
        let phrase = self.0.signd.phrases().join(home.name_email.as_str());
        let link = |grip: &Keygrip| self.0.signd.secret_keys().join(grip.file_name());
        phrase.exists() && home.keygrip.as_ref().is_some_and(|grip| link(grip).exists())
    }

    /// Makes a signature as signd does: with the phrase and the link to the secret key that it is given, by the
    /// agent that runs in its home, else by one that is configured as that. A home of staging, which holds the
    /// certificate, verifies it.
    pub fn sign_as_signd(&self, home: &Home, certificate: &Certificate) -> Result<()> {
        self.without_sign_of_life(|| self.sign_in_staging(home, certificate))
    }

    /// Verifies a signature over [`gpg::SAMPLE`] that something else made with the key of a home. A home of
    /// staging, which holds nothing but the certificate, verifies it.
    pub fn verify_apart(
        &self,
        home: &Home,
        certificate: &Certificate,
        signature: &[u8],
    ) -> Result<()> {
        self.without_sign_of_life(|| {
            let staged = self.0.staging.create()?;
            copy(&home.path.join(PUBRING), &staged.path().join(PUBRING))?;
            let (work, deadline) = (staged.path(), Instant::now() + KEY_TIME);
            Ok(self.0.gpg.verify_sample(work, signature, &certificate.fingerprint, deadline)?)
        })
    }

    fn without_sign_of_life<T>(&self, work: impl FnOnce() -> Result<T>) -> Result<T> {
        let directory = File::open(self.0.staging.directory()).and_then(|opened| {
            let modified = opened.metadata()?.modified()?;
            Ok((opened, modified))
        });
        let result = work();
        // Who only looks gives no sign of life, by which the clock is judged.
        if let Err(e) = directory.and_then(|(opened, modified)| opened.set_modified(modified)) {
            log::debug!("{}: {e}", self.0.staging.directory().display());
        }
        result
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
        // In phrases/ it is a link to the passphrase.
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

    /// Writes `key.json` anew from what gpg says, under the lock of the home.
    ///
    /// [`Error::InUse`] when another process works on this key.
    pub fn rewrite_record(&self, home: &Home) -> Result<KeyRecord> {
        let _held = hold_key(&home.path, &home.name_email)?;
        // It may have become another one until the lock was there.
        let certificate = self.certificate(home)?;
        let Some(keygrip) = certificate.keygrip.clone() else {
            return Err(Error::NoKey(home.name_email.clone()));
        };
        // A client that asks for changes may have been told something else until now.
        let changed = clock::believed()?.max(certificate.created);
        let record = KeyRecord::of_certificate(&certificate, keygrip, changed);
        let staged = self.0.staging.create()?;
        record.write(staged.path())?;
        replace(&staged.path().join(RECORD), &home.path.join(RECORD))?;
        Ok(record)
    }

    /// The links for obs-signd that are not as they should be; `homes` is what is in `keys/`.
    pub fn odd_links(&self, homes: &[Home]) -> Result<Vec<LinkProblem>> {
        self.links().survey(homes)
    }

    /// Puts a link right.
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

    /// Whether signd has its marker for changes.
    pub fn has_marker(&self) -> bool {
        self.0.signd.has_marker()
    }

    /// Files in that agent's home that we have not written and that matter; see
    /// [`SigndView::misleading_files`].
    pub fn misleading_files(&self) -> Vec<(PathBuf, &'static str)> {
        self.0.signd.misleading_files()
    }

    /// Makes the files of that home that are missing, and adds what the agent's configuration lacks.
    pub fn prepare(&self) -> Result<()> {
        self.0.signd.prepare(self.0.staging.create()?.scratch())
    }

    /// Where the directories of the old service are kept.
    pub fn old_services(&self) -> Result<Vec<PathBuf>> {
        Ok(old_services(&self.0.trash)?.into_iter().map(|(_, entry)| entry).collect())
    }

    /// What is in `staging/`, ordered.
    pub fn work(&self) -> Result<Vec<(PathBuf, StagingWork)>> {
        self.0.staging.survey()
    }

    /// Removes the work of dead processes of this host; returns how many homes that were.
    pub fn clear_staging(&self) -> Result<usize> {
        self.0.staging.clear(self.0.signd.secret_keys())
    }
}

/// Whether the sockets of gpg-agents fit below the state directory `root`.
pub fn check_path_length(root: &Path) -> Result<()> {
    staging::check_path_length(root)
}
