//! Unpacks an archive. Every byte of it may be hostile. Only members that a backup writes are accepted: in its
//! order, within size limits, each once. The rest of the program sees only names and files.

use std::collections::HashMap;
use std::io::{self, Read};

use gpg::text::printable;
use sha2::{Digest, Sha256};
use tar::{Entry as Member, EntryType, PaxExtensions};

use crate::error::{Error, Result};
use crate::home::home_files::{HomeFileName, HomeFiles};
use crate::identity::NameEmail;
use crate::transfer::archive::format::{HEADER, Header, MANIFEST, SUMS, VERSION, digests, sums};
use crate::transfer::archive::manifest;

/// The size limit in bytes for small members, larger than any extension header, first member or list of sums
/// that a backup writes.
const SMALL_MAX: u64 = 8192;

/// A part of an archive. The header comes first, then the keys, then the entries of the manifest.
#[derive(Debug)]
pub enum Piece {
    /// The header of the archive.
    Header(Header),
    /// The files of a key. Only their names and checksums have been verified.
    Key(NameEmail, HomeFiles),
    /// A key that must not be restored, and the reason.
    Bad(NameEmail, &'static str),
    /// An identity that the manifest lists.
    Listed(NameEmail, Listed),
}

/// The entry of an identity in the manifest, compared with the content of the archive.
#[derive(Debug, PartialEq, Eq)]
pub enum Listed {
    /// The key was in the archive, and has been handed out as a piece of its own.
    Here,
    /// The key was not in the archive as the manifest lists it, and the reason.
    Wrong(&'static str),
    /// The key is not in this archive. Its fingerprint, if known.
    Elsewhere(Option<String>),
}

/// Reads an archive to its end. `Ok` means that it is whole. Every piece is passed to `take` as soon as it has
/// been read, and an error of `take` ends the reading.
pub fn read(mut input: impl Read, take: impl FnMut(Piece) -> Result<()>) -> Result<Header> {
    let mut first = Vec::new();
    input.by_ref().take(512).read_to_end(&mut first).map_err(reading)?;
    recognise(&first)?;
    let mut archive = tar::Archive::new(first.as_slice().chain(input));
    let mut reader = ArchiveReader { take, header: None, current: None, digests: HashMap::new() };
    let mut path = None;
    let mut is_whole = false;
    for member in archive.entries().map_err(reading)?.raw(true) {
        let mut member = member.map_err(reading)?;
        if is_whole {
            return Err(refused("goes on after its manifest"));
        }
        match member.header().entry_type() {
            EntryType::XHeader if path.is_none() => {
                path = Some(path_of_extension(&read_member(&mut member, SMALL_MAX)?)?);
            }
            EntryType::Regular => {
                let bytes = match path.take().flatten() {
                    Some(path) => path,
                    None => member.path_bytes().into_owned(),
                };
                let path = String::from_utf8(bytes)
                    .map_err(|e| unexpected(&String::from_utf8_lossy(e.as_bytes())))?;
                is_whole = reader.member(&path, &mut member)?;
            }
            _ => return Err(unexpected(&String::from_utf8_lossy(&member.path_bytes()))),
        }
    }
    match reader.header {
        Some(header) if is_whole => {
            // Read to the end of the pipe. Then the program at its other end does not fail with EPIPE, and can
            // report a damaged message.
            io::copy(&mut archive.into_inner(), &mut io::sink()).map_err(reading)?;
            Ok(header)
        }
        _ => Err(refused("ends before its manifest, which comes last")),
    }
}

/// Fails unless the first block is that of an archive. The error says what the input is instead.
fn recognise(block: &[u8]) -> Result<()> {
    let is_armored = block.starts_with(b"-----BEGIN PGP");
    Err(Error::Refused(match block.first() {
        None => "the archive is empty; if it comes from gpg --decrypt, gpg has said why".into(),
        // Every OpenPGP packet begins with a byte above 127 (RFC 9580, 4.2).
        Some(byte) if is_armored || byte & 0x80 != 0 => {
            "this is an encrypted archive; where its secret key is, run: gpg --decrypt FILE, and pipe that \
             to: copr-keygen restore --from -"
                .into()
        }
        Some(_) if block.starts_with(HEADER.as_bytes()) => return Ok(()),
        Some(_) => "this is no archive that copr-keygen backup has made".into(),
    }))
}

struct ArchiveReader<F> {
    take: F,
    header: Option<Header>,
    current: Option<KeyInArchive>,
    /// For every key in the archive, the SHA-256 of its list of file digests; `None` if the key is corrupt.
    digests: HashMap<NameEmail, Option<[u8; 32]>>,
}

/// The key whose members are being read.
struct KeyInArchive {
    name_email: NameEmail,
    sums: Vec<u8>,
    files: HomeFiles,
}

impl<F: FnMut(Piece) -> Result<()>> ArchiveReader<F> {
    /// Processes one regular file. Returns `true` if it was the manifest.
    fn member(&mut self, path: &str, member: &mut Member<impl Read>) -> Result<bool> {
        if self.header.is_none() {
            if path != HEADER {
                return Err(unexpected(path));
            }
            let header = parse_header(&read_member(member, SMALL_MAX)?)?;
            self.header = Some(header.clone());
            (self.take)(Piece::Header(header))?;
            return Ok(false);
        }
        if path == MANIFEST {
            self.finish_key()?;
            self.manifest(member)?;
            return Ok(true);
        }
        let (name_email, file) = parse_path(path).ok_or_else(|| unexpected(path))?;
        if file == SUMS {
            self.finish_key()?;
            if self.digests.contains_key(&name_email) {
                return Err(unexpected(path));
            }
            let sums = read_member(member, SMALL_MAX)?;
            self.current = Some(KeyInArchive { name_email, sums, files: HomeFiles::default() });
            return Ok(false);
        }
        let file = HomeFileName::parse(file).ok_or_else(|| unexpected(path))?;
        let bytes = read_member(member, file.limit())?;
        let current = self.current.as_mut().filter(|current| current.name_email == name_email);
        match current.is_some_and(|current| current.files.add(file, bytes)) {
            true => Ok(false),
            false => Err(unexpected(path)),
        }
    }

