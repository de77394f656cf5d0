//! The GnuPG home keys are imported from, and the phrases that belong to them. Only read: gpg gets the
//! keyring by its name and a home of staging, and nothing is ever written here.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use gpg::{Fingerprint, Keygrip, keybox};
use zeroize::Zeroizing;

use crate::error::{Error, Result};
use crate::files::if_there;
use crate::files::small_files::{Symlinks, beginning, open_regular};
use crate::home::record::secret_keys;
use crate::identity::NameEmail;
use crate::layout::{OLD_SERVICE, REVOCATIONS, SECRET_KEYS, TRASH, revocation_file};
use crate::remedy;
use crate::secrets::passphrase::{Phrase, first_line};

/// Where GnuPG 1.4 and 2.0 kept secret keys.
pub const SECRING: &str = "secring.gpg";
/// Where keyboxd of GnuPG 2.4 keeps certificates.
pub const DATABASE: &str = "public-keys.d/pubring.db";

/// Longer than any secret key, revocation certificate or phrase file.
const FILE_MAX: u64 = 64 * 1024;
/// The longest passphrase gpg takes.
const PHRASE_MAX: usize = 255;

/// A shared home and its phrases.
#[derive(Debug)]
pub struct ImportSource {
    home: PathBuf,
    /// Where gpg finds certificates; none where only keys are that are not read.
    pubring: Option<PathBuf>,
    phrases: Option<PathBuf>,
    /// Whether links among the phrases were made by an import, and lead to the new passphrases.
    in_place: bool,
}

impl ImportSource {
    /// The home and the phrases of the old service in the state directory itself.
    pub(crate) fn in_place(home: PathBuf, phrases: PathBuf) -> Result<Self> {
        let pubring = pubring(&home)?;
        let phrases = Some(phrases).filter(|path| path.is_dir());
        Ok(Self { home, pubring, phrases, in_place: true })
    }

    /// Looks whether all of it can be read, and is not of the state directory `state` itself.
    pub fn open(home: &Path, phrases: Option<&Path>, state: &Path) -> Result<Self> {
        let home = directory("--from", home, state)?;
        let phrases = phrases.map(|path| directory("--phrases", path, state)).transpose()?;
        let pubring = pubring(&home)?;
        // A keyring that has never held a secret key has no such directory.
        let secret_keys = home.join(SECRET_KEYS);
        if_there(fs::read_dir(&secret_keys)).map_err(|e| unreadable(&secret_keys, e))?;
        Ok(Self { home, pubring, phrases, in_place: false })
    }

    /// The GnuPG home.
    pub fn home(&self) -> &Path {
        &self.home
    }

    /// The directory of phrases, if one was named.
    pub fn phrases(&self) -> Option<&Path> {
        self.phrases.as_deref()
    }

    /// A file of the home.
    pub fn path(&self, name: &str) -> PathBuf {
        self.home.join(name)
    }

    /// The public keyring, if there is one that gpg would use.
    pub fn pubring(&self) -> Option<&Path> {
        self.pubring.as_deref()
    }

    /// Where phrases are, in words.
    pub fn phrases_name(&self) -> &'static str {
        if self.in_place { "phrases/" } else { "--phrases" }
    }

    /// Whether the old service signed for this identity until now, as far as its phrase tells: in its own
    /// layout each key has one.
    pub fn has_signed_for(&self, name_email: &NameEmail) -> bool {
        let path = self.phrases.as_ref().map(|phrases| phrases.join(name_email.as_str()));
        let is_file = |path: PathBuf| path.is_file() && !is_link_of_import(&path);
        self.in_place && path.is_some_and(is_file)
    }

    /// The names of the secret keys, but for the links that an import has made.
    pub fn secret_keys(&self) -> Result<Vec<Keygrip>> {
        let mut found = secret_keys(&self.home)?;
        found.retain(|keygrip| !is_link_of_import(&self.secret_key_file(keygrip)));
        Ok(found)
    }

    /// Whether there is a file with this secret key.
    pub fn has_secret_key(&self, keygrip: &Keygrip) -> bool {
        self.secret_key_file(keygrip).is_file()
    }

    fn secret_key_file(&self, keygrip: &Keygrip) -> PathBuf {
        self.home.join(SECRET_KEYS).join(keygrip.file_name())
    }

    /// Keyrings that `gpg.conf` names: the import reads only the one in the home.
    pub fn named_keyrings(&self) -> Vec<PathBuf> {
        let Ok(Some(text)) = read(&self.home.join("gpg.conf")) else { return Vec::new() };
        let text = String::from_utf8_lossy(&text);
        let named = text.lines().filter_map(|line| {
            let line = line.trim().trim_start_matches("--");
            let (option, value) = line.split_once(char::is_whitespace)?;
            let value = value.trim().trim_matches('"');
            matches!(option, "keyring" | "primary-keyring").then(|| match value.contains('/') {
                true => PathBuf::from(value),
                false => self.home.join(value),
            })
        });
        named.collect()
    }

    /// The names in the directory of phrases, sorted.
    pub fn phrase_names(&self) -> Result<Vec<OsString>> {
        let Some(phrases) = &self.phrases else { return Ok(Vec::new()) };
        let names = fs::read_dir(phrases).and_then(|entries| {
            entries
                .map(|entry| entry.map(|entry| entry.file_name()))
                .collect::<io::Result<Vec<_>>>()
        });
        let mut names = names.map_err(|e| unreadable(phrases, e))?;
        names.sort();
        Ok(names)
    }

    /// The file of a secret key; `None` when it is not there.
    pub fn secret_key(&self, keygrip: &Keygrip) -> Result<Option<Zeroizing<Vec<u8>>>> {
        read(&self.secret_key_file(keygrip))
    }

    /// The revocation certificate made with a key; `None` when there is none.
    pub fn revocation(&self, fingerprint: &Fingerprint) -> Result<Option<Zeroizing<Vec<u8>>>> {
        let found = read(&self.home.join(REVOCATIONS).join(revocation_file(fingerprint)))?;
        let armor = b"-----BEGIN PGP PUBLIC KEY BLOCK-----";
        Ok(found.filter(|text| text.windows(armor.len()).any(|bytes| bytes == armor)))
    }

    /// The first line of the phrase file of an identity; `None` when there is none, or it is empty.
    pub fn phrase(&self, name_email: &NameEmail) -> Result<Option<Phrase>> {
        let Some(phrases) = &self.phrases else { return Ok(None) };
        let path = phrases.join(name_email.as_str());
        if self.in_place && is_link_of_import(&path) {
            return Ok(None);
        }
        let Some(file) = read(&path)? else { return Ok(None) };
        let line = Phrase::new(first_line(&file).to_vec());
        if line.len() > PHRASE_MAX {
            let reason = format!("its first line is longer than {PHRASE_MAX} bytes");
            return Err(odd(&path, &reason));
        }
        Ok(Some(line).filter(|line| !line.is_empty()))
    }
}

