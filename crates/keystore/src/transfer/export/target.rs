//! The directory that an export writes: made for its owner only, marked as incomplete until all of it has
//! been tried.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, BufWriter, Read, Seek, SeekFrom, Write};
use std::ops::Range;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use gpg::agent::{FOR_MANY_CLIENTS, agent_configuration};
use gpg::{Fingerprint, Keygrip};

use crate::check_outside;
use crate::error::{Error, Result};
use crate::files::durable::{self, write_new};
use crate::files::{ensure_directory, make_directory, remove_file};
use crate::identity::NameEmail;
use crate::layout::{
    DIRECTORY_MODE, FILE_MODE, GNUPG, PHRASES, PUBRING, REVOCATIONS, SECRET_KEYS, revocation_file,
};

/// There until all keys are.
const INCOMPLETE: &str = "INCOMPLETE";
const INCOMPLETE_TEXT: &str = "copr-keygen has not finished this export: keys are missing here, or \
                               were not tried.\nRemove the directory and export again.\n";

/// The directory that is written.
pub struct Target {
    to: PathBuf,
}

/// A key in the target.
#[derive(Debug)]
pub struct Part {
    pub name_email: NameEmail,
    pub fingerprint: Fingerprint,
    pub keygrip: Keygrip,
    /// Where its certificate is in the keyring.
    pub certificate: Range<u64>,
}

/// The keyring that is written.
pub struct Ring {
    file: BufWriter<File>,
    path: PathBuf,
    length: u64,
}

impl Ring {
    /// Adds a blob; returns where it is.
    pub fn add(&mut self, blob: &[u8]) -> Result<Range<u64>> {
        self.file.write_all(blob).map_err(Error::at("writing", &self.path))?;
        let begin = self.length;
        self.length += blob.len() as u64;
        Ok(begin..self.length)
    }

    /// Writes out what has been added.
    pub fn finish(mut self) -> Result<()> {
        self.file.flush().map_err(Error::at("writing", &self.path))
    }
}

impl Target {
    /// What is left of an export that was cut off.
    pub fn left(&self) -> String {
        format!("{} stays marked as {INCOMPLETE}; remove it and export again", self.to.display())
    }

    /// Makes the directories, all for their owner only.
    pub fn make(to: &Path, keys: &Path) -> Result<Self> {
        let refuse = |why: &str| Err(Error::Usage(format!("--to {}: {why}", to.display())));
        check_outside(to, keys.parent().unwrap_or(keys))?;
        match ensure_directory(to) {
            Ok(()) => {}
            Err(e) if e.kind() == io::ErrorKind::PermissionDenied => {
                return refuse(
                    "may not be made by the owner of the keys, who does the work; make an empty \
                     directory and give it away with chown",
                );
            }
            Err(e) => return Err(Error::at("making", to)(e)),
        }
        let found = fs::metadata(to).map_err(Error::at("looking at", to))?;
        if !found.is_dir() {
            return refuse("is not a directory");
        }
        let me = nix::unistd::geteuid().as_raw();
        if found.uid() != me {
            return refuse(&format!(
                "belongs to uid {} and not to the owner of the keys, uid {me}; give it away with \
                 chown",
                found.uid()
            ));
        }
        if fs::read_dir(to).map_err(Error::at("reading", to))?.next().is_some() {
            return refuse("is not empty; name a directory that is empty or does not exist");
        }
        fs::set_permissions(to, Permissions::from_mode(DIRECTORY_MODE))
            .map_err(Error::at("setting the mode of", to))?;
        let target = Self { to: to.into() };
        target.write(&target.marker(), INCOMPLETE_TEXT.as_bytes())?;
        durable::sync(&target.marker())?;
        durable::sync(to)?;
        let gnupg = target.gnupg();
        let parts = [target.phrases(), target.secret_keys(), gnupg.join(REVOCATIONS)];
        for path in [gnupg.clone()].into_iter().chain(parts) {
            make_directory(&path)?;
        }
        let configuration = agent_configuration(&FOR_MANY_CLIENTS);
        target.write(&gnupg.join("gpg-agent.conf"), configuration.as_bytes())?;
        Ok(target)
    }

