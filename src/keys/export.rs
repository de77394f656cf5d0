//! Writes keys into one ordinary GnuPG home that all of them share, with a directory of phrases: what
//! the old service had, so that nobody has to stay here. Reads the state only; says on the disk that
//! it is incomplete until it has been checked.

use std::collections::HashSet;
use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, BufWriter, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::home::{self, PUBRING, REVOCATIONS, SECRET_KEYS};
use super::{Filter, Form, Key, Store, durable};
use crate::error::{Error, Result};
use crate::gpg::{Fingerprint, Keyring, keybox};
use crate::interrupt;

/// There until all keys are.
const INCOMPLETE: &str = "INCOMPLETE";
const INCOMPLETE_TEXT: &str = "copr-keygen has not finished this export: keys are missing here, or \
                               were not checked.\nRemove the directory and export again.\n";

/// For whoever uses the keys there: their passphrases are 256 random bits, stretching them adds only
/// time, and programs that sign answer for them.
const AGENT_CONFIGURATION: &str = "allow-loopback-pinentry\ns2k-count 65536\n";

/// Longer than any file of a home.
const FILE_MAX: u64 = 16 * 1024 * 1024;

/// What an export wrote.
#[derive(Debug, Default)]
pub struct ExportReport {
    /// How many keys are in the new home.
    pub exported: usize,
    /// How many could not be read; each has been logged.
    pub failed: usize,
}

impl Store {
    /// Writes the keys that `filter` lets through below `to`. Calls `progress` with how many are
    /// done.
    pub fn export(
        &self,
        to: &Path,
        filter: Filter,
        progress: &dyn Fn(usize),
    ) -> Result<ExportReport> {
        let to = &std::path::absolute(to).map_err(|e| failed("finding", to, e))?;
        let target = Target::make(to, self.homes.directory())?;
        let mut report = ExportReport::default();
        let mut written = HashSet::new();
        let mut pubring = BufWriter::new(target.create(&target.pubring())?);
        for key in self.catalog.keys(filter)? {
            interrupt::check(|| {
                format!("{} stays marked as {INCOMPLETE}; remove it and export again", to.display())
            })?;
            let done =
                key.and_then(|key| self.export_one(&key, &target, &mut pubring).map(|()| key));
            match done {
                Ok(key) => {
                    written.insert(key.record.fingerprint);
                    report.exported += 1;
                    progress(report.exported);
                }
                // What is wrong with one key keeps the rest from nothing.
                Err(error @ (Error::DamagedHome { .. } | Error::GpgFailed { .. })) => {
                    log::error!("{error}");
                    report.failed += 1;
                }
                Err(error) => return Err(error),
            }
        }
        pubring.flush().map_err(|e| failed("writing", &target.pubring(), e))?;
        drop(pubring);
        self.check_exported(&target, written)?;
        // All at once: one by one, three files a key would take longer than all else.
        File::open(to)
            .and_then(|directory| Ok(nix::unistd::syncfs(directory)?))
            .map_err(|e| failed("writing through to the disk", to, e))?;
        if report.failed == 0 {
            let marker = to.join(INCOMPLETE);
            fs::remove_file(&marker).map_err(|e| failed("removing", &marker, e))?;
            durable::sync(to)?;
        }
        Ok(report)
    }

    /// Copies one key. Its keyring is read once, so that a new one of `prolong` is there or not.
    fn export_one(&self, key: &Key, target: &Target, pubring: &mut impl Write) -> Result<()> {
        let home = self.homes.path(&key.name_email);
        let (record, fingerprint) = (&key.record, &key.record.fingerprint);
        let source = home.join(PUBRING);
        let keyring = read(&source)?;
        let found = keybox::one_certificate(&keyring)
            .map_err(|reason| Error::DamagedHome { path: source, reason })?;
        let secret = read(&record.secret_key(&home))?;
        let phrase = self.passphrases.read(&home, &record.keygrip)?;
        let phrase = self.passphrases.content(Form::Clear, &record.keygrip, &phrase)?;
        let revocation = format!("{fingerprint}.rev");
        let revoked = read(&home.join(REVOCATIONS).join(&revocation))?;

        let gnupg = target.gnupg();
        let secret_name = record.keygrip.file_name();
        target.write(&gnupg.join(SECRET_KEYS).join(secret_name), &secret)?;
        target.write(&gnupg.join(REVOCATIONS).join(revocation), &revoked)?;
        target.write(&target.phrases().join(key.name_email.as_str()), &phrase)?;
        target
            .begin(pubring, found.first)
            .and_then(|()| pubring.write_all(found.certificate))
            .map_err(|e| failed("writing", &target.pubring(), e))
    }

