//! Reads a keyring of many certificates in one pass. The keyring is never written, and no file is left beside it.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::time::{Duration, Instant};

use crate::call::{GpgCall, Keyring, LISTING};
use crate::error::{Error, Result};
use crate::inspect::parse_listing;
use crate::listing::Certificate;
use crate::programs::Gpg;

/// How long gpg may take to read a whole keyring; `gpg_timeout` is about one key.
const BULK_TIME: Duration = Duration::from_secs(3600);

/// A listing is parsed in pieces of about this many bytes.
const PIECE: usize = 1024 * 1024;

impl Gpg {
    /// Writes all certificates of a keyring to the new file `into`, one after the other.
    pub fn export_all(&self, keyring: Keyring, into: &Path) -> Result<()> {
        let call = self.bulk_call(keyring).words(["--no-armor", "--export"]);
        run_into(call, into, "exporting a keyring")
    }

    /// Hands every certificate of a keyring to `each`, in the keyring's order, with keygrips and
    /// without signatures. The listing goes through the new file `through`.
    pub fn list_all(
        &self,
        keyring: Keyring,
        through: &Path,
        each: impl FnMut(Certificate),
    ) -> Result<()> {
        let call = self.bulk_call(keyring).words(LISTING).words(["--list-keys"]);
        run_into(call, through, "listing a keyring")?;
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
        // gpg needs a keyring for this, and makes an empty one.
        let keyring = Keyring { home: work, file: &work.join("none.kbx") };
        let call = self.bulk_call(keyring).words(LISTING).words(["--show-keys"]).on(file);
        run_into(call, through, "listing secret keys")?;
        read_listing(file, through, each)
    }

    fn bulk_call<'a>(&'a self, keyring: Keyring<'a>) -> GpgCall<'a> {
        self.long_call(keyring.home, Instant::now() + BULK_TIME).reading(keyring).words(["--quiet"])
    }
}

fn run_into(call: GpgCall, into: &Path, doing: &str) -> Result<()> {
    let file = File::options().write(true).create_new(true).open(into);
    let file = file.map_err(|e| Error::io(format!("making {}", into.display()), e))?;
    call.stdout_to(file).run()?.succeeded(doing).map(drop)
}

/// Reads the listing of `file` that gpg has written to the file `path`.
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
            parse_listing(file, &piece)?.into_iter().for_each(&mut each);
            piece = next;
        }
        if is_end {
            return Ok(());
        }
    }
}
