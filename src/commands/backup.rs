//! `copr-keygen backup`: writes an encrypted archive of the keys. The archive in the clear goes to gpg alone.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, BufWriter, IsTerminal, Read};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use gpg::{clock, text};
use keystore::archive::format::Header;
use keystore::{Archived, Store, Workplace, check_outside, interrupt, rename, rename_by};
use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
use serde_json::{Value, json};

use super::{output, progress, state};
use crate::cli::Backup;
use crate::error::{Error, Result};
use crate::settings::Settings;

/// The largest recipient file that is accepted, in bytes; any reasonable certificate is shorter.
const RECIPIENT_MAX: u64 = 1024 * 1024;

/// The time limit for gpg to check one certificate.
const LOOK_TIME: Duration = Duration::from_secs(10);

/// The path of a recipient's certificate, and its content.
pub type Recipient = (PathBuf, Vec<u8>);

/// Reads the certificates to which the archive will be encrypted.
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

/// Writes the archive and reports what is in it.
pub fn run(settings: &Settings, options: &Backup, recipients: &[Recipient]) -> Result<()> {
    let to_stdout = options.to == Path::new("-");
    if to_stdout && options.json {
        return Err(Error::Usage(
            "--json cannot be given with --to -: the archive is on stdout".into(),
        ));
    }
    let mut to = options.to.clone();
    if to.is_dir() {
        to.push(format!("copr-keygen-{}.tar.gpg", clock::iso_basic(clock::now()?)));
    }
    if !to_stdout {
        check_outside(&to, &settings.state_dir)?;
    }
    let store = state::open_with_gpg(settings)?;
    let _work = interrupt::work();
    let target = Target::open(&to)?;
    match write(&store, options, recipients, &target) {
        Ok(written) => written.conclude(&to, target.finish()?, options),
        Err(e) => {
            target.discard();
            Err(e)
        }
    }
}

/// What was written into a finished archive.
struct Written {
    header: Header,
    archived: usize,
    unchanged: usize,
    /// The keys that could not be read, as JSON entries; the archive lacks them.
    failed: Vec<Value>,
}

impl Written {
    fn conclude(self, to: &Path, bytes: Option<u64>, options: &Backup) -> Result<()> {
        let Self { header, archived, unchanged, failed } = self;
        let of =
            if header.since.is_some() { format!(", {unchanged} unchanged") } else { String::new() };
        let size = bytes.map_or_else(String::new, |bytes| format!(", {}", text::size(bytes)));
        log::info!("{} archived{of}{size}", output::keys(archived));
        if archived + unchanged == 0 {
            log::warn!("there was no key to be archived");
        }
        let time = clock::timestamp(header.time);
        log::info!("the next increment is: copr-keygen backup --since {time} …");
        let object = json!({
            "to": to.to_string_lossy(),
            "bytes": bytes,
            "time": header.time,
            "since": header.since,
            "archived": archived,
            "unchanged": unchanged,
            "failed": failed,
        });
        output::report(options.json, &object, "")?;
        state::all_done(failed.is_empty(), || {
            let keys = output::keys(failed.len());
            format!("{keys} could not be read, see above; all others are in the archive")
        })
    }
}

fn write(
    store: &Store,
    options: &Backup,
    recipients: &[Recipient],
    target: &Target,
) -> Result<Written> {
    let now = clock::believed()?;
    let since = options.since.map(|moment| moment.before(now));
    // If the clock was ahead during a backup, that backup suggests a `--since` in the
    // future. The next increment would miss every key made before that time. Allow one
    // day: no two clocks of a host differ by more.
    if let Some(since) = since.filter(|since| *since > now + clock::DAY) {
        return Err(Error::Usage(format!(
            "--since {} is still to come; if the clock was ahead then, back everything up, without --since",
            clock::timestamp(since)
        )));
    }
    let work = store.workplace()?;
    let files = put_recipients(&work, recipients)?;
    let encryption = work.gpg().encrypt(work.path(), &files, target.stdio()?)?;
    let mut out = BufWriter::with_capacity(64 * 1024, encryption);
    let (mut archived, mut unchanged, mut failed) = (0, 0, Vec::new());
    let header = progress::with_count("archived", |progress| {
        store.archive(&mut out, since, |outcome: Archived| {
            progress.one();
            match outcome {
                Ok(true) => archived += 1,
                Ok(false) => unchanged += 1,
                Err((name_email, e)) => {
                    progress.failed(format_args!("{name_email}: not in the archive: {e}"));
                    failed.push(output::failure(&name_email, &e));
                }
            }
        })
    });
    let (encryption, _) = out.into_parts();
    // If gpg stopped reading, report its own message, which says why. After any other failure gpg ends early,
    // and no tool accepts its unfinished output as an archive.
    let header = match header {
        Err(e) if !encryption.is_broken() => return Err(e),
        header => {
            encryption.finish(&format!("encrypting to {}", target.name().display()))?;
            header?
        }
    };
    Ok(Written { header, archived, unchanged, failed })
}

