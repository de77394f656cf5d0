//! The GnuPG home that keys are imported from, and the phrases that belong to them. The source is only read:
//! gpg gets the name of the keyring and a home in staging, and nothing is ever written here.

use std::ffi::OsString;
use std::fs::{self, Metadata};
use std::io;
use std::path::{Path, PathBuf};

use gpg::{Fingerprint, Keygrip, keybox};
use nix::unistd::{User, geteuid};
use zeroize::Zeroizing;

use crate::error::{Error, Result};
use crate::files::if_there;
use crate::files::small_files::{Symlinks, beginning, open_regular};
use crate::home::record::secret_keys;
use crate::identity::NameEmail;
use crate::layout::{OLD_SERVICE, REVOCATIONS, SECRET_KEYS, TRASH, revocation_file};
use crate::remedy;
use crate::secrets::passphrase::{Phrase, first_line};
use crate::state::elsewhere::LEADS_NOWHERE;

/// The file in which GnuPG 1.4 and 2.0 kept secret keys.
pub const SECRING: &str = "secring.gpg";
/// The database in which keyboxd of GnuPG 2.4 keeps certificates.
pub const DATABASE: &str = "public-keys.d/pubring.db";

/// The size limit in bytes, larger than any secret key, revocation certificate or phrase file.
const FILE_MAX: u64 = 64 * 1024;
/// The length in bytes of the longest passphrase that gpg accepts.
const PHRASE_MAX: usize = 255;

/// A shared GnuPG home and its phrases.
#[derive(Debug)]
pub struct ImportSource {
    home: PathBuf,
    /// The keyring that gpg would use. `None` if the home holds keys only in forms that the import does not
    /// read.
    pubring: Option<PathBuf>,
    phrases: Option<PathBuf>,
    /// Whether the source is in the state directory itself. Links into `keys/` there were made by an import.
    in_place: bool,
    /// Whether there is no secret key at all, as when the volume with them is not mounted.
    lacks_secret_keys: bool,
}

impl ImportSource {
    /// Opens the home and the phrases of the old service in the state directory itself.
    pub(crate) fn in_place(home: PathBuf, phrases: PathBuf) -> Result<Self> {
        Self::new(home, Some(phrases).filter(|path| path.is_dir()), true)
    }

    /// Opens a home and a directory of phrases. Fails if they cannot be read, or are inside the state directory
    /// `state`. Only an entry of the old service in the trash is allowed there.
    pub fn open(home: &Path, phrases: Option<&Path>, state: &Path) -> Result<Self> {
        let home = directory("--from", home, state)?;
        let phrases = phrases.map(|path| directory("--phrases", path, state)).transpose()?;
        Self::new(home, phrases, false)
    }

    fn new(home: PathBuf, phrases: Option<PathBuf>, in_place: bool) -> Result<Self> {
        let pubring = pubring(&home)?;
        // A GnuPG home that has never held a secret key lacks this directory.
        let directory = home.join(SECRET_KEYS);
        if_there(fs::read_dir(&directory)).map_err(|e| unreadable(&directory, e))?;
        let mut source = Self { home, pubring, phrases, in_place, lacks_secret_keys: false };
        source.lacks_secret_keys =
            secret_keys(&source.home)?.is_empty() && source.secrings()?.is_empty();
        Ok(source)
    }

    /// The GnuPG home.
    pub fn home(&self) -> &Path {
        &self.home
    }

    /// The directory of phrases, if there is one.
    pub fn phrases(&self) -> Option<&Path> {
        self.phrases.as_deref()
    }

    /// Returns the path of a file in the home.
    pub fn path(&self, name: &str) -> PathBuf {
        self.home.join(name)
    }

    /// The public keyring that gpg would use, if there is one.
    pub fn pubring(&self) -> Option<&Path> {
        self.pubring.as_deref()
    }

