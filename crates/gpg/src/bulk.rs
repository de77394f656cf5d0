//! Reads a keyring of many certificates with one gpg process. gpg never writes the keyring and leaves no file
//! beside it.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::time::{Duration, Instant};

use crate::call::{GpgCall, Keyring, LISTING};
use crate::error::{Error, Result};
use crate::inspect::parse_listing;
use crate::listing::Certificate;
use crate::programs::Gpg;

/// How long gpg may take to read a whole keyring. The setting `gpg_timeout` does not apply: it is meant for one
/// key.
const BULK_TIME: Duration = Duration::from_secs(3600);

/// The approximate size, in bytes, of the pieces in which a listing is parsed.
const PIECE: usize = 1024 * 1024;

impl Gpg {
    /// Exports all certificates of a keyring, one after the other, into the new file `into`.
    pub fn export_all(&self, keyring: Keyring, into: &Path) -> Result<()> {
        let call = self.bulk_call(keyring).words(["--no-armor", "--export"]);
        run_into(call, into, "exporting a keyring")
    }

    /// Calls `each` with every certificate of a keyring, in the order of the keyring. The certificates have
    /// keygrips and no signatures. gpg writes its listing to the new file `through` first.
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

    /// Calls `each` with every key in a file of secret keys: the output of `gpg --export-secret-keys`, or the
    /// `secring.gpg` of GnuPG 1.4. No key is imported. `work` is a staging directory.
    pub fn list_secret_keys(
        &self,
        file: &Path,
        work: &Path,
        through: &Path,
        each: impl FnMut(Certificate),
    ) -> Result<()> {
        // gpg insists on a keyring even for this command, and creates an empty one.
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

/// Parses the listing that gpg has written to `path`, and calls `each` with every certificate. Errors name
/// `file`, which is what gpg has listed.
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