    fn finish_key(&mut self) -> Result<()> {
        let Some(KeyInArchive { name_email, sums: archived, files }) = self.current.take() else {
            return Ok(());
        };
        let found = sums(&digests(&files));
        let is_whole = found.as_bytes() == archived;
        let digest = is_whole.then(|| Sha256::digest(found).into());
        self.digests.insert(name_email.clone(), digest);
        (self.take)(match is_whole {
            true => Piece::Key(name_email, files),
            false => {
                let why = "not restored: its files are not those that were archived";
                Piece::Bad(name_email, why)
            }
        })
    }

    fn manifest(&mut self, member: &mut Member<impl Read>) -> Result<()> {
        let size = member.header().entry_size().map_err(reading)?;
        let mut failed = Ok(());
        let mut counted = Counted { from: member, count: 0 };
        let read = manifest::read(&mut counted, |entry| {
            if failed.is_ok() {
                failed = self.entry(entry);
            }
        });
        if counted.count < size && read.as_ref().is_err_and(serde_json::Error::is_eof) {
            return Err(refused("ends in the middle of its manifest"));
        }
        read.map_err(|e| refused(&format!("has a manifest that is none: {}", shown(&e))))?;
        failed?;
        let why = "it is in the archive, but the manifest does not list it";
        self.digests.drain().try_for_each(|(name, _)| (self.take)(Piece::Bad(name, why)))
    }

    fn entry(&mut self, entry: manifest::ManifestEntry) -> Result<()> {
        let name_email = NameEmail::parse(&entry.name_email).map_err(|_| {
            refused(&format!("lists {:?}, which is no name of a key", entry.name_email))
        })?;
        let listed = match (entry.files, self.digests.remove(&name_email)) {
            // The key is corrupt and has been reported as bad already.
            (_, Some(None)) => Listed::Here,
            (Some(files), Some(found)) if found == Some(Sha256::digest(sums(&files)).into()) => {
                Listed::Here
            }
            (Some(_), None) => Listed::Wrong("the manifest lists it, but it is not in the archive"),
            (None, None) => Listed::Elsewhere(entry.fingerprint),
            _ => Listed::Wrong("its files in the archive are not those that the manifest lists"),
        };
        (self.take)(Piece::Listed(name_email, listed))
    }
}

struct Counted<R> {
    from: R,
    count: u64,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.from.read(buffer)?;
        self.count += u64::try_from(count).unwrap_or_default();
        Ok(count)
    }
}

fn parse_header(text: &[u8]) -> Result<Header> {
    #[derive(serde::Deserialize)]
    struct Version {
        version: u32,
    }
    let none = |e| refused(&format!("has a first member that is none: {}", shown(&e)));
    let Version { version } = serde_json::from_slice(text).map_err(none)?;
    if version != VERSION {
        return Err(refused(&format!(
            "has format version {version}, this copr-keygen reads version {VERSION}"
        )));
    }
    serde_json::from_slice(text).map_err(none)
}

/// Parses `keys/<name_email>/<rest>`.
fn parse_path(path: &str) -> Option<(NameEmail, &str)> {
    let (name, rest) = path.strip_prefix("keys/")?.split_once('/')?;
    Some((NameEmail::parse(name).ok()?, rest))
}

/// Returns the path that an extension header gives the next member, if any. Refuses an extension that would
/// make that member longer, sparse or a link.
fn path_of_extension(bytes: &[u8]) -> Result<Option<Vec<u8>>> {
    let mut path = None;
    for extension in PaxExtensions::new(bytes) {
        let extension = extension.map_err(reading)?;
        match extension.key() {
            Ok("path") => path = Some(extension.value_bytes().to_vec()),
            Ok("mtime" | "atime" | "ctime" | "uid" | "gid" | "uname" | "gname" | "comment") => {}
            _ => return Err(refused("has an extension header that no backup writes")),
        }
    }
    Ok(path)
}

fn read_member(member: &mut Member<impl Read>, limit: u64) -> Result<Vec<u8>> {
    let size = member.header().entry_size().map_err(reading)?;
    if size > limit {
        let path = String::from_utf8_lossy(&member.path_bytes()).into_owned();
        return Err(refused(&format!("has a member {path:?} of {size} bytes, too long for one")));
    }
    let mut bytes = Vec::new();
    member.read_to_end(&mut bytes).map_err(reading)?;
    if u64::try_from(bytes.len()).ok() != Some(size) {
        return Err(refused("ends in the middle of a file"));
    }
    Ok(bytes)
}

fn reading(e: io::Error) -> Error {
    refused(&format!("cannot be read on: {}", shown(&e)))
}

fn unexpected(path: &str) -> Error {
    let path: String = path.chars().take(300).collect();
    refused(&format!("has a member {path:?} that is not what a backup has at this place"))
}

/// Returns the message of an error of serde_json or tar, made safe for a terminal, as it may quote the input.
fn shown(error: &impl std::fmt::Display) -> String {
    printable(&error.to_string())
}

fn refused(why: &str) -> Error {
    Error::Refused(format!("the archive {why}"))
}
