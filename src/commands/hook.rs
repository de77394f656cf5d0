//! Tells a program of the operator's which certificates have changed. What it has been told is kept
//! track of by one time stamp, so that a run that was cut off, or a hook that failed, is made up for.

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, UNIX_EPOCH};

use crate::clock;
use crate::error::{Error, Result};
use crate::keys::{Catalog, Filter};
use crate::settings::Settings;

/// In the state directory. Its modification time is when the last hook that succeeded was started.
const STAMP: &str = "hook-stamp";

/// `changed` of a key is set shortly before others see it, so a run beside this one may publish a key
/// that seems to have changed earlier. Better told twice than never.
const OVERLAP: u64 = 60;

/// Before anything is changed: from now on changes are kept track of.
pub fn prepare(settings: &Settings) -> Result<()> {
    if settings.hook.get()?.is_some() && told_until(&stamp(settings))?.is_none() {
        set(&stamp(settings), clock::now()?)?;
    }
    Ok(())
}

/// Runs the hook, if there is one, when certificates have changed since it last succeeded.
///
/// Keys that have just been made are not meant: who asked for them knows.
pub fn tell(settings: &Settings, catalog: &Catalog) -> Result<()> {
    let Some(hook) = settings.hook.get()? else { return Ok(()) };
    let stamp = stamp(settings);
    let now = clock::now()?;
    let since = match told_until(&stamp)?.unwrap_or(now) {
        // The clock was ahead when the stamp was set, and all that changed since has an earlier date.
        until if clock::is_behind(now, until) => 0,
        until => until.saturating_sub(OVERLAP),
    };
    let changed = Filter { changed_since: Some(since), ..Filter::default() };
    let mut names = String::new();
    // Keys that cannot be read have been reported by the run before.
    for key in catalog.keys(changed)?.flatten() {
        if key.record.changed > key.record.created {
            names.push_str(key.name_email.as_str());
            names.push('\n');
        }
    }
    if !names.is_empty() {
        run(hook, &names)?;
    }
    set(&stamp, now)
}

fn run(hook: &Path, names: &str) -> Result<()> {
    let failed = |why: String| {
        Err(Error::Partly(format!(
            "the hook {} {why}; the next run tells it the same names again",
            hook.display()
        )))
    };
    let mut command = Command::new(hook);
    command.env_clear().env("LC_ALL", "C.UTF-8").env("PATH", "/usr/bin:/bin").current_dir("/");
    // Whatever it prints belongs into the log, not between our JSON.
    let stderr = std::io::stderr().as_fd().try_clone_to_owned();
    command.stdout(stderr.map_or_else(|_| Stdio::null(), Stdio::from)).stdin(Stdio::piped());
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(e) => return failed(format!("could not be started: {e}")),
    };
    // A hook that does not want to know all of it may close its stdin.
    let fed = child.stdin.take().map_or(Ok(()), |mut stdin| stdin.write_all(names.as_bytes()));
    let ended = child.wait();
    match (fed, ended) {
        (Err(e), _) if e.kind() != ErrorKind::BrokenPipe => failed(format!("was not told: {e}")),
        (_, Err(e)) => failed(format!("could not be waited for: {e}")),
        (_, Ok(status)) if !status.success() => failed(format!("failed ({status})")),
        _ => Ok(()),
    }
}

fn stamp(settings: &Settings) -> PathBuf {
    settings.state_dir.join(STAMP)
}

fn told_until(stamp: &Path) -> Result<Option<u64>> {
    match fs::metadata(stamp).and_then(|found| found.modified()) {
        Ok(at) => Ok(Some(at.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()))),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
        Err(e) => Err(Error::io(format!("looking at {}", stamp.display()), e)),
    }
}

fn set(stamp: &Path, at: u64) -> Result<()> {
    File::options()
        .write(true)
        .create(true)
        .truncate(true)
        .open(stamp)
        .and_then(|file| file.set_modified(UNIX_EPOCH + Duration::from_secs(at)))
        .map_err(|e| Error::io(format!("writing {}", stamp.display()), e))
}