    /// The name of the place of phrases, for messages.
    pub fn phrases_name(&self) -> &'static str {
        if self.in_place { "phrases/" } else { "--phrases" }
    }

    /// Whether the old service signed for this identity until now, or should have. It did so if it has a phrase:
    /// in its own layout every key has one. Where there is no secret key at all, every key counts.
    pub fn has_signed_for(&self, name_email: &NameEmail) -> bool {
        let path = self.phrases.as_ref().map(|phrases| phrases.join(name_email.as_str()));
        let is_file = |path: PathBuf| path.is_file() && !is_link_of_import(&path);
        self.lacks_secret_keys || path.is_some_and(is_file)
    }

    /// Returns the keygrips of the secret keys, without those whose file is a link that an import has made.
    pub fn secret_keys(&self) -> Result<Vec<Keygrip>> {
        let mut found = secret_keys(&self.home)?;
        found.retain(|keygrip| !is_link_of_import(&self.secret_key_file(keygrip)));
        Ok(found)
    }

    /// Whether the file of this secret key exists.
    pub fn has_secret_key(&self, keygrip: &Keygrip) -> bool {
        self.secret_key_file(keygrip).is_file()
    }

    fn secret_key_file(&self, keygrip: &Keygrip) -> PathBuf {
        self.home.join(SECRET_KEYS).join(keygrip.file_name())
    }

    /// Returns the files that hold secret keys of GnuPG 1.4 and 2.0.
    pub fn secrings(&self) -> Result<Vec<PathBuf>> {
        let named = self.named_in_configuration(&["secret-keyring"])?;
        filled([self.path(SECRING)].into_iter().chain(named))
    }

    /// Returns the keyrings that `gpg.conf` names. The import does not read them, only the keyring in the home.
    pub fn named_keyrings(&self) -> Result<Vec<PathBuf>> {
        self.named_in_configuration(&["keyring", "primary-keyring"])
    }

    fn named_in_configuration(&self, options: &[&str]) -> Result<Vec<PathBuf>> {
        let Some(text) = read(&self.home.join("gpg.conf"))? else { return Ok(Vec::new()) };
        // gpg takes ~ for the home directory of the user who runs it.
        let user = User::from_uid(geteuid()).ok().flatten().map(|user| user.dir);
        let text = String::from_utf8_lossy(&text);
        let named = text.lines().filter_map(|line| {
            let line = line.trim().trim_start_matches("--");
            let (option, value) = line.split_once(char::is_whitespace)?;
            let value = value.trim().trim_matches('"');
            let value = value.strip_prefix("gnupg-ring:").unwrap_or(value);
            options.contains(&option).then(|| match (value.strip_prefix("~/"), &user) {
                (Some(below), Some(user)) => user.join(below),
                _ if value.contains('/') => PathBuf::from(value),
                _ => self.home.join(value),
            })
        });
        Ok(named.collect())
    }

    /// Returns the names in the directory of phrases, sorted.
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

    /// Reads the file of a secret key. Returns `None` if it does not exist.
    pub fn secret_key(&self, keygrip: &Keygrip) -> Result<Option<Zeroizing<Vec<u8>>>> {
        read(&self.secret_key_file(keygrip))
    }

    /// Reads the revocation certificate that gpg made with a key. Returns `None` if there is no file with an
    /// armored one.
    pub fn revocation(&self, fingerprint: &Fingerprint) -> Result<Option<Zeroizing<Vec<u8>>>> {
        let found = read(&self.home.join(REVOCATIONS).join(revocation_file(fingerprint)))?;
        let armor = b"-----BEGIN PGP PUBLIC KEY BLOCK-----";
        Ok(found.filter(|text| text.windows(armor.len()).any(|bytes| bytes == armor)))
    }

    /// Reads the first line of the phrase file of an identity. Returns `None` if there is no such file, or the
    /// line is empty.
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

/// Resolves the directory that a command line option names. It must not be one of this state.
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

/// Whether a link leads into the `keys/` of a state, so that an import has put it in the place of a file.
fn is_link_of_import(path: &Path) -> bool {
    let target = std::fs::read_link(path).unwrap_or_default();
    target.starts_with("../keys") || target.starts_with("../../keys")
}

/// Whether a directory belongs to an old service whose directories are kept in the trash.
fn is_kept(path: &Path, state: &Path) -> bool {
    let entry = path.strip_prefix(state.join(TRASH)).ok().and_then(|path| path.iter().next());
    entry.is_some_and(|entry| entry.to_string_lossy().ends_with(OLD_SERVICE))
}

/// Returns the keyring that gpg would use: `pubring.gpg` if there is no `pubring.kbx`, or if that one was never
/// used for OpenPGP. Returns `None` if there is no keyring but keys in another form. Fails if there are no keys
/// at all, as gpg would then make a keyring.
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

/// Whether the home holds keys in a form that the import does not read.
fn holds_other_keys(home: &Path) -> Result<bool> {
    let forms = [SECRING, DATABASE].map(|name| home.join(name));
    Ok(!filled(forms)?.is_empty() || !secret_keys(home)?.is_empty())
}

/// Returns those of `paths` that are regular files and not empty. Fails for a link that leads nowhere.
pub fn filled(paths: impl IntoIterator<Item = PathBuf>) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for path in paths {
        match fs::metadata(&path) {
            Ok(at) if has_content(&at) => found.push(path),
            Ok(_) => {}
            Err(e) if e.kind() == io::ErrorKind::NotFound => check_link(&path)?,
            Err(e) => return Err(unreadable(&path, e)),
        }
    }
    Ok(found)
}

/// Whether `path` is a regular file and not empty.
pub fn is_filled(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|found| has_content(&found))
}

fn has_content(found: &Metadata) -> bool {
    found.is_file() && found.len() > 0
}

/// Fails if `path`, behind which nothing was found, is a link: what it leads to may be on a volume that is not
/// mounted. The links of an import are left out, because their keys may have been removed.
fn check_link(path: &Path) -> Result<()> {
    match path.is_symlink() && !is_link_of_import(path) {
        true => Err(odd(path, LEADS_NOWHERE)),
        false => Ok(()),
    }
}

/// Reads a file. Returns `None` if it does not exist.
fn read(path: &Path) -> Result<Option<Zeroizing<Vec<u8>>>> {
    match read_most(path, FILE_MAX + 1)? {
        Some(bytes) if bytes.len() as u64 > FILE_MAX => {
            Err(odd(path, "is too long for what it should be"))
        }
        read => Ok(read),
    }
}

/// Reads the first `most` bytes of a file, following links. Returns `None` if it does not exist.
fn read_most(path: &Path, most: u64) -> Result<Option<Zeroizing<Vec<u8>>>> {
    let reading = |e| unreadable(path, e);
    match open_regular(path, Symlinks::Followed) {
        Ok(Some(file)) => beginning(file, most).map(Some).map_err(reading),
        Ok(None) => Err(odd(path, "is not a regular file")),
        Err(e) if e.kind() == io::ErrorKind::NotFound => check_link(path).map(|()| None),
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
    let uid = geteuid();
    let user = User::from_uid(uid).ok().flatten();
    let user = user.map_or_else(|| uid.to_string(), |user| user.name);
    Error::Usage(format!(
        "{}: cannot be read by {user}, who owns the state directory and does the work; copy the \
         old directory and give the copy away: cp -a OLD COPY && chown -R {user} COPY",
        path.display()
    ))
}
