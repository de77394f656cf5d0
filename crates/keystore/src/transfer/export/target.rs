//! The directory that an export writes. Only its owner can access it, and it is marked as incomplete until
//! every key in it has been tried.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use gpg::agent::{FOR_MANY_CLIENTS, agent_configuration};
use gpg::{Fingerprint, Keygrip};
use zeroize::Zeroizing;

use crate::check_outside;
use crate::error::{Error, Result};
use crate::files::durable::{sync, write_new};
use crate::files::{ensure_directory, entries, make_directory};
use crate::identity::NameEmail;
use crate::layout::{DIRECTORY_MODE, PUBRING, REVOCATIONS, SECRET_KEYS, revocation_file};
use crate::transfer::report::MissingKey;

/// The name of the marker, which exists until the export is complete.
const INCOMPLETE: &str = "INCOMPLETE";
const INCOMPLETE_TEXT: &str = "copr-keygen has not finished this export: keys are missing here, or \
                               were not tried.\nRemove the directory and export again.\n";

/// The directory that is being written.
#[derive(Debug)]
pub struct ExportTarget {
    to: PathBuf,
    /// The keyring, open for appending. `None` until the first certificate is written.
    keyring: Option<BufWriter<File>>,
}

/// A key in the target, with the facts that gpg reads from its certificate.
#[derive(Debug)]
pub struct ExportedKey {
    pub name_email: NameEmail,
    pub fingerprint: Fingerprint,
    pub created: u64,
    pub expires: Option<u64>,
    pub revoked: bool,
}

/// The content of a home's files, in the form in which the target gets it.
pub struct KeyContents {
    pub keygrip: Keygrip,
    /// The header blob of `pubring.kbx`.
    pub first: Vec<u8>,
    /// The keybox blob of the certificate.
    pub certificate: Vec<u8>,
    pub secret: Zeroizing<Vec<u8>>,
    pub phrase: Zeroizing<Vec<u8>>,
    /// The revocation certificate. A key without one can still sign.
    pub revocation: Option<Zeroizing<Vec<u8>>>,
}

impl ExportTarget {
    /// Describes what an interrupted export leaves behind.
    pub fn left(&self) -> String {
        format!("{} stays marked as {INCOMPLETE}; remove it and export again", self.to.display())
    }

    /// Makes the directories. Only their owner can access them.
    pub fn make(to: &Path, keys: &Path) -> Result<Self> {
        let refuse = |why: &str| Err(Error::Usage(format!("--to {}: {why}", to.display())));
        check_outside(to, keys.parent().unwrap_or(keys))?;
        match ensure_directory(to) {
            Err(e) if e.kind() == io::ErrorKind::PermissionDenied => {
                return refuse(
                    "may not be made by the owner of the keys, who does the work; make an empty \
                     directory and give it away with chown",
                );
            }
            made => made.map_err(Error::at("making", to))?,
        }
        let found = fs::metadata(to).map_err(Error::at("looking at", to))?;
        if !found.is_dir() {
            return refuse("is not a directory");
        }
        let me = nix::unistd::geteuid().as_raw();
        if found.uid() != me {
            return refuse(&format!(
                "belongs to uid {} and not to the owner of the keys, uid {me}; give it away with chown",
                found.uid()
            ));
        }
        if !entries(to)?.is_empty() {
            return refuse("is not empty; name a directory that is empty or does not exist");
        }
        fs::set_permissions(to, Permissions::from_mode(DIRECTORY_MODE))
            .map_err(Error::at("setting the mode of", to))?;
        let target = Self { to: to.into(), keyring: None };
        write_new(&target.marker(), INCOMPLETE_TEXT.as_bytes())?;
        sync(&target.marker())?;
        sync(to)?;
        let gnupg = target.gnupg();
        make_directory(&gnupg)?;
        for path in [target.phrases(), target.secret_keys(), gnupg.join(REVOCATIONS)] {
            make_directory(&path)?;
        }
        let configuration = agent_configuration(&FOR_MANY_CLIENTS);
        write_new(&gnupg.join("gpg-agent.conf"), configuration.as_bytes())?;
        Ok(target)
    }

    fn marker(&self) -> PathBuf {
        self.to.join(INCOMPLETE)
    }

    fn gnupg(&self) -> PathBuf {
        self.to.join("gnupg")
    }

    fn phrases(&self) -> PathBuf {
        self.to.join("phrases")
    }

    /// The path of the keyring.
    pub fn pubring(&self) -> PathBuf {
        self.gnupg().join(PUBRING)
    }

    /// The directory of the secret keys.
    pub fn secret_keys(&self) -> PathBuf {
        self.gnupg().join(SECRET_KEYS)
    }

    /// The path of the phrase of an identity.
    pub fn phrase(&self, name_email: &NameEmail) -> PathBuf {
        self.phrases().join(name_email.as_str())
    }

    /// Writes the files of a key.
    pub fn add(&mut self, key: &ExportedKey, contents: &KeyContents) -> Result<()> {
        let secret_key = self.secret_keys().join(contents.keygrip.file_name());
        write_new(&secret_key, &contents.secret)?;
        write_new(&self.phrase(&key.name_email), &contents.phrase)?;
        if let Some(revocation) = &contents.revocation {
            let directory = self.gnupg().join(REVOCATIONS);
            write_new(&directory.join(revocation_file(&key.fingerprint)), revocation)?;
        }
        let pubring = self.pubring();
        let keyring = match &mut self.keyring {
            Some(keyring) => keyring,
            None => {
                write_new(&pubring, &contents.first)?;
                let file = OpenOptions::new().append(true).open(&pubring);
                let file = file.map_err(Error::at("writing", &pubring))?;
                self.keyring.insert(BufWriter::new(file))
            }
        };
        keyring.write_all(&contents.certificate).map_err(Error::at("writing", &pubring))
    }

    /// Writes buffered certificates to the keyring.
    pub fn flush(&mut self) -> Result<()> {
        let pubring = self.pubring();
        let flushed = self.keyring.as_mut().map_or(Ok(()), BufWriter::flush);
        flushed.map_err(Error::at("writing", &pubring))
    }

    /// Flushes the whole file system with one syncfs(2): an fsync(2) for each of three files a key would take
    /// longer than all other work. If no key is `missing`, marks the export as complete.
    pub fn finish<'a>(self, missing: impl Iterator<Item = &'a MissingKey>) -> Result<()> {
        let marker = self.marker();
        let missing: String = missing.map(|key| format!("{key}: {}\n", key.reason)).collect();
        if !missing.is_empty() {
            fs::write(&marker, format!("{INCOMPLETE_TEXT}\n{missing}"))
                .map_err(Error::at("writing", &marker))?;
        }
        File::open(&self.to)
            .and_then(|directory| Ok(nix::unistd::syncfs(directory)?))
            .map_err(Error::at("writing through to the disk", &self.to))?;
        if missing.is_empty() {
            fs::remove_file(&marker).map_err(Error::at("removing", &marker))?;
            sync(&self.to)?;
        }
        Ok(())
    }
}