    fn marker(&self) -> PathBuf {
        self.to.join(INCOMPLETE)
    }

    fn gnupg(&self) -> PathBuf {
        self.to.join(GNUPG)
    }

    fn phrases(&self) -> PathBuf {
        self.to.join(PHRASES)
    }

    /// The keyring.
    pub fn pubring(&self) -> PathBuf {
        self.gnupg().join(PUBRING)
    }

    /// The directory of the secret keys.
    pub fn secret_keys(&self) -> PathBuf {
        self.gnupg().join(SECRET_KEYS)
    }

    /// Where the secret key of this keygrip is.
    pub fn secret_key(&self, keygrip: &Keygrip) -> PathBuf {
        self.secret_keys().join(keygrip.file_name())
    }

    /// Where the revocation certificate of this key is.
    pub fn revocation(&self, fingerprint: &Fingerprint) -> PathBuf {
        self.gnupg().join(REVOCATIONS).join(revocation_file(fingerprint))
    }

    /// Where the phrase of an identity is.
    pub fn phrase(&self, name_email: &NameEmail) -> PathBuf {
        self.phrases().join(name_email.as_str())
    }

    /// A new file, for its owner only.
    fn create(&self, path: &Path) -> Result<File> {
        let file = OpenOptions::new().write(true).create_new(true).mode(FILE_MODE).open(path);
        file.map_err(Error::at("making", path))
    }

    /// Writes a new file, for its owner only.
    pub fn write(&self, path: &Path, bytes: &[u8]) -> Result<()> {
        write_new(path, bytes)
    }

    /// Begins the keyring, with the blob that every keybox begins with.
    pub fn keyring(&self, beginning: &[u8]) -> Result<Ring> {
        let path = self.pubring();
        let mut ring = Ring { file: BufWriter::new(self.create(&path)?), path, length: 0 };
        ring.add(beginning)?;
        Ok(ring)
    }

    /// Takes the files of a key back; its certificate goes with [`Target::keep`].
    pub fn remove(&self, part: &Part) -> Result<()> {
        let files = [
            self.secret_key(&part.keygrip),
            self.revocation(&part.fingerprint),
            self.phrase(&part.name_email),
        ];
        files.iter().try_for_each(|path| remove_file(path))
    }

    /// Leaves only the certificates of `parts` in the keyring; without any, there is none.
    pub fn keep(&self, beginning: &[u8], parts: &mut [Part]) -> Result<()> {
        let path = self.pubring();
        let mut old = File::open(&path).map_err(Error::at("reading", &path))?;
        fs::remove_file(&path).map_err(Error::at("removing", &path))?;
        if parts.is_empty() {
            return Ok(());
        }
        let mut ring = self.keyring(beginning)?;
        for part in parts {
            let length = part.certificate.end - part.certificate.start;
            let mut bytes = Vec::new();
            old.seek(SeekFrom::Start(part.certificate.start))
                .and_then(|_| Read::by_ref(&mut old).take(length).read_to_end(&mut bytes))
                .map_err(Error::at("reading", &path))?;
            part.certificate = ring.add(&bytes)?;
        }
        ring.finish()
    }

    /// Writes all through to the disk, at once: one by one, three files a key would take longer than all
    /// else. `missing` is one line for each key that is not as it should be; without any, the export is
    /// complete.
    pub fn finish(&self, missing: &[String]) -> Result<()> {
        let marker = self.marker();
        if !missing.is_empty() {
            let text = format!("{INCOMPLETE_TEXT}\n{}\n", missing.join("\n"));
            fs::write(&marker, text).map_err(Error::at("writing", &marker))?;
        }
        File::open(&self.to)
            .and_then(|directory| Ok(nix::unistd::syncfs(directory)?))
            .map_err(Error::at("writing through to the disk", &self.to))?;
        if missing.is_empty() {
            fs::remove_file(&marker).map_err(Error::at("removing", &marker))?;
            durable::sync(&self.to)?;
        }
        Ok(())
    }
}
