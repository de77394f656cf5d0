//! Tells whose work an entry of `staging/` is. A lock is sure to be seen only by processes under the same
//! kernel: some network file systems hide a host's locks from all others. So a lock that can be taken proves
//! that an entry is dead only if this kernel made the entry. On a file system that no other kernel can have
//! mounted, it proves the same for entries that this host made before a reboot. Any other entry counts as
//! dead once it has shown no life for long.
//!
//! An entry is named `<kernel>-<host><random>`: eight hexadecimal digits for the running kernel and the file
//! system as it is mounted, four for the host, and four random ones. Older versions wrote `<host>-<random>`
//! with eight digits each. They leave alone what does not begin with their own host.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::LazyLock;
use std::time::{Duration, SystemTime};

use nix::sys::statfs::{FsType, statfs};

/// The time without a sign of life after which nobody is at work on an entry. It is longer than any job:
/// moving in a million keys takes 28 hours on two cores.
pub const ABANDONED: Duration = Duration::from_secs(7 * 24 * 3600);

/// The types of file systems that only one kernel has mounted, from linux/magic.h and the sources of ZFS:
/// ext4, XFS, Btrfs, tmpfs, ramfs, F2FS, bcachefs, ZFS, overlayfs.
const OF_ONE_KERNEL: [u32; 9] = [
    0xef53,
    0x5846_5342,
    0x9123_683e,
    0x0102_1994,
    0x8584_58f6,
    0xf2f5_2010,
    0xca45_1a4e,
    0x2fc1_2fc1,
    0x794c_7630,
];

/// Tells the work of this process from the work of others in the same `staging/`.
#[derive(Clone, Debug)]
pub struct ProcessTag {
    /// Stands for the running kernel and the mounted file system. Processes with the same digits see our locks.
    kernel: String,
    /// Stands for the host, and stays the same over reboots. A clone of the host has the same digits.
    host: String,
    /// Whether no other kernel can have this file system mounted.
    is_alone: bool,
}

impl ProcessTag {
    /// Returns the tag of this process on the file system of `directory`.
    pub fn of(directory: &Path) -> Self {
        // The file system may be mounted twice, and then the two mounts do not share locks. The directory
        // does not exist yet when `check` looks at a host without a state.
        let device = fs::metadata(directory).map_or(0, |found| found.dev());
        // Without a boot ID, no other process is known to run under the same kernel.
        let kernel = BOOT_ID
            .as_ref()
            .map_or_else(rand::random, |boot| fnv1a(format!("{boot} {device}").as_bytes()));
        let is_alone = statfs(directory)
            .is_ok_and(|found| OF_ONE_KERNEL.map(magic).contains(&found.filesystem_type()));
        Self { kernel: format!("{kernel:08x}"), host: HOST.clone(), is_alone }
    }

    /// Eight hexadecimal digits that stand for the host.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Whether no other kernel can have the file system mounted.
    pub fn is_alone(&self) -> bool {
        self.is_alone
    }

    /// Returns a new name for an entry of this process.
    pub fn name(&self) -> String {
        format!("{}-{}{:04x}", self.kernel, &self.host[..4], rand::random::<u16>())
    }

    /// Whether an entry of this name is certainly dead, if its lock can be taken.
    pub fn proves_dead(&self, name: &OsStr) -> bool {
        let begins = |with: &str| name.as_bytes().strip_prefix(with.as_bytes());
        let is_of = |tag: &str| begins(tag).is_some_and(|rest| rest.starts_with(b"-"));
        // The entry was made on this host before a reboot, or by an older version.
        let is_of_host = || is_of(&self.host) || is_named_by(name, &self.host[..4]);
        is_of(&self.kernel) || (self.is_alone && is_of_host())
    }
}

/// Whether the name has the form `<kernel>-<host><random>` with this host.
fn is_named_by(name: &OsStr, host: &str) -> bool {
    let name = name.as_bytes();
    name.len() == 17
        && name[8] == b'-'
        && name[9..].starts_with(host.as_bytes())
        && name.iter().all(|byte| *byte == b'-' || byte.is_ascii_hexdigit())
}

/// Returns when somebody last worked on an entry. That is the newest modification time of the entry, of the
/// home in it, and of everything at the top of that home.
pub fn last_sign_of_life(entry: &Path, home: &str) -> Option<SystemTime> {
    let home = entry.join(home);
    let inside = fs::read_dir(&home).into_iter().flatten().flatten().map(|entry| entry.path());
    let paths = [entry.to_path_buf(), home].into_iter().chain(inside);
    let times = paths.filter_map(|path| fs::symlink_metadata(path).ok()?.modified().ok());
    times.max()
}

/// The boot ID of the running kernel, where it can be read.
pub static BOOT_ID: LazyLock<Option<String>> = LazyLock::new(|| {
    let id = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    Some(id.trim().to_owned()).filter(|id| id.len() == 36)
});

/// Eight hexadecimal digits that stand for this host: a hash of its machine-id, or else of its host name.
static HOST: LazyLock<String> = LazyLock::new(|| {
    let identity = match fs::read_to_string("/etc/machine-id") {
        Ok(id) if id.trim().len() == 32 => id.trim().to_owned(),
        _ => nix::unistd::gethostname()
            .map_or_else(|_| "unknown".to_owned(), |name| name.to_string_lossy().into_owned()),
    };
    format!("{:08x}", fnv1a(identity.as_bytes()))
});

/// Returns a magic number in the type of statfs(2), whose width and sign depend on the architecture.
fn magic(number: u32) -> FsType {
    FsType(number as _)
}

/// FNV-1a, 32 bits: the same on every build, which the hasher of std does not promise.
fn fnv1a(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193))
}

#[cfg(test)]
impl ProcessTag {
    /// Makes a tag that is made up.
    pub fn made_up(kernel: &str, host: &str, is_alone: bool) -> Self {
        Self { kernel: kernel.into(), host: host.into(), is_alone }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identities_are_stable_and_short() {
        assert_eq!(fnv1a(b"a"), 0xe40c_292c);
        assert_eq!(HOST.len(), 8);
        let name = || ProcessTag::of(Path::new("/")).name();
        assert_eq!(name().len(), 17);
        assert_eq!(name()[..13], name()[..13]);
    }

    #[test]
    fn a_lock_proves_something_of_what_this_kernel_made_only() {
        let proves = |is_alone: bool, name: &str| {
            ProcessTag::made_up("aaaaaaaa", "12345678", is_alone).proves_dead(OsStr::new(name))
        };
        // The name, and whether a free lock proves the entry dead: first where other kernels may be at work,
        // then where none can be.
        for (name, shared, alone) in [
            ("aaaaaaaa-12340000", true, true),
            ("aaaaaaaa-56780000", true, true), // another container under this kernel
            ("bbbbbbbb-12340000", false, true), // before a reboot, or a clone
            ("bbbbbbbb-56780000", false, false), // another host
            ("12345678-00000000", false, true), // an older version, here or on a clone
            ("anotherhost-1234", false, false),
            ("bbbbbbbb-1234zzzz", false, false),
            ("aaaaaaaa", false, false),
        ] {
            assert_eq!((proves(false, name), proves(true, name)), (shared, alone), "{name}");
        }
    }
}
