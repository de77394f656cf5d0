//! `copr-keygen backup`: an encrypted archive of the keys. What goes out in the clear goes to gpg alone.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, BufWriter, IsTerminal, Read};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use gpg::clock;
use keystore::{Archived, Store, check_outside, interrupt, rename, rename_by};
use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};

use super::progress;
use crate::cli::Backup;
use crate::error::{Error, Result};
use crate::settings::Settings;

/// Longer than any certificate with a purpose here.
const RECIPIENT_MAX: u64 = 1024 * 1024;

/// How long gpg may take to look at one certificate.
const LOOK_TIME: Duration = Duration::from_secs(10);

/// A recipient's file and what is in it.
pub type Recipient = (PathBuf, Vec<u8>);

/// Reads the certificates the archive will be encrypted to.
pub fn read_recipients(files: &[PathBuf]) -> Result<Vec<Recipient>> {
    let read = |path: &PathBuf| {
        let failed = |e| Error::io(format!("reading the recipient {}", path.display()), e);
        let mut bytes = Vec::new();
        File::open(path)
            .and_then(|file| file.take(RECIPIENT_MAX + 1).read_to_end(&mut bytes))
            .map_err(failed)?;
        if u64::try_from(bytes.len()).is_ok_and(|length| length > RECIPIENT_MAX) {
            return Err(Error::Refused(format!("recipient {}: longer than 1 MiB", path.display())));
        }
        Ok((path.clone(), bytes))
    };
    files.iter().map(read).collect()
}

/// Writes the archive.
pub fn run(settings: &Settings, options: &Backup, recipients: &[Recipient]) -> Result<()> {
    if options.to != Path::new("-") {
        check_outside(&options.to, &settings.state_dir)?;
    }
    let gpg = settings.gnupg()?;
    gpg.check_installed()?;
    let store = Store::open(&settings.keystore()?, gpg)?;
    let _work = interrupt::work();
    let target = Target::open(&options.to)?;
    let result = write(&store, options, recipients, &target);
    match (&result, target) {
        (Err(Error::Partly(_)) | Ok(()), target) => target.finish()?,
        (Err(_), target) => target.discard(),
    }
    result
}

fn write(store: &Store, options: &Backup, recipients: &[Recipient], target: &Target) -> Result<()> {
    let now = clock::now()?;
    let since = options.since.map(|moment| moment.before(now));
    let work = store.workplace()?;
    let files = put_recipients(&work, recipients)?;
    let encryption = work.gpg().encrypt(work.path(), &files, target.stdio()?)?;
    let mut out = BufWriter::with_capacity(64 * 1024, encryption);
    let bar = progress::count("archived");
    let (mut archived, mut unchanged, mut damaged) = (0_u64, 0_u64, 0_u64);
    let written = store.archive(&mut out, since, |outcome: Archived| {
        bar.inc(1);
        match outcome {
            Ok(true) => archived += 1,
            Ok(false) => unchanged += 1,
            Err((name_email, e)) => {
                damaged += 1;
                bar.suspend(|| log::error!("{name_email}: not in the archive: {e}"));
            }
        }
    });
    bar.finish_and_clear();
    let (encryption, _) = out.into_parts();
    // What gpg says explains more than that it stopped reading. Otherwise it is broken off, and
    // nobody can take what it has written for an archive.
    let broken = encryption.is_broken();
    let header = match written {
        Err(e) if !broken => return Err(e),
        written => {
            encryption.finish(&format!("encrypting to {}", target.name()))?;
            written?
        }
    };

    let of = if since.is_some() { format!(", {unchanged} had not changed") } else { String::new() };
    log::info!("{archived} keys are in the archive{of}");
    if archived + unchanged == 0 {
        log::warn!(
            "there was no key to be archived in {}",
            store.catalog().homes().directory().display()
        );
    }
    log::info!(
        "the next increment is: copr-keygen backup --since {} …",
        clock::timestamp(header.time)
    );
    match damaged {
        0 => Ok(()),
        count => Err(Error::Partly(format!(
            "{count} keys could not be read and are not in the archive, see above; all others are"
        ))),
    }
}

