//! Finds keys that the source keeps in a form that the import does not read, so that none is passed over in
//! silence. These are secret keys of GnuPG 1.4 and 2.0, secret keys whose certificate is in another keyring or
//! in none, and the database of keyboxd. Changes nothing, but provides the commands that turn a copy of the
//! source into a home that can be imported whole.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use gpg::text::{self, printable};
use gpg::{Certificate, Keygrip, Keyring};

use crate::Store;
use crate::error::Result;
use crate::files::remove_file;
use crate::layout::SECRET_KEYS;
use crate::remedy::quote_path;
use crate::transfer::import::candidate::Assessed;
use crate::transfer::import::source::{DATABASE, ImportSource, filled, is_filled};
use crate::transfer::report::{ImportReport, Loss, Unread, UnreadKey};

/// Keyrings that gpg ignores beside the one that it uses, or that another program reads.
const OTHER_KEYRINGS: [&str; 6] = [
    "pubring.gpg",
    "pubring.kbx",
    "pubring.kbx~",
    "pubring.gpg~",
    "trustedkeys.kbx",
    "trustedkeys.gpg",
];

/// The keys of one file, by keygrip.
type Found = BTreeMap<Keygrip, UnreadKey>;

impl Store {
    /// Returns the files of `source` with keys that the import does not read. If the secret key of a
    /// certificate in `assessed` is in such a file, that becomes the reason why the certificate is left out.
    /// `known` are the keygrips of all keys in the keyring that the import reads.
    pub(crate) fn find_unread(
        &self,
        source: &ImportSource,
        known: &HashSet<Keygrip>,
        assessed: &mut [Assessed],
    ) -> Result<Vec<Unread>> {
        let mut unread = Vec::new();
        let staged = self.staging.create()?;
        let through = staged.scratch().join("listing");
        for secring in source.secrings()? {
            let is_wanted = |keygrip: &Keygrip| !source.has_secret_key(keygrip);
            let (found, error) = find(is_wanted, |each| {
                self.gpg.list_secret_keys(&secring, staged.path(), &through, each)
            })?;
            remove_file(&through)?;
            unread.extend(in_secring(source, secring, found, error));
        }
        for missing in assessed.iter_mut().filter_map(|one| one.as_mut().err()) {
            let holds =
                |file: &&Unread| file.keys.iter().any(|key| key.fingerprint == missing.fingerprint);
            if let Some(file) = unread.iter().find(holds) {
                let name = file.file.file_name().unwrap_or_default().to_string_lossy();
                missing.reason = format!("its secret key is in {} only", printable(&name));
                missing.loss = Loss::Signatures;
            }
        }
        unread.extend(filled([source.path(DATABASE)])?.into_iter().map(in_database));
        let secret_keys = source.secret_keys()?.into_iter();
        let mut orphans: BTreeSet<_> = secret_keys.filter(|one| !known.contains(one)).collect();
        for file in other_keyrings(source)? {
            if orphans.is_empty() {
                break;
            }
            let keyring = Keyring { home: staged.path(), file: &file };
            let (found, _) = find(
                |keygrip| orphans.contains(keygrip),
                |each| self.gpg.list_all(keyring, &through, each),
            )?;
            remove_file(&through)?;
            orphans.retain(|keygrip| !found.contains_key(keygrip));
            unread.extend(in_other_keyring(source, file, found));
        }
        unread.extend(without_certificate(source, orphans));
        Ok(unread)
    }
}

/// Returns the keys that `list` finds in a file and `is_wanted` selects. Also returns gpg's error if it could
/// not read the whole file.
fn find(
    is_wanted: impl Fn(&Keygrip) -> bool,
    list: impl FnOnce(&mut dyn FnMut(Certificate)) -> gpg::Result<()>,
) -> Result<(Found, Option<gpg::Error>)> {
    let mut found = Found::new();
    let listed = list(&mut |certificate| {
        if let Some(keygrip) = certificate.keygrip.clone().filter(&is_wanted) {
            found.insert(keygrip, UnreadKey::from(&certificate));
        }
    });
    match listed {
        Ok(()) => Ok((found, None)),
        Err(e @ (gpg::Error::Failed { .. } | gpg::Error::TimedOut { .. })) => Ok((found, Some(e))),
        Err(e) => Err(e.into()),
    }
}

