//! Checks what new keys need: free space, a single file system for the whole state, and random numbers.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use keystore::{PARTS, Space};

use super::finding::Section;
use super::host::Host;
use super::survey::Survey;

/// `check` warns when the disk has room for fewer keys than this.
const FEW_KEYS: u64 = 1000;

/// The device that becomes readable once the kernel's random number generator is initialised. From Linux 5.6
/// on it stays readable (random(4)).
const RANDOM: &str = "/dev/random";

pub fn random_numbers() -> Section {
    let mut section = Section::new("random numbers");
    let device = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(RANDOM);
    match device.and_then(|mut device| device.read(&mut [0])) {
        Ok(_) => section.ok(RANDOM, "ready, so neither haveged nor rngd is needed"),
        Err(e) => section.failed(
            RANDOM,
            format!("gives nothing, and making a key hangs until it does: {e}"),
            "wait a minute after boot; if it stays so, give a virtual machine a virtio-rng device",
        ),
    }
    section
}

pub fn section(host: &Host, _: &Survey) -> Section {
    let mut section = Section::new("space");
    let subject = host.state().to_string_lossy();
    let space = Space::of(host.state());
    if let Some(space) = section.look(&subject, space, "see whether it is mounted") {
        judge(&mut section, &subject, space);
    }
    let device = |path: &Path| std::fs::metadata(path).map(|found| found.dev()).ok();
    let keys = device(&host.part("keys"));
    for part in PARTS {
        let of_part = device(&host.part(part));
        if of_part.is_some() && keys.is_some() && of_part != keys {
            section.failed(
                part,
                "is on another file system than keys: nothing can be published by rename",
                "keep the whole state directory on one file system",
            );
        }
    }
    section
}

fn judge(section: &mut Section, subject: &str, space: Space) {
    if !space.is_enough() {
        let advice = "make room; requests are answered 503 until then and nothing is lost";
        return section.failed(subject, format!("{space}: no key can be made"), advice);
    }
    let message = format!("{space}: room for about {} more keys", space.keys());
    match space.keys() < FEW_KEYS {
        true => section.warning(subject, message, "make room"),
        false => section.ok(subject, message),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_fails_and_one_that_fills_up_warns() {
        for (bytes, inodes, well) in [
            (1 << 40, Some(1 << 30), true),
            (1 << 40, None, true),
            (16 << 20, Some(1 << 30), false),
            (1 << 40, Some(5000), false),
            (100, Some(1 << 30), false),
            (1 << 40, Some(3), false),
        ] {
            let mut section = Section::new("space");
            judge(&mut section, "state", Space { bytes, inodes });
            assert_eq!(section.is_well(), well, "{section:?}");
        }
        let mut section = Section::new("space");
        judge(&mut section, "state", Space { bytes: 0, inodes: None });
        assert!(format!("{section:?}").contains("no key can be made"), "{section:?}");
    }
}