/// Writes the certificates to files that gpg can read, and has gpg check each.
fn put_recipients(work: &Workplace, recipients: &[Recipient]) -> Result<Vec<PathBuf>> {
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

/// The destination of the archive: stdout, or a file that gets its final name once it is complete.
struct Target {
    path: PathBuf,
    /// The name of the file until it is complete; `None` for stdout.
    part: Option<PathBuf>,
    out: File,
}

impl Target {
    fn open(path: &Path) -> Result<Self> {
        if path == Path::new("-") {
            if io::stdout().is_terminal() {
                return Err(Error::Usage(
                    "stdout is a terminal, and an archive is not text; redirect it".into(),
                ));
            }
            let out = io::stdout().as_fd().try_clone_to_owned();
            let out = out.map_err(|e| Error::io("opening stdout", e))?.into();
            return Ok(Self { path: "stdout".into(), part: None, out });
        }
        if fs::symlink_metadata(path).is_ok() {
            return Err(Error::Refused(format!(
                "{} exists and is not replaced; choose another name",
                path.display()
            )));
        }
        let mut part = OsString::from(path);
        part.push(".part");
        let part = PathBuf::from(part);
        let file = File::options().write(true).create_new(true).mode(0o600).open(&part);
        let out = file.map_err(|e| match e.kind() {
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
        Ok(Self { path: path.into(), part: Some(part), out })
    }

    /// Returns the path that gpg writes to, or "stdout", for messages.
    fn name(&self) -> &Path {
        self.part.as_ref().unwrap_or(&self.path)
    }

    fn stdio(&self) -> Result<Stdio> {
        let cloned = self.out.try_clone();
        cloned.map(Stdio::from).map_err(|e| Error::io("handing the output to gpg", e))
    }

    /// Syncs the finished archive and gives it its final name, durably. Returns its size
    /// in bytes; `None` for stdout.
    fn finish(self) -> Result<Option<u64>> {
        let Self { path, part: Some(part), out } = self else { return Ok(None) };
        let failed = |e| Error::io(format!("finishing {}", path.display()), e);
        out.sync_all().map_err(failed)?;
        let flags = RenameFlags::RENAME_NOREPLACE;
        let named =
            rename_by(&part, &path, || Ok(renameat2(AT_FDCWD, &part, AT_FDCWD, &path, flags)?));
        match named {
            Ok(()) => {}
            // The file system does not know RENAME_NOREPLACE.
            Err(e)
                if e.raw_os_error() == Some(libc::EINVAL)
                    && fs::symlink_metadata(&path).is_err() =>
            {
                rename(&part, &path).map_err(failed)?;
            }
            Err(e) if matches!(e.raw_os_error(), Some(libc::EEXIST | libc::EINVAL)) => {
                return Err(Error::Refused(format!(
                    "{} was made by another process meanwhile; the archive is {}",
                    path.display(),
                    part.display()
                )));
            }
            Err(e) => return Err(failed(e)),
        }
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        let parent = parent.unwrap_or(Path::new("."));
        File::open(parent).and_then(|directory| directory.sync_all()).map_err(failed)?;
        out.metadata().map(|found| Some(found.len())).map_err(failed)
    }

    fn discard(self) {
        if let Some(part) = self.part {
            if let Err(e) = fs::remove_file(&part) {
                log::warn!("{}: could not be removed: {e}", part.display());
            }
        }
    }
}