/// Puts the certificates where gpg can read them, checked.
fn put_recipients(work: &keystore::Workplace, recipients: &[Recipient]) -> Result<Vec<PathBuf>> {
    let put = |(number, (path, bytes)): (usize, &Recipient)| {
        let file = work.path().join(format!("recipient-{number}"));
        fs::write(&file, bytes).map_err(|e| Error::io(format!("writing {}", file.display()), e))?;
        let deadline = Instant::now() + LOOK_TIME;
        work.gpg()
            .check_recipient(work.path(), &file, deadline)?
            .map_err(|why| Error::Refused(format!("recipient {}: {why}", path.display())))?;
        Ok(file)
    };
    recipients.iter().enumerate().map(put).collect()
}

/// Where the archive goes.
enum Target {
    Stdout,
    /// Under the first name until it is whole.
    File {
        part: PathBuf,
        path: PathBuf,
        file: File,
    },
}

impl Target {
    fn open(path: &Path) -> Result<Self> {
        if path == Path::new("-") {
            if io::stdout().is_terminal() {
                return Err(Error::Usage(
                    "stdout is a terminal, and an archive is nothing to look at; redirect it"
                        .into(),
                ));
            }
            return Ok(Self::Stdout);
        }
        if fs::symlink_metadata(path).is_ok() {
            return Err(exists(path));
        }
        let mut part = OsString::from(path);
        part.push(".part");
        let part = PathBuf::from(part);
        let file = File::options().write(true).create_new(true).mode(0o600).open(&part);
        let file = file.map_err(|e| match e.kind() {
            io::ErrorKind::AlreadyExists => Error::Refused(format!(
                "{} exists: another backup is writing it, or one was killed; if so, remove it",
                part.display()
            )),
            io::ErrorKind::PermissionDenied => Error::Refused(format!(
                "{}: {e}; this runs as the owner of the state, uid {}: let your shell open the file, \
                 with --to - > FILE",
                part.display(),
                nix::unistd::geteuid()
            )),
            _ => Error::io(format!("making {}", part.display()), e),
        })?;
        Ok(Self::File { part, path: path.into(), file })
    }

    fn name(&self) -> String {
        match self {
            Self::Stdout => "stdout".into(),
            Self::File { part, .. } => part.display().to_string(),
        }
    }

    fn stdio(&self) -> Result<Stdio> {
        let cloned = match self {
            Self::Stdout => io::stdout().as_fd().try_clone_to_owned(),
            Self::File { file, .. } => file.as_fd().try_clone_to_owned(),
        };
        cloned.map(Stdio::from).map_err(|e| Error::io("handing the output to gpg", e))
    }

    /// Gives the finished archive its name, durably.
    fn finish(self) -> Result<()> {
        let Self::File { part, path, file } = self else { return Ok(()) };
        let failed = |e| Error::io(format!("finishing {}", path.display()), e);
        file.sync_all().map_err(failed)?;
        let flags = RenameFlags::RENAME_NOREPLACE;
        let named =
            rename_by(&part, &path, || Ok(renameat2(AT_FDCWD, &part, AT_FDCWD, &path, flags)?));
        match named {
            Ok(()) => {}
            // A file system that cannot tell whether it replaces something.
            Err(e)
                if e.raw_os_error() == Some(libc::EINVAL)
                    && fs::symlink_metadata(&path).is_err() =>
            {
                rename(&part, &path).map_err(failed)?;
            }
            Err(e) if matches!(e.raw_os_error(), Some(libc::EEXIST | libc::EINVAL)) => {
                return Err(Error::Refused(format!(
                    "{} was made by somebody else meanwhile; the archive is {}",
                    path.display(),
                    part.display()
                )));
            }
            Err(e) => return Err(failed(e)),
        }
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        let parent = parent.unwrap_or(Path::new("."));
        File::open(parent).and_then(|directory| directory.sync_all()).map_err(failed)
    }

    fn discard(self) {
        if let Self::File { part, .. } = self {
            if let Err(e) = fs::remove_file(&part) {
                log::warn!("{}: could not be removed: {e}", part.display());
            }
        }
    }
}

fn exists(path: &Path) -> Error {
    Error::Refused(format!("{} exists and is not replaced; choose another name", path.display()))
}
