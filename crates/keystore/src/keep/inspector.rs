//! What `check` does with the keys: looks at all that is there, and mends what can be mended. It makes
//! and clears nothing by being opened, unlike [`crate::Store`].

use std::ffi::OsString;
use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use gpg::{Certificate, Gpg, Keygrip, SigningAgent, clock, time_of_signature};

use crate::Catalog;
use crate::error::{Error, Result};
use crate::files::lock::lock;
use crate::home::examine::Home;
use crate::home::record::{KeyRecord, RECORD};
use crate::home::staging::{Staging, Work};
use crate::home::{Homes, PUBRING, SECRET_KEYS, staging};
use crate::identity::NameEmail;
use crate::keep::prolong::{copy, replace};
use crate::keep::trash::old_services;
use crate::options::Options;
use crate::secrets::passphrase::{self, Form, Passphrases};
use crate::secrets::sealing::{places, strays};
use crate::view::agent::{AgentHome, SOCKET};
use crate::view::links::{Links, OddLink};
use crate::view::signd::SigndView;

/// How long all of gpg's work for one key may take, beyond `gpg_timeout` for each run.
const KEY_TIME: Duration = Duration::from_secs(60);

/// The keys of a state directory, for looking at them.
#[derive(Debug)]
pub struct Inspector {
    catalog: Catalog,
    homes: Homes,
    signd: SigndView,
    passphrases: Passphrases,
    staging: Staging,
    staging_directory: PathBuf,
    pool: PathBuf,
    trash: PathBuf,
    gpg: Gpg,
}

impl Inspector {
    /// The keys of the state directory in `options`, which need not exist.
    pub fn new(options: &Options, gpg: Gpg) -> Self {
        let root = &options.state_dir;
        let passphrases = Passphrases::new(options);
        Self {
            catalog: Catalog::new(root, gpg.clone()),
            homes: Homes::new(root),
            signd: SigndView::of(options, &passphrases),
            passphrases,
            staging: Staging::new(root.join("staging")),
            staging_directory: root.join("staging"),
            pool: root.join("pool"),
            trash: root.join("trash"),
            gpg,
        }
    }

    /// The identities in `keys/`, and the names there that no identity has, both ordered.
    pub fn names(&self) -> Result<(Vec<NameEmail>, Vec<OsString>)> {
        let failed = |e| Error::io(format!("reading {}", self.homes.directory().display()), e);
        let (mut names, mut strange) = (Vec::new(), Vec::new());
        for entry in fs::read_dir(self.homes.directory()).map_err(failed)? {
            let name = entry.map_err(failed)?.file_name();
            match name.to_str().and_then(|name| NameEmail::parse(name).ok()) {
                Some(name_email) => names.push(name_email),
                None => strange.push(name),
            }
        }
        names.sort();
        strange.sort();
        Ok((names, strange))
    }

    /// The files of one home; see [`Home::examine`].
    pub fn examine(&self, name_email: NameEmail, owner: u32) -> Option<Home> {
        Home::examine(&self.homes, name_email, owner)
    }

    /// The certificate of a whole home. It must be one of the secret key beside it.
    pub fn certificate(&self, home: &Home) -> Result<Certificate> {
        let certificate = self.catalog.certificate(&home.name_email)?;
        if certificate.keygrip != home.keygrip {
            return Err(Error::Gpg(gpg::Error::DamagedHome {
                path: self.homes.pubring(&home.name_email),
                reason: "is the certificate of another secret key".into(),
            }));
        }
        Ok(certificate)
    }

    /// How passphrases are read.
    pub fn passphrases(&self) -> &Passphrases {
        &self.passphrases
    }

    /// Whether there is a place in memory for the phrases of a sealed state.
    pub fn foresee_phrases(&self) -> Result<()> {
        match self.signd.phrase_files() {
            // What is above it is made by the unit, at every boot.
            Some(files) if !files.directory().parent().is_some_and(Path::exists) => Ok(()),
            Some(files) => files.foresee_in_memory(),
            None => Err(passphrase::needs_directory()),
        }
    }

    /// Fails when the directory for phrases holds what is not of this state.
    pub fn check_phrases_are_ours(&self) -> Result<()> {
        self.signd.check_phrases_are_ours()
    }

