//! Runs the operator's hook with the names whose certificates have changed. A stamp file records how far the
//! hook has been told. After an interrupted run or a failed hook, the next run tells it the same names again.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
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

/// The name of the stamp file in the state directory. Its mtime is the time at which the
/// last successful hook was started.
const STAMP: &str = "hook-stamp";

/// The number of seconds by which runs of the hook overlap. A key's `changed` is set shortly before the key
/// is published. A key that another run publishes now may therefore seem to have changed before this run.
/// Telling a name twice does no harm; never telling it does.
const OVERLAP: u64 = 60;

/// The time that a hook has to end after SIGTERM.
const END_TIME: Duration = Duration::from_secs(5);

/// Checks the settings of the hook and creates the stamp file if it is missing. To be
/// called before the first certificate is changed.
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

/// Runs the hook, if one is configured and certificates have changed since it last succeeded.
///
/// Leaves out keys that have not changed since they were made: the client that asked for
/// such a key knows of it.
pub fn tell(settings: &Settings, catalog: &Catalog) -> Result<()> {
    let Some(hook) = settings.hook.get()? else { return Ok(()) };
    let stamp = stamp(settings);
    let now = clock::now()?;
    let since = match told_until(&stamp)?.unwrap_or(now) {
        // The clock was ahead when the stamp was set, so every later change has an
        // earlier date. Tell all names.
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
            // This run has already reported damaged keys, which cannot be published anyway.
            Ok(_) | Err(Error::Gpg(gpg::Error::DamagedHome { .. } | gpg::Error::Failed { .. })) => {
            }
            // It is unknown whether this key has changed, so leave the stamp: the next
            // run must tell all names again.
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

/// Why the wait for a hook ended.
enum Because {
    Ended,
    TimedOut,
    Signalled(Signal),
}

fn run(hook: &Path, names: &str, limit: Duration) -> Result<()> {
    let again = "the next run tells it the same names again";
    let failed =
        |why: String| Err(Error::Partly(format!("the hook {} {why}; {again}", hook.display())));
    // The output of the hook belongs in the log, not amid the JSON on stdout.
    let ours = || io::stderr().as_fd().try_clone_to_owned();
    let stdout = ours().map_or_else(|_| Stdio::null(), Stdio::from);
    let mut command = process::command(hook, false);
    let mut group = match command.stdin(Stdio::piped()).stdout(stdout).spawn() {
        Ok(child) => Group::new(child),
        Err(e) => return failed(format!("could not be started: {e}")),
    };
    // Write the names in a thread: a hook may read slowly. A hook that ends without reading all of them is no
    // failure, so the result of the write is ignored.
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
            let _ = wait_readable(&mut fds, END_TIME); // it is killed next in any case
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

/// Waits until the hook ends, the deadline passes or a signal arrives.
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
    // Whatever is there keeps its content, and neither a link nor a named pipe leads elsewhere.
    File::options()
        .write(true)
        .create(true)
        .truncate(false)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
        .open(stamp)
        .and_then(|file| file.set_modified(UNIX_EPOCH + Duration::from_secs(at)))
        .map_err(|e| Error::io(format!("writing {}", stamp.display()), e))
}
