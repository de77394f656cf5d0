//! Whether the kernel has random numbers to give: without them, making a key would hang.

use std::fs::File;
use std::os::fd::AsFd;
use std::path::Path;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::page::Section;

/// Readable as soon as the kernel's generator is initialised, from Linux 5.6 on for good (random(4)).
const DEVICE: &str = "/dev/random";

/// From here on the kernel's random numbers never run out again (Linux 5.6).
const NEVER_RUNS_OUT: [u32; 2] = [5, 6];

const START_OVER: &str =
    "wait a minute after boot; if it stays so, give a virtual machine a virtio-rng device";

pub fn section() -> Section {
    let mut section = Section::new("random numbers");
    match is_ready(Path::new(DEVICE)) {
        Ok(true) => {}
        Ok(false) => {
            section.failed(
                DEVICE,
                "the kernel has not gathered enough yet: making a key hangs until it has",
                START_OVER,
            );
            return section;
        }
        Err(e) => {
            section.warning(DEVICE, format!("cannot be asked: {e}"), "look into /dev");
            return section;
        }
    }
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    match numbers(&release) {
        Some(version) if version < NEVER_RUNS_OUT => section.warning(
            DEVICE,
            format!("ready now, but Linux {} can run out of them: keys then hang", release.trim()),
            "upgrade to Linux 5.6 or newer, or run haveged or rngd",
        ),
        _ => section.ok(
            DEVICE,
            "ready; since Linux 5.6 it never runs out, so neither haveged nor rngd is needed",
        ),
    }
    section
}

/// Whether reading would not wait.
fn is_ready(device: &Path) -> std::io::Result<bool> {
    let file = File::open(device)?;
    let mut fds = [PollFd::new(file.as_fd(), PollFlags::POLLIN)];
    poll(&mut fds, PollTimeout::ZERO)?;
    Ok(fds[0].any().unwrap_or(false))
}

/// Major and minor of a kernel release like `6.1.0-28-amd64`.
fn numbers(release: &str) -> Option<[u32; 2]> {
    let mut parts = release.split(|c: char| !c.is_ascii_digit());
    Some([parts.next()?.parse().ok()?, parts.next()?.parse().ok()?])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernels_are_told_apart() {
        assert_eq!(numbers("6.1.0-28-amd64\n"), Some([6, 1]));
        assert!(numbers("5.10.0").is_some_and(|found| found > NEVER_RUNS_OUT));
        assert!(numbers("4.18.0-553.el8").is_some_and(|found| found < NEVER_RUNS_OUT));
        assert_eq!(numbers("unknown"), None);
    }

    #[test]
    fn a_device_that_has_nothing_is_not_ready() -> std::io::Result<()> {
        assert!(is_ready(Path::new("/dev/zero"))?);
        assert!(is_ready(Path::new("/nonexistent")).is_err());
        Ok(())
    }
}