    /// In which form the passphrase of a whole home is kept.
    pub fn passphrase_form(&self, home: &Home) -> Result<Form> {
        passphrase::form_in(&home.path)
    }

    /// The homes of the pool and of the trash, and in which form the passphrase of each is kept. One that
    /// is gone by now, or has none that can be read, is left out.
    pub fn passphrases_apart(&self) -> Result<Vec<(PathBuf, Form)>> {
        let mut places = places::in_pool(&self.pool)?;
        places.extend(places::in_trash(&self.trash)?);
        let mut forms = Vec::with_capacity(places.len());
        for place in places {
            match passphrase::form_in(&place.home) {
                Ok(form) => forms.push((place.home, form)),
                Err(Error::Gpg(gpg::Error::DamagedHome { .. })) => {}
                Err(e) => return Err(e),
            }
        }
        Ok(forms)
    }

    /// Where copies of passphrases in the clear lie about in the state, as far as passphrases can be opened.
    pub fn stray_passphrases(&self) -> Result<Vec<PathBuf>> {
        let places = places::all(&self.homes, &self.pool, &self.trash)?;
        strays::find(self.passphrases.root(), &places, &self.passphrases)
    }

    /// Tries whether the passphrase of a whole home opens.
    pub fn open_passphrase(&self, home: &Home) -> Result<()> {
        match &home.keygrip {
            Some(keygrip) => self.passphrases.read(&home.path, keygrip).map(drop),
            None => Err(Error::NoKey(home.name_email.clone())),
        }
    }

    /// Makes a signature in staging with the secret key and the passphrase of a home, and verifies it.
    pub fn try_signature(&self, home: &Home, certificate: &Certificate) -> Result<()> {
        let staged = self.staging.create()?;
        let work = staged.path();
        copy(&home.path.join(PUBRING), &work.join(PUBRING))?;
        let secret = Path::new(SECRET_KEYS);
        fs::create_dir(work.join(secret))
            .map_err(|e| Error::io(format!("making {}", work.join(secret).display()), e))?;
        let Some(grip) = &home.keygrip else {
            return Err(Error::NoKey(home.name_email.clone()));
        };
        let file = secret.join(grip.file_name());
        copy(&home.path.join(&file), &work.join(&file))?;
        let at = time_of_signature(clock::now()?, certificate.created, certificate.expires);
        let phrase = self.passphrases.read(&home.path, grip)?;
        let deadline = Instant::now() + KEY_TIME;
        Ok(self.gpg.try_signature(work, &phrase, &certificate.fingerprint, at, None, deadline)?)
    }

    /// Whether signd is given what it takes to sign with a whole home: its secret key and its phrase.
    pub fn is_seen(&self, home: &Home) -> bool {
        let phrase = self.signd.phrases().join(home.name_email.as_str());
        let link = |grip: &Keygrip| self.signd.secret_keys().join(grip.file_name());
        phrase.exists() && home.keygrip.as_ref().is_some_and(|grip| link(grip).exists())
    }

    /// Makes a signature as signd does: with the phrase and the link to the secret key that it is given, by the
    /// agent that runs in its home, else by one that is configured as that. A home of staging, which holds the
    /// certificate, verifies it.
    pub fn sign_as_signd(&self, home: &Home, certificate: &Certificate) -> Result<()> {
        let directory = File::open(&self.staging_directory).and_then(|opened| {
            let modified = opened.metadata()?.modified()?;
            Ok((opened, modified))
        });
        let result = self.sign_in_staging(home, certificate);
        // Who only looks gives no sign of life, by which the clock is judged.
        if let Err(e) = directory.and_then(|(opened, modified)| opened.set_modified(modified)) {
            log::debug!("{}: {e}", self.staging_directory.display());
        }
        result
    }

