//! `copr-keygen restore`: restores the keys of a decrypted archive.

use std::fs::File;
use std::io::{self, IsTerminal, Read};
use std::os::fd::AsFd;
use std::path::Path;
use std::time::Duration;

use gpg::clock;
use gpg::process::wait_readable;
use gpg::text::printable;
use keystore::{NameEmail, Passphrases, Restored, Summary, interrupt};
use nix::poll::{PollFd, PollFlags};
use serde_json::json;

use super::{output, progress, state};
use crate::cli::Restore;
use crate::error::{Error, Result};
use crate::settings::Settings;

/// Restores the keys of an archive, and reports each key that could not be restored.
pub fn run(settings: &Settings, options: &Restore) -> Result<()> {
    let input = open(&options.from)?;
    let store = state::open_to_fill(settings)?;
    let _work = interrupt::work();
    let mut failed = Vec::new();
    let summary = progress::with_count("restored", |progress| {
        let mut report = |name_email: &NameEmail, result: Result<Restored>| {
            progress.one();
            if let Err(e) = result {
                progress.failed(format_args!("{name_email}: {e}"));
                failed.push(output::failure(name_email, &e));
            }
        };
        Ok::<_, Error>(store.restore(input, *settings.jobs.get()?, &mut report))
    })?;
    if options.json {
        let (header, why) = match &summary.whole {
            Ok(header) => (json!(header), None),
            Err(e) => (json!(null), Some(e.to_string())),
        };
        output::json(&json!({
            "made": summary.made,
            "updated": summary.updated,
            "kept": summary.kept,
            "unknown": summary.unknown,
            "failed": failed,
            "archive": header,
            "not_whole": why,
        }))?;
    }
    conclude(summary, Passphrases::new(&settings.keystore()?).marker()?.is_some())
}

/// Logs how the restore ended and returns its result. `is_sealed` is whether this state seals its passphrases.
fn conclude(summary: Summary, is_sealed: bool) -> Result<()> {
    let Summary { made, updated, kept, failed, unknown, whole } = summary;
    log::info!(
        "{} restored, {} brought up to date, {} there already",
        output::keys(made),
        output::number(updated, "certificate", "certificates"),
        output::keys(kept)
    );
    let header = match whole {
        Ok(header) => header,
        // These need no more words: with a wrong passphrase-key no key was looked at, and an interruption
        // says itself that the restored keys stay.
        Err(e @ (Error::Settings(_) | Error::Interrupted { .. })) => return Err(e),
        Err(e) => {
            return Err(Error::Partly(format!(
                "{e}; the keys counted above are whole and stay, nothing else of the archive was used"
            )));
        }
    };
    let since =
        header.since.map(|at| format!(", with what changed since {}", clock::timestamp(at)));
    log::info!(
        "the archive is whole: of host \"{}\", begun {}{}",
        printable(&header.host),
        clock::timestamp(header.time),
        since.unwrap_or_default()
    );
    if header.sealing.is_some() && !is_sealed {
        log::warn!(
            "the archive is sealed and this state is not: its passphrases are in the clear here; \
             `copr-keygen seal` seals them"
        );
    }
    if unknown > 0 {
        log::info!(
            "{} of this host not in the archive: made after it, or removed before it",
            output::keys(unknown)
        );
    }
    state::all_done(failed == 0, || {
        format!("{} could not be restored, see above", output::keys(failed))
    })
}

/// The archive as a reader. It may be a pipe from a slow program, so a signal ends the wait for data.
struct Input(File);

impl Read for Input {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let told = interrupt::event().map_err(io::Error::other)?;
        loop {
            if interrupt::signal().is_some() {
                return Err(io::Error::other("interrupted by a signal"));
            }
            let mut fds = [self.0.as_fd(), told].map(|fd| PollFd::new(fd, PollFlags::POLLIN));
            wait_readable(&mut fds, Duration::from_secs(60))?;
            if fds[0].any().unwrap_or(true) {
                return self.0.read(buffer);
            }
        }
    }
}

fn open(path: &Path) -> Result<impl Read> {
    open_file(path).map(|file| io::BufReader::with_capacity(64 * 1024, Input(file)))
}

fn open_file(path: &Path) -> Result<File> {
    if path == Path::new("-") {
        if io::stdin().is_terminal() {
            return Err(Error::Usage(
                "stdin is a terminal; run: gpg --decrypt FILE | copr-keygen restore --from -"
                    .into(),
            ));
        }
        let stdin = io::stdin().as_fd().try_clone_to_owned();
        return stdin.map(File::from).map_err(|e| Error::io("opening stdin", e));
    }
    File::open(path).map_err(|e| match e.kind() {
        io::ErrorKind::PermissionDenied => Error::Refused(format!(
            "{}: {e}; this runs as the owner of the state, uid {}: let your shell open the file, with \
             --from - < FILE",
            path.display(),
            nix::unistd::geteuid()
        )),
        _ => Error::io(format!("opening {}", path.display()), e),
    })
}
