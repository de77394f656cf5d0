//! Whether there is room for more keys, and whether all of the state is on one file system.

use std::os::unix::fs::MetadataExt;

use keystore::{PARTS, Space};

use super::host::Host;
use super::page::Section;

/// With room for fewer keys it is time to do something.
const FEW_KEYS: u64 = 1000;

pub fn section(host: &Host) -> Section {
    let mut section = Section::new("space");
    let subject = host.state().to_string_lossy();
    match Space::of(host.state()) {
        Ok(space) => judge(&mut section, &subject, space),
        Err(e) => section.failed(&*subject, e.to_string(), "see whether it is mounted"),
    }
    let device = |path: &std::path::Path| std::fs::metadata(path).map(|found| found.dev()).ok();
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
        section.failed(
            subject,
            format!("{space}: no key can be made"),
            "make room; requests are answered 503 until then and nothing is lost",
        );
    } else if space.keys() < FEW_KEYS {
        section.warning(
            subject,
            format!("{space}: room for about {} more keys", space.keys()),
            "make room",
        );
    } else {
        section.ok(subject, format!("{space}: room for about {} more keys", space.keys()));
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
