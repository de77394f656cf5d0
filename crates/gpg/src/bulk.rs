//! What is done with a keyring of many certificates at once: read it in one pass. It is never written,
//! and nothing is left beside it.

use std::ffi::OsString;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::time::{Duration, Instant};

use super::{Certificate, Gpg, Keyring, call, listing};
use crate::error::{Error, Result};
use crate::process::{self, Job};

/// How long gpg may take to read a whole keyring; `gpg_timeout` is about one key.
const BULK_TIME: Duration = Duration::from_secs(3600);

/// A listing is parsed in pieces of about this many bytes.
const PIECE: usize = 1024 * 1024;

/// How a listing is to look.
const LISTING: [&str; 3] = ["--with-colons", "--with-keygrip", "--fixed-list-mode"];

impl Gpg {
    /// Writes all certificates of a keyring to the new file `into`, one behind the other.
    pub fn export_all(&self, keyring: Keyring, into: &Path) -> Result<()> {
        let arguments = ["--no-armor", "--export"].map(Into::into);
        self.run_bulk(keyring, &arguments, into, "exporting a keyring")
    }

    /// Hands every certificate of a keyring to `each`, in the keyring's order, with keygrips and
    /// without signatures. The listing goes through the new file `through`.
    pub fn list_all(
        &self,
        keyring: Keyring,
        through: &Path,
        each: impl FnMut(Certificate),
    ) -> Result<()> {
        let mut arguments = LISTING.map(OsString::from).to_vec();
        arguments.push("--list-keys".into());
        self.run_bulk(keyring, &arguments, through, "listing a keyring")?;
        read_listing(keyring.file, through, each)
    }

    /// Hands every key of a stream of secret keys to `each`, as `gpg --export-secret-keys` and the
    /// `secring.gpg` of GnuPG 1.4 have them. No key is imported; `work` is a directory of staging.
    pub fn list_secret_keys(
        &self,
        file: &Path,
        work: &Path,
        through: &Path,
        each: impl FnMut(Certificate),
    ) -> Result<()> {
        let mut arguments = LISTING.map(OsString::from).to_vec();
        arguments.extend(["--show-keys".into(), "--".into(), file.into()]);
        // gpg wants a keyring, and makes an empty one.
        let keyring = Keyring { home: work, file: &work.join("none.kbx") };
        self.run_bulk(keyring, &arguments, through, "listing secret keys")?;
        read_listing(file, through, each)
    }

    fn run_bulk(
        &self,
        keyring: Keyring,
        command: &[OsString],
        into: &Path,
        doing: &str,
    ) -> Result<()> {
        let file = File::options().write(true).create_new(true).open(into);
        let file = file.map_err(|e| Error::io(format!("making {}", into.display()), e))?;
        let mut arguments = call::gpg_arguments(keyring.home);
        arguments.extend(super::certificate::reading(keyring));
        arguments.push("--quiet".into());
        arguments.extend_from_slice(command);
        let started = Instant::now();
        let job = Job {
            program: &self.gpg,
            arguments,
            stdin: b"",
            deadline: started + BULK_TIME,
            background: None,
        };
        let finished = process::run_into(&job, file)
            .map_err(|e| Error::io(format!("running {}", self.gpg.display()), e))?;
        call::succeeded(finished, started.elapsed(), doing).map(drop)
    }
}

/// Reads what gpg has listed of `file` into the file `path`.
fn read_listing(file: &Path, path: &Path, mut each: impl FnMut(Certificate)) -> Result<()> {
    let reading = |e| Error::io(format!("reading {}", path.display()), e);
    let mut listing = BufReader::new(File::open(path).map_err(reading)?);
    let mut piece = Vec::new();
    loop {
        let begin = piece.len();
        let is_end = listing.read_until(b'\n', &mut piece).map_err(reading)? == 0;
        let begins = |line: &[u8]| line.starts_with(b"pub:") || line.starts_with(b"sec:");
        if is_end || (begin >= PIECE && begins(&piece[begin..])) {
            let next = piece.split_off(begin);
            let certificates = listing::parse(&piece).map_err(|words| Error::Failed {
                how: format!("its listing of {} is not understood", file.display()),
                words,
            })?;
            certificates.into_iter().for_each(&mut each);
            piece = next;
        }
        if is_end {
            return Ok(());
        }
    }
}