/// A directory as an option names it, which must not be one of this state.
fn directory(option: &str, path: &Path, state: &Path) -> Result<PathBuf> {
    let path = match path.canonicalize() {
        Ok(path) if path.is_dir() => path,
        Ok(path) => {
            return Err(Error::Usage(format!("{option} {}: is not a directory", path.display())));
        }
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            let words = format!("{option} {}: there is no such directory", path.display());
            return Err(Error::Usage(words));
        }
        Err(e) => return Err(unreadable(path, e)),
    };
    let is_inside = |state: &PathBuf| path.starts_with(state) && !is_kept(&path, state);
    if let Some(state) = state.canonicalize().ok().filter(is_inside) {
        return Err(Error::Usage(format!(
            "{option} {}: is inside of the state directory; to take over the keys of the old service where \
             they are, run: {}",
            path.display(),
            remedy::command(&state, "import")
        )));
    }
    Ok(path)
}

/// Whether a link leads into the `keys/` of a state: an import has put it in the place of a file.
fn is_link_of_import(path: &Path) -> bool {
    let target = std::fs::read_link(path).unwrap_or_default();
    target.starts_with("../keys") || target.starts_with("../../keys")
}

/// Whether a directory is among those of the old service that are kept in the trash.
fn is_kept(path: &Path, state: &Path) -> bool {
    let entry = path.strip_prefix(state.join(TRASH)).ok().and_then(|path| path.iter().next());
    entry.is_some_and(|entry| entry.to_string_lossy().ends_with(OLD_SERVICE))
}

/// The keyring gpg would use: `pubring.gpg` only where `pubring.kbx` was never used for OpenPGP.
/// One that is missing is an error here, because gpg would make it.
fn pubring(home: &Path) -> Result<Option<PathBuf>> {
    let [keybox, old] = ["pubring.kbx", "pubring.gpg"].map(|name| home.join(name));
    let head = |path: &Path| read_most(path, 32);
    match (head(&keybox)?, head(&old)?) {
        (Some(head), Some(_)) if !keybox::is_for_openpgp(&head) => Ok(Some(old)),
        (Some(_), _) => Ok(Some(keybox)),
        (None, Some(_)) => Ok(Some(old)),
        (None, None) if holds_other_keys(home)? => Ok(None),
        (None, None) => Err(Error::Usage(format!(
            "--from {}: holds neither pubring.kbx nor pubring.gpg, so it is no GnuPG home with keys",
            home.display()
        ))),
    }
}

/// Whether there are keys in a form that is not read.
fn holds_other_keys(home: &Path) -> Result<bool> {
    let forms = [SECRING, DATABASE].map(|name| home.join(name));
    Ok(forms.iter().any(|path| is_filled(path)) || !secret_keys(home)?.is_empty())
}

/// Whether a regular file is there with something in it.
pub fn is_filled(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|found| found.is_file() && found.len() > 0)
}

/// Reads a file; `None` when there is nothing.
fn read(path: &Path) -> Result<Option<Zeroizing<Vec<u8>>>> {
    match read_most(path, FILE_MAX + 1)? {
        Some(bytes) if bytes.len() as u64 > FILE_MAX => {
            Err(odd(path, "is too long for what it should be"))
        }
        read => Ok(read),
    }
}

/// Reads the first `most` bytes of a file, which may be a link; `None` when there is nothing.
fn read_most(path: &Path, most: u64) -> Result<Option<Zeroizing<Vec<u8>>>> {
    let reading = |e| unreadable(path, e);
    match open_regular(path, Symlinks::Followed) {
        Ok(Some(file)) => beginning(file, most).map(Some).map_err(reading),
        Ok(None) => Err(odd(path, "is not a regular file")),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(reading(e)),
    }
}

fn odd(path: &Path, reason: &str) -> Error {
    Error::Refused(format!("{}: {reason}", path.display()))
}

fn unreadable(path: &Path, error: io::Error) -> Error {
    if error.kind() != io::ErrorKind::PermissionDenied {
        return Error::at("reading", path)(error);
    }
    let uid = nix::unistd::geteuid();
    let user = nix::unistd::User::from_uid(uid).ok().flatten();
    let user = user.map_or_else(|| uid.to_string(), |user| user.name);
    Error::Usage(format!(
        "{}: cannot be read by {user}, who owns the state directory and does the work; copy the \
         old directory and give the copy away: cp -a OLD COPY && chown -R {user} COPY",
        path.display()
    ))
}