impl ImportReport {
    /// Returns a command that copies the home and makes all keys in the copy readable. Also returns the path of
    /// the copy, which is beside the home. Returns `None` if no command can help.
    pub fn way_out(&self, home: &Path) -> Option<(String, PathBuf)> {
        let mut name = home.file_name().unwrap_or(OsStr::new("gnupg")).to_owned();
        name.push(".readable");
        let copy = home.with_file_name(name);
        let (source, target) = (quote_path(home), quote_path(&copy));
        let steps = self.unread.iter().flat_map(|file| &file.steps);
        let steps: Vec<_> = steps.map(|step| step.replace("{COPY}", &target)).collect();
        let command = format!(
            "cp -aT {source} {target} && {} && gpgconf --homedir {target} --kill all && \
             chown -R --reference={source} {target}",
            steps.join(" && ")
        );
        (!steps.is_empty()).then_some((command, copy))
    }
}

/// Returns the keyrings of the source that gpg does not use.
fn other_keyrings(source: &ImportSource) -> Result<Vec<PathBuf>> {
    let all = OTHER_KEYRINGS.iter().map(|name| source.path(name)).chain(source.named_keyrings()?);
    Ok(all.filter(|path| Some(path.as_path()) != source.pubring() && is_filled(path)).collect())
}

/// Describes the secret keys of a `secring.gpg` that are nowhere else.
fn in_secring(
    source: &ImportSource,
    file: PathBuf,
    found: Found,
    error: Option<gpg::Error>,
) -> Option<Unread> {
    let what = match error {
        Some(e) => format!("cannot be read ({e})"),
        None if found.is_empty() => return None,
        None => format!("holds {} that is nowhere else", count(found.len())),
    };
    Some(Unread {
        reason: format!(
            "{what}, where GnuPG 1.4 and 2.0 kept secret keys; later ones have them in private-keys-v1.d"
        ),
        keys: found.into_values().collect(),
        steps: vec![import_into_copy(&in_copy(source, &file))],
        file,
    })
}

/// Describes the certificates in a keyring that gpg does not use.
fn in_other_keyring(source: &ImportSource, file: PathBuf, found: Found) -> Option<Unread> {
    let keyring = in_copy(source, &file);
    let export =
        format!("gpg --batch --homedir {{COPY}} --no-default-keyring --keyring {keyring} --export");
    (!found.is_empty()).then(|| Unread {
        file,
        reason: format!(
            "holds the only certificate of {}; gpg does not look into it",
            count(found.len())
        ),
        keys: found.into_values().collect(),
        steps: vec![format!("{export} | {}", import_into_copy("")).trim_end().into()],
    })
}

fn in_database(file: PathBuf) -> Unread {
    Unread {
        file,
        reason:
            "is the database of keyboxd (use-keyboxd in common.conf), in which GnuPG 2.4 keeps \
                 certificates; only keyboxd can read it"
                .into(),
        keys: Vec::new(),
        steps: vec![
            "gpg --batch --homedir {COPY} --output {COPY}/keyboxd.pgp --export".into(),
            "gpgconf --homedir {COPY} --kill all".into(),
            "rm -rf {COPY}/public-keys.d {COPY}/common.conf".into(),
            import_into_copy("{COPY}/keyboxd.pgp"),
        ],
    }
}

fn without_certificate(source: &ImportSource, orphans: BTreeSet<Keygrip>) -> Option<Unread> {
    let key = |keygrip| UnreadKey { fingerprint: None, keygrip: Some(keygrip), user_id: None };
    (!orphans.is_empty()).then(|| Unread {
        file: source.path(SECRET_KEYS),
        reason: format!(
            "holds {} without a certificate in any keyring here; look for one in a backup, or where the \
             build system publishes it, and import it into a copy of the home with gpg --homedir COPY \
             --import CERTIFICATE, then import the copy",
            count(orphans.len())
        ),
        keys: orphans.into_iter().map(key).collect(),
        steps: Vec::new(),
    })
}

/// Returns the path of a file as a word for the shell: in the copy, if the file is in the home.
fn in_copy(source: &ImportSource, file: &Path) -> String {
    match file.strip_prefix(source.home()) {
        Ok(name) => format!("{{COPY}}/{}", quote_path(name)),
        Err(_) => quote_path(file),
    }
}

/// Returns the command that imports a file into the copy.
fn import_into_copy(file: &str) -> String {
    format!("gpg --batch --no-options --homedir {{COPY}} --import {file}")
}

fn count(keys: usize) -> String {
    text::number(keys, "secret key", "secret keys")
}
