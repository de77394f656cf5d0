//! Tells the operator's program which certificates have changed. A time stamp keeps track of the names it has
//! got: after a run that was cut off, or a hook that failed, the next run tells the same names again.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::thread;
use std::time::{Duration, Instant, UNIX_EPOCH};

use gpg::clock;
use gpg::process::{self, End, Group, pidfd_open, wait_readable};
use keystore::{Catalog, Filter, interrupt};
use nix::poll::{PollFd, PollFlags};
use nix::sys::signal::Signal;

use crate::error::{Error, Result};
use crate::settings::Settings;

/// In the state directory. Its modification time is when the last hook that succeeded was started.
const STAMP: &str = "hook-stamp";

/// `changed` of a key is set shortly before the key is published. A key that another run publishes now may so
/// seem to have changed earlier. A name told twice does no harm; a name never told does.
const OVERLAP: u64 = 60;

/// How long a hook that was told to end may take to do so.
const END_TIME: Duration = Duration::from_secs(5);

/// Looks at the settings of the hook and sets the first time stamp, before the first certificate is changed.
pub fn prepare(settings: &Settings) -> Result<()> {
    if settings.hook.get()?.is_none() {
        return Ok(());
    }
    settings.hook_timeout.get()?;
    match told_until(&stamp(settings))? {
        Some(_) => Ok(()),
        None => set(&stamp(settings), clock::now()?),
    }
}

/// Runs the hook, if there is one, when certificates have changed since it last succeeded.
///
/// Keys that have just been made are left out: the client that asked for them knows about them.
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
    let (mut names, mut unread) = (String::new(), None);
    for key in catalog.keys(changed)? {
        match key {
            Ok(key) if key.record.changed > key.record.created => {
                names.push_str(key.name_email.as_str());
                names.push('\n');
            }
            // Damaged keys have been reported by the run before, and cannot be published.
            Ok(_) | Err(Error::Gpg(gpg::Error::DamagedHome { .. } | gpg::Error::Failed { .. })) => {
            }
            // Whether this one has changed is not known, so the next run has to tell all of them again.
            Err(e) => unread = unread.or(Some(e)),
        }
    }
    if !names.is_empty() {
        interrupt::check(|| "the hook was not run; the next run tells it the names".into())?;
        run(hook, &names, *settings.hook_timeout.get()?)?;
    }
    match unread {
        Some(e) => Err(e),
        None => set(&stamp, now),
    }
}

/// Why a hook is waited for no longer.
enum Because {
    Ended,
    TimedOut,
    Signalled(Signal),
}

fn run(hook: &Path, names: &str, limit: Duration) -> Result<()> {
    let again = "the next run tells it the same names again";
    let failed =
        |why: String| Err(Error::Partly(format!("the hook {} {why}; {again}", hook.display())));
    // The output of the hook belongs into the log, not between our JSON.
    let ours = || io::stderr().as_fd().try_clone_to_owned();
    let stdout = ours().map_or_else(|_| Stdio::null(), Stdio::from);
    let mut command = process::command(hook, false);
    let mut group = match command.stdin(Stdio::piped()).stdout(stdout).spawn() {
        Ok(child) => Group::new(child),
        Err(e) => return failed(format!("could not be started: {e}")),
    };
    // A hook may read slowly, and it may end without reading all of the names, which is no failure.
    let (stdin, names) = (group.child.stdin.take(), names.to_owned());
    let tell = move || stdin.map(|mut stdin| stdin.write_all(names.as_bytes()));
    if let Err(e) = thread::Builder::new().spawn(tell) {
        return failed(format!("could not be told the names: {e}"));
    }
    let because = match attend(&group, Instant::now() + limit) {
        Ok(because) => because,
        Err(e) => return failed(format!("could not be waited for: {e}")),
    };
    if !matches!(because, Because::Ended) {
        group.terminate();
        if let Ok(ended) = pidfd_open(&group.child) {
            let mut fds = [PollFd::new(ended.as_fd(), PollFlags::POLLIN)];
            let _ = wait_readable(&mut fds, END_TIME); // it is killed next, ended or not
        }
    }
    match (because, group.finish()) {
        (Because::Signalled(signal), _) => {
            Err(Error::Interrupted { signal, left: format!("the hook was ended; {again}") })
        }
        (Because::TimedOut, _) => {
            let limit = humantime::format_duration(limit);
            failed(format!("was killed, as it ran for longer than {limit} (setting hook_timeout)"))
        }
        (Because::Ended, Some(End::Exited(0))) => Ok(()),
        (Because::Ended, Some(End::Exited(code))) => failed(format!("failed (exit status {code})")),
        (Because::Ended, Some(End::Killed(signal))) => failed(format!("was killed by {signal}")),
        (Because::Ended, None) => failed("ended, and how is not known".into()),
    }
}

/// Waits for the end of the hook, for the deadline or for a signal.
fn attend(group: &Group, deadline: Instant) -> io::Result<Because> {
    let ended = pidfd_open(&group.child)?;
    let told = interrupt::event().map_err(io::Error::other)?;
    loop {
        if let Some(signal) = interrupt::signal() {
            return Ok(Because::Signalled(signal));
        }
        let limit = deadline.saturating_duration_since(Instant::now());
        if limit.is_zero() {
            return Ok(Because::TimedOut);
        }
        let mut fds = [ended.as_fd(), told].map(|fd| PollFd::new(fd, PollFlags::POLLIN));
        wait_readable(&mut fds, limit)?;
        if fds[0].any().unwrap_or(true) {
            return Ok(Because::Ended);
        }
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