    fn sign_in_staging(&self, home: &Home, certificate: &Certificate) -> Result<()> {
        let Some(grip) = &home.keygrip else {
            return Err(Error::NoKey(home.name_email.clone()));
        };
        let staged = self.staging.create()?;
        let work = staged.path();
        let failed = |e| Error::io(format!("preparing {}", work.display()), e);
        let agent_home = self.signd.agent_home();
        copy(&home.path.join(PUBRING), &work.join(PUBRING))?;
        let socket = agent_home.live_socket();
        if let Some(socket) = &socket {
            symlink(socket, work.join(SOCKET)).map_err(failed)?;
        } else {
            let secret_keys = work.join(SECRET_KEYS);
            fs::create_dir(&secret_keys).map_err(failed)?;
            let link = self.signd.secret_keys().join(grip.file_name());
            symlink(link, secret_keys.join(grip.file_name())).map_err(failed)?;
            let configuration = agent_home.configuration_path();
            if let Some(name) = configuration.file_name().filter(|_| configuration.is_file()) {
                symlink(&configuration, work.join(name)).map_err(failed)?;
            }
        }
        let phrase = self.signd.phrases().join(home.name_email.as_str());
        // In phrases/ it is a link to the passphrase.
        let phrase = phrase.canonicalize().and_then(|path| passphrase::beginning(&path));
        let phrase = phrase.map_err(failed)?;
        let phrase = passphrase::first_line(&phrase);
        let at = time_of_signature(clock::now()?, certificate.created, certificate.expires);
        let deadline = Instant::now() + KEY_TIME;
        let agent = if socket.is_some() { SigningAgent::Running } else { SigningAgent::Own };
        Ok(self.gpg.try_signature_by(
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
        let _held = match lock(&home.path) {
            Ok(Some(held)) => held,
            Ok(None) => return Err(Error::InUse(home.name_email.clone())),
            Err(e) => return Err(Error::io(format!("locking {}", home.path.display()), e)),
        };
        // It may have become another one until the lock was there.
        let certificate = self.certificate(home)?;
        let Some(keygrip) = certificate.keygrip else {
            return Err(Error::NoKey(home.name_email.clone()));
        };
        let record = KeyRecord {
            fingerprint: certificate.fingerprint,
            keygrip,
            algorithm: certificate.algorithm,
            created: certificate.created,
            expires: certificate.expires,
            // Who looks for changes may have been told something else until now.
            changed: clock::believed()?.max(certificate.created),
        };
        let staged = self.staging.create()?;
        record.write(staged.path())?;
        replace(&staged.path().join(RECORD), &home.path)?;
        Ok(record)
    }

    /// The links for obs-signd that are not as they should be; `homes` is what is in `keys/`.
    pub fn odd_links(&self, homes: &[Home]) -> Result<Vec<OddLink>> {
        self.links().survey(homes)
    }

    /// Puts a link right.
    pub fn mend_link(&self, odd: &OddLink) -> Result<()> {
        self.links().mend(odd)
    }

    fn links(&self) -> Links<'_> {
        Links { homes: &self.homes, signd: &self.signd, staging: &self.staging }
    }

    /// The home of the agent that signs.
    pub fn agent_home(&self) -> &AgentHome {
        self.signd.agent_home()
    }

    /// Whether signd has its marker for changes.
    pub fn has_marker(&self) -> bool {
        self.signd.has_marker()
    }

    /// Files in that agent's home that nobody of ours has written and that matter; see
    /// [`SigndView::misled`].
    pub fn misled(&self) -> Vec<(PathBuf, &'static str)> {
        self.signd.misled()
    }

    /// Makes the files of that home that are missing, and adds what the agent's configuration lacks.
    pub fn prepare(&self) -> Result<()> {
        self.signd.prepare(self.staging.create()?.scratch())
    }

    /// Where the directories of the old service are kept.
    pub fn old_services(&self) -> Result<Vec<PathBuf>> {
        Ok(old_services(&self.trash)?.into_iter().map(|(_, entry)| entry).collect())
    }

    /// What is in `staging/`, ordered.
    pub fn work(&self) -> Result<Vec<(PathBuf, Work)>> {
        self.staging.survey()
    }

    /// Removes the work of dead processes of this host; returns how many homes that were.
    pub fn clear_staging(&self) -> Result<usize> {
        self.staging.clear(&self.signd)
    }
}

/// Whether the sockets of gpg-agents fit below the state directory `root`.
pub fn check_path_length(root: &Path) -> Result<()> {
    staging::check_path_length(root)
}
