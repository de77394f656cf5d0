//! Writes an archive of the keys while all other work goes on. It changes nothing in the state and takes no
//! lock.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use gpg::clock;
use tar::{Builder, EntryType};

use crate::error::{Error, Result};
use crate::home::home_files::HomeFiles;
use crate::identity::NameEmail;
use crate::layout::{PUBRING, RECORD};
use crate::transfer::archive::format::{HEADER, Header, MANIFEST, SUMS, VERSION, digests, sums};
use crate::transfer::archive::manifest::{ManifestDraft, ManifestEntry};
use crate::{KeyRecord, Store, interrupt};

/// A home that changed up to this many seconds before the requested time is archived too. The clock of a file
/// server may differ, and one key too many does no harm.
const SLACK: u64 = 600;

/// The outcome for one identity: whether its key is in the archive, or which key could not be read and why.
pub type Archived = std::result::Result<bool, (NameEmail, Error)>;

impl Store {
    /// Writes an archive to `out`, of every key whose home changed at `since` (Unix time) or later, or of all
    /// keys. Calls `report` with the outcome for each identity. Every key that was published before the call is
    /// considered.
    pub fn archive(
        &self,
        out: impl Write,
        since: Option<u64>,
        mut report: impl FnMut(Archived),
    ) -> Result<Header> {
        let writing = |e| Error::io("writing the archive", e);
        let host = nix::unistd::gethostname().map(|name| name.to_string_lossy().into_owned());
        let host = host.unwrap_or_default();
        let sealing = self.passphrases.marker()?.map(|marker| marker.check);
        let header = Header { version: VERSION, host, time: clock::now()?, since, sealing };
        // Read all names first and drop duplicates: readdir(3) may return a key twice that is removed and
        // brought back meanwhile.
        let mut names = self.homes.identities()?.collect::<Result<Vec<_>>>()?;
        names.sort_unstable();
        names.dedup();

        let staged = self.staging.create()?;
        let mut manifest =
            ManifestDraft::begin(&staged.scratch().join("manifest")).map_err(writing)?;
        let mut archive = TarWriter { tar: Builder::new(out), time: header.time };
        let text = serde_json::to_vec(&header).map_err(|e| writing(e.into()))?;
        archive.add(HEADER, &text).map_err(writing)?;
        for name_email in names {
            interrupt::check(|| "the archive is not whole and must not be kept".into())?;
            let name = name_email.to_string();
            let (outcome, fingerprint, files) = match self.changed_files(&name_email, since) {
                Ok(None) => continue,
                Ok(Some((fingerprint, files))) => (Ok(files.is_some()), fingerprint, files),
                Err(e) => (Err((name_email, e)), None, None),
            };
            let listed = files.as_ref().map(digests);
            if let Some(listed) = &listed {
                let path = format!("keys/{name}/{SUMS}");
                archive.add(&path, sums(listed).as_bytes()).map_err(writing)?;
            }
            for (file, bytes) in files.iter().flat_map(HomeFiles::iter) {
                archive.add(&format!("keys/{name}/{file}"), bytes).map_err(writing)?;
            }
            report(outcome);
            let entry = ManifestEntry { name_email: name, fingerprint, files: listed };
            manifest.add(&entry).map_err(writing)?;
        }
        let (manifest, length) = manifest.finish().map_err(writing)?;
        archive.add_from(MANIFEST, manifest, length).map_err(writing)?;
        archive.tar.into_inner().and_then(|mut out| out.flush()).map_err(writing)?;
        Ok(header)
    }

    /// Returns the fingerprint of a key, if known, and its files if they changed at `since` or later. Returns
    /// `None` if there is no key.
    fn changed_files(&self, name_email: &NameEmail, since: Option<u64>) -> Result<Option<Changed>> {
        let home = self.homes.path(name_email);
        let print = |record: KeyRecord| record.fingerprint.to_string();
        if let Some(since) = since {
            let record = KeyRecord::read(&home);
            let changed = record.as_ref().map_or(u64::MAX, |record| record.changed);
            if changed.max(newest_ctime(&home)) < since.saturating_sub(SLACK) {
                return Ok(Some((record.map(print), None)));
            }
        }
        match HomeFiles::read(&home) {
            Ok(files) => Ok(files.map(|files| (files.record().map(print), Some(files)))),
            // An empty directory is not a key.
            Err(e) if e.is_damage() && matches!(self.homes.find(name_email), Ok(None)) => Ok(None),
            Err(e) => Err(e),
        }
    }
}

/// The fingerprint of a key, and its files if they changed.
type Changed = (Option<String>, Option<HomeFiles>);

/// Returns the newest ctime of the home, its keyring and its record. The kernel sets it when a home is
/// published or a file in it is replaced. The creation time of a key will not do, since it is chosen before gpg
/// begins.
fn newest_ctime(home: &Path) -> u64 {
    let ctime = |path: &Path| fs::symlink_metadata(path).map_or(i64::MAX, |found| found.ctime());
    let newest = ctime(home).max(ctime(&home.join(PUBRING))).max(ctime(&home.join(RECORD)));
    u64::try_from(newest).unwrap_or_default()
}

/// Writes a tar in the pax format (POSIX.1-2001).
struct TarWriter<W: Write> {
    tar: Builder<W>,
    time: u64,
}

impl<W: Write> TarWriter<W> {
    fn add(&mut self, path: &str, bytes: &[u8]) -> io::Result<()> {
        let length = u64::try_from(bytes.len()).map_err(io::Error::other)?;
        self.add_from(path, bytes, length)
    }

    fn add_from(&mut self, path: &str, from: impl io::Read, length: u64) -> io::Result<()> {
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(EntryType::Regular);
        header.set_mode(0o600);
        header.set_mtime(self.time);
        header.set_uid(0);
        header.set_gid(0);
        header.set_size(length);
        // Every reader takes a short ASCII name from the header. Any other name goes into an extension header.
        if path.is_ascii() && path.len() <= 100 {
            header.set_path(path)?;
        } else {
            self.tar.append_pax_extensions([("path", path.as_bytes())])?;
            header.set_path("keys/see-the-pax-header")?;
        }
        header.set_cksum();
        self.tar.append(&header, from)
    }
}
