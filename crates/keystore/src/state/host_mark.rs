//! `state.host`: the mark that says which host uses this state. A state has one host. The agents of two
//! hosts would steal each other's sockets, and each host might not see the locks of the other. The mark
//! exists only on a file system that another kernel can have mounted, too. A host keeps changing its mark as
//! long as it is alive.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread;
use std::time::{Duration, Instant};

use crate::error::{Error, Result};
use crate::files::durable::{rename, write_new};
use crate::files::small_files::beginning_of;
use crate::home::staging::process_tag::{BOOT_ID, ProcessTag};
use crate::layout::HOST_MARK;
use crate::remedy::quote_path;

/// Stands for a kernel whose boot ID cannot be read, as is the case inside the units.
const UNKNOWN: &str = "-";

/// How often a living host changes its mark.
const BEAT: Duration = Duration::from_secs(4);
/// The time for which the mark of another host must not change before that host counts as gone. A file server
/// may show a change late.
const SILENCE: Duration = Duration::from_secs(13);

/// The mark of this host, kept alive until it is dropped.
#[derive(Debug)]
pub struct HostMark {
    /// Whether another host has put its mark there meanwhile.
    is_contested: Arc<AtomicBool>,
    _stop: Sender<()>,
}

impl HostMark {
    /// Puts the mark of this host into the state directory `root`. Returns `None` if no other host can have
    /// the file system mounted. If the mark of another host is there, waits for [`SILENCE`] first.
    ///
    /// Fails with [`Error::Settings`] if that host is alive.
    pub fn take(root: &Path) -> Result<Option<Self>> {
        let tag = ProcessTag::of(root);
        if tag.is_alone() {
            return Ok(None);
        }
        let kernel = BOOT_ID.as_deref().unwrap_or(UNKNOWN);
        Self::take_as(root, &format!("{} {kernel}", tag.host()), BEAT, SILENCE).map(Some)
    }

    fn take_as(root: &Path, host: &str, beat: Duration, silence: Duration) -> Result<Self> {
        let mark = root.join(HOST_MARK);
        wait_for_others(&mark, host, silence)?;
        put(&mark, host)?;
        let (stop, stopped) = mpsc::channel();
        let is_contested = Arc::new(AtomicBool::new(false));
        let (contested, host) = (Arc::clone(&is_contested), host.to_owned());
        let work = move || {
            while stopped.recv_timeout(beat) == Err(RecvTimeoutError::Timeout) {
                let is_ours = read(&mark).is_none_or(|text| is_of(&text, &host));
                if !is_ours && !contested.swap(true, Ordering::SeqCst) {
                    log::error!("{}", in_use(&mark));
                }
                if let Err(e) = put(&mark, &host) {
                    log::warn!("{e}");
                }
            }
        };
        thread::Builder::new()
            .name("host mark".into())
            .stack_size(128 * 1024)
            .spawn(work)
            .map_err(|e| Error::io("starting the thread that keeps state.host alive", e))?;
        Ok(Self { is_contested, _stop: stop })
    }

    /// Fails when another host uses the state as well.
    pub fn check(&self) -> Result<()> {
        match self.is_contested.load(Ordering::SeqCst) {
            true => Err(Error::busy("another host uses this state directory; the log names it")),
            false => Ok(()),
        }
    }
}

/// Waits until the mark of another host has not changed for `silence`. Fails if it changes.
fn wait_for_others(mark: &Path, host: &str, silence: Duration) -> Result<()> {
    let Some(first) = read(mark).filter(|text| !is_of(text, host)) else { return Ok(()) };
    let deadline = Instant::now() + silence;
    log::info!(
        "{} is of another host; waiting for {} s whether it is alive",
        mark.display(),
        silence.as_secs()
    );
    while Instant::now() < deadline {
        thread::sleep(silence / 50);
        if read(mark).is_some_and(|text| text != first) {
            return Err(in_use(mark));
        }
    }
    Ok(())
}

fn in_use(mark: &Path) -> Error {
    Error::Settings(format!(
        "another host uses the same state directory: {} changes; a state is for one host (docs/cluster.md says how \
         several hosts have the same keys); stop copr-keygen there, or give this host a state_dir of its own; \
         `cat {}` shows that host",
        mark.display(),
        quote_path(mark)
    ))
}

/// Writes the mark: `<host> <kernel> <host name> <random number>`
fn put(mark: &Path, host: &str) -> Result<()> {
    let name = nix::unistd::gethostname().unwrap_or_default();
    let number: u64 = rand::random();
    let fresh = fresh_name(mark, number);
    let text = format!("{host} {} {number:016x}\n", name.to_string_lossy());
    write_new(&fresh, text.as_bytes())?;
    rename(&fresh, mark).map_err(|e| {
        let _ = fs::remove_file(&fresh);
        Error::at("writing", mark)(e)
    })
}

fn fresh_name(mark: &Path, number: u64) -> PathBuf {
    mark.with_file_name(format!(".{HOST_MARK}-{number:016x}"))
}

fn read(mark: &Path) -> Option<String> {
    let bytes = beginning_of(mark, 1024).inspect_err(|e| log::warn!("{e}")).ok()??;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

/// Whether a mark belongs to the host `host`, or to a container under the same kernel.
fn is_of(text: &str, host: &str) -> bool {
    let mut parts = text.split(' ').zip(host.split(' '));
    parts.next().is_some_and(|(there, here)| there == here)
        || parts.next().is_some_and(|(there, here)| there == here && here != UNKNOWN)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scratch::scratch;

    const FAST: Duration = Duration::from_millis(50);
    const WAIT: Duration = Duration::from_millis(1500);

    #[test]
    fn a_state_is_for_one_host_as_long_as_that_lives() -> Result<()> {
        let root = scratch();
        let first = HostMark::take_as(root.path(), "aaaaaaaa kernel", FAST, WAIT)?;
        // Other processes of the same host do not wait.
        let begun = Instant::now();
        drop(HostMark::take_as(root.path(), "aaaaaaaa kernel", FAST, WAIT)?);
        assert!(begun.elapsed() < WAIT);
        drop(HostMark::take_as(root.path(), "pod00000 kernel", FAST, WAIT)?);
        assert!(begun.elapsed() < WAIT, "nor do containers");
        let refused = HostMark::take_as(root.path(), "bbbbbbbb -", FAST, WAIT);
        let why = refused.err().map(|e| e.to_string()).unwrap_or_default();
        assert!(why.contains("another host uses the same state directory"), "{why}");
        assert!(first.check().is_ok());
        drop(first);
        thread::sleep(FAST * 4);
        let second = HostMark::take_as(root.path(), "bbbbbbbb -", FAST, WAIT)?;
        assert!(begun.elapsed() > WAIT);
        // A host that does not look first, such as one with an older version, is noticed.
        put(&root.path().join(HOST_MARK), "cccccccc -")?;
        let deadline = Instant::now() + Duration::from_secs(10);
        while second.check().is_ok() {
            assert!(Instant::now() < deadline);
            thread::sleep(FAST);
        }
        Ok(())
    }
}