    /// Whether gpg finds in the new keyring what was written, and nothing else, each with its secret
    /// key.
    fn check_exported(&self, target: &Target, mut written: HashSet<Fingerprint>) -> Result<()> {
        if written.is_empty() {
            let pubring = target.pubring();
            return fs::remove_file(&pubring).map_err(|e| failed("removing", &pubring, e));
        }
        let staged = self.staging.create()?;
        let pubring = target.pubring();
        let keyring = Keyring { home: staged.path(), file: &pubring };
        let mut strange = None;
        let secret_keys = target.gnupg().join(SECRET_KEYS);
        self.gpg.list_all(keyring, &staged.scratch().join("listing"), |certificate| {
            let has_secret = certificate
                .keygrip
                .is_some_and(|keygrip| secret_keys.join(keygrip.file_name()).is_file());
            if !written.remove(&certificate.fingerprint) || !has_secret {
                strange = Some(certificate.fingerprint);
            }
        })?;
        match strange.or_else(|| written.into_iter().next()) {
            None => Ok(()),
            Some(fingerprint) => Err(Error::GpgFailed {
                how: format!("{} is not what was written to it", pubring.display()),
                words: format!("see {fingerprint}"),
            }),
        }
    }
}

/// The directory that is written.
struct Target {
    to: PathBuf,
    has_begun: std::cell::Cell<bool>,
}

impl Target {
    /// Makes the directories, all for their owner only.
    fn make(to: &Path, keys: &Path) -> Result<Self> {
        let refuse = |why: &str| Err(Error::Usage(format!("--to {}: {why}", to.display())));
        let mut builder = DirBuilder::new();
        builder.mode(0o700);
        match builder.create(to) {
            Ok(()) => {}
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
            Err(e) if e.kind() == io::ErrorKind::PermissionDenied => {
                return refuse(
                    "may not be made by the owner of the keys, who does the work; make an empty \
                     directory and give it away with chown",
                );
            }
            Err(e) => return Err(failed("making", to, e)),
        }
        let state = keys.parent().unwrap_or(keys);
        let (here, state) = (to.canonicalize(), state.canonicalize());
        if matches!((&here, &state), (Ok(here), Ok(state)) if here.starts_with(state)) {
            let _ = fs::remove_dir(to); // only if it is empty, so it may have been made above
            return refuse("is inside of the state directory");
        }
        let found = fs::metadata(to).map_err(|e| failed("looking at", to, e))?;
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
        if fs::read_dir(to).map_err(|e| failed("reading", to, e))?.next().is_some() {
            return refuse("is not empty; name a directory that is empty or does not exist");
        }
        fs::set_permissions(to, Permissions::from_mode(0o700))
            .map_err(|e| failed("setting the mode of", to, e))?;
        let target = Self { to: to.into(), has_begun: false.into() };
        target.write(&to.join(INCOMPLETE), INCOMPLETE_TEXT.as_bytes())?;
        durable::sync(&to.join(INCOMPLETE))?;
        durable::sync(to)?;
        let gnupg = target.gnupg();
        let parts = [target.phrases(), gnupg.join(SECRET_KEYS), gnupg.join(REVOCATIONS)];
        for path in [gnupg.clone()].into_iter().chain(parts) {
            builder.create(&path).map_err(|e| failed("making", &path, e))?;
        }
        target.write(&gnupg.join("gpg-agent.conf"), AGENT_CONFIGURATION.as_bytes())?;
        Ok(target)
    }

    fn gnupg(&self) -> PathBuf {
        self.to.join("gnupg")
    }

    fn pubring(&self) -> PathBuf {
        self.gnupg().join(PUBRING)
    }

    fn phrases(&self) -> PathBuf {
        self.to.join("phrases")
    }

    /// A new file, for its owner only.
    fn create(&self, path: &Path) -> Result<File> {
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
        file.map_err(|e| failed("making", path, e))
    }

    fn write(&self, path: &Path, bytes: &[u8]) -> Result<()> {
        self.create(path)?.write_all(bytes).map_err(|e| failed("writing", path, e))
    }

    /// Begins the keyring, once.
    fn begin(&self, pubring: &mut impl Write, first: &[u8]) -> io::Result<()> {
        if self.has_begun.replace(true) { Ok(()) } else { pubring.write_all(first) }
    }
}

/// Reads a file of a home.
fn read(path: &Path) -> Result<Vec<u8>> {
    home::check_file(path.into())?;
    let mut bytes = Vec::new();
    // What was a file when it was looked at may be something else by now.
    let flags = libc::O_NONBLOCK | libc::O_NOFOLLOW;
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path);
    file.and_then(|file| file.take(FILE_MAX).read_to_end(&mut bytes))
        .map_err(|e| failed("reading", path, e))?;
    Ok(bytes)
}

fn failed(doing: &str, path: &Path, error: io::Error) -> Error {
    Error::io(format!("{doing} {}", path.display()), error)
}
