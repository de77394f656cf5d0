//! Finds what the source keeps in a form that the import does not read, so that none of it is passed over
//! in silence: secret keys of GnuPG 1.4 and 2.0, secret keys whose certificate is in another keyring or in
//! none, the database of keyboxd. Changes nothing; says with which commands a copy becomes a home that can
//! be imported whole.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

use gpg::{Certificate, Fingerprint, Keygrip, Keyring};
use serde::{Serialize, Serializer};

use crate::Store;
use crate::error::{Error, Result};
use crate::home::staging::StagedHome;
use crate::layout::SECRET_KEYS;
use crate::remedy::quote_path;
use crate::transfer::import::source::Source;
use crate::transfer::import::{LeftOut, plan::Candidate};

/// Where GnuPG 1.4 and 2.0 kept secret keys.
pub(crate) const SECRING: &str = "secring.gpg";
/// Where keyboxd of GnuPG 2.4 keeps certificates.
pub(crate) const DATABASE: &str = "public-keys.d/pubring.db";
/// Keyrings that gpg leaves alone beside the one it uses, or that another program reads.
const OTHER_KEYRINGS: [&str; 6] = [
    "pubring.gpg",
    "pubring.kbx",
    "pubring.kbx~",
    "pubring.gpg~",
    "trustedkeys.kbx",
    "trustedkeys.gpg",
];

/// A file of the source that holds keys and was not read.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct Unread {
    /// The file.
    #[serde(serialize_with = "path")]
    pub file: PathBuf,
    /// What it holds that was not read, and why not.
    pub reason: String,
    /// The keys, as far as they can be told.
    pub keys: Vec<UnreadKey>,
    /// Commands that make them readable in a copy of the source, where it stands for `{COPY}`.
    #[serde(skip)]
    steps: Vec<String>,
}

/// A key that was not read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct UnreadKey {
    /// Which one, if its certificate is known.
    #[serde(serialize_with = "text_or_null")]
    pub fingerprint: Option<Fingerprint>,
    /// The name of its secret key.
    #[serde(serialize_with = "text_or_null")]
    pub keygrip: Option<Keygrip>,
    /// The first user ID.
    pub user_id: Option<String>,
}

/// Keygrips of all keys in the keyring that is imported.
#[derive(Debug, Default)]
pub struct Known(HashSet<Keygrip>);

impl Known {
    /// Takes note of a certificate.
    pub fn note(&mut self, certificate: &Certificate) {
        let grips = certificate.keygrip.iter().chain(&certificate.subkey_keygrips);
        self.0.extend(grips.cloned());
    }
}

/// Keys of one file, by the name of the secret key, in order.
type Found = BTreeMap<Keygrip, UnreadKey>;

impl Store {
    /// What of `source` is not read, and a reason for every certificate in `assessed` whose secret key is
    /// among it. `known` are the keys of the keyring that is.
    pub(crate) fn find_unread(
        &self,
        source: &Source,
        known: &Known,
        assessed: &mut [std::result::Result<Candidate, LeftOut>],
    ) -> Result<Vec<Unread>> {
        let mut unread = Vec::new();
        let staged = self.staging.create()?;
        let secring = source.path(SECRING);
        if is_filled(&secring) {
            unread.extend(self.old_secret_keys(&staged, source, &secring)?);
        }
        for left_out in assessed.iter_mut().filter_map(|one| one.as_mut().err()) {
            let is_it = |key: &UnreadKey| key.fingerprint.as_ref() == Some(&left_out.fingerprint);
            if unread.iter().flat_map(|file| &file.keys).any(is_it) {
                left_out.reason = format!("its secret key is in {SECRING} only");
                left_out.usable = true;
            }
        }
        let database = source.path(DATABASE);
        if is_filled(&database) {
            unread.push(in_database(database));
        }
        let mut orphans: BTreeSet<_> = source
            .secret_keys()?
            .into_iter()
            .filter(|keygrip| !known.0.contains(keygrip))
            .collect();
        for file in other_keyrings(source) {
            if orphans.is_empty() {
                break;
            }
            unread.extend(self.in_other_keyring(&staged, source, &file, &mut orphans)?);
        }
        if !orphans.is_empty() {
            unread.push(without_certificate(source, orphans));
        }
        Ok(unread)
    }

    /// The secret keys of a `secring.gpg` that are not in `private-keys-v1.d` as well.
    fn old_secret_keys(
        &self,
        staged: &StagedHome,
        source: &Source,
        file: &Path,
    ) -> Result<Option<Unread>> {
        let mut found = Found::new();
        let through = staged.scratch().join("secret-keys");
        let listed = self.gpg.list_secret_keys(file, staged.path(), &through, |certificate| {
            if let Some(keygrip) = &certificate.keygrip {
                if !source.has_secret_key(keygrip) {
                    found.insert(keygrip.clone(), UnreadKey::of(&certificate));
                }
            }
        });
        let steps = vec![format!(
            "gpg --batch --no-options --homedir {{COPY}} --import {{COPY}}/{SECRING}"
        )];
        let whose =
            "where GnuPG 1.4 and 2.0 kept secret keys; later ones have them in private-keys-v1.d";
        match listed {
            Ok(()) if found.is_empty() => Ok(None),
            Ok(()) => Ok(Some(Unread {
                file: file.into(),
                reason: format!("holds {} and no other file has it, {whose}", count(found.len())),
                keys: found.into_values().collect(),
                steps,
            })),
            Err(e @ (gpg::Error::Failed { .. } | gpg::Error::TimedOut { .. })) => {
                Ok(Some(Unread {
                    file: file.into(),
                    reason: format!("cannot be read ({e}), {whose}"),
                    keys: found.into_values().collect(),
                    steps,
                }))
            }
            Err(e) => Err(e.into()),
        }
    }

    /// The certificates in `file` of secret keys among `orphans`, which are taken out of there.
    fn in_other_keyring(
        &self,
        staged: &StagedHome,
        source: &Source,
        file: &Path,
        orphans: &mut BTreeSet<Keygrip>,
    ) -> Result<Option<Unread>> {
        let through = staged.scratch().join("listing");
        let mut found = Found::new();
        let keyring = Keyring { home: staged.path(), file };
        let listed = self.gpg.list_all(keyring, &through, |certificate| {
            let own = certificate.keygrip.as_ref();
            if let Some(keygrip) = own.filter(|keygrip| orphans.contains(keygrip)) {
                found.insert(keygrip.clone(), UnreadKey::of(&certificate));
            }
        });
        let removed = fs::remove_file(&through);
        removed.map_err(Error::at("removing", &through))?;
        match listed {
            // Not a keyring, or half of one.
            Err(gpg::Error::Failed { .. } | gpg::Error::TimedOut { .. }) | Ok(()) => {}
            Err(e) => return Err(e.into()),
        }
        if found.is_empty() {
            return Ok(None);
        }
        orphans.retain(|keygrip| !found.contains_key(keygrip));
        Ok(Some(Unread {
            file: file.into(),
            reason: format!(
                "holds the only certificate of {}; gpg does not look into it",
                count(found.len())
            ),
            keys: found.into_values().collect(),
            steps: vec![merge(source, file)],
        }))
    }
}

impl UnreadKey {
    fn of(certificate: &Certificate) -> Self {
        Self {
            fingerprint: Some(certificate.fingerprint.clone()),
            keygrip: certificate.keygrip.clone(),
            user_id: certificate.user_ids.first().cloned(),
        }
    }
}

/// The command that makes all of `unread` readable, in a copy of the home that is beside it, with the path
/// of the copy; `None` when there is nothing a command could do.
pub fn way_out(unread: &[Unread], home: &Path) -> Option<(String, PathBuf)> {
    if unread.iter().all(|file| file.steps.is_empty()) {
        return None;
    }
    let mut name = home.file_name().unwrap_or(OsStr::new("gnupg")).to_owned();
    name.push(".readable");
    let copy = home.with_file_name(name);
    let (source, target) = (quote_path(home), quote_path(&copy));
    let steps: Vec<_> = unread.iter().flat_map(|file| &file.steps).collect();
    let steps: Vec<_> = steps.into_iter().map(|step| step.replace("{COPY}", &target)).collect();
    let command = format!(
        "cp -aT {source} {target} && {} && gpgconf --homedir {target} --kill all && \
         chown -R --reference={source} {target}",
        steps.join(" && ")
    );
    Some((command, copy))
}

/// The keyrings that gpg does not use in the source.
fn other_keyrings(source: &Source) -> Vec<PathBuf> {
    let all = OTHER_KEYRINGS.iter().map(|name| source.path(name)).chain(source.named_keyrings());
    all.filter(|path| Some(path.as_path()) != source.pubring() && is_filled(path)).collect()
}

/// A command that adds the certificates of a keyring to the copy.
fn merge(source: &Source, file: &Path) -> String {
    let keyring = match file.strip_prefix(source.home()) {
        Ok(name) => format!("{{COPY}}/{}", quote_path(name)),
        Err(_) => quote_path(file),
    };
    format!(
        "gpg --batch --homedir {{COPY}} --no-default-keyring --keyring {keyring} --export | \
         gpg --batch --no-options --homedir {{COPY}} --import"
    )
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
            "gpg --batch --no-options --homedir {COPY} --import {COPY}/keyboxd.pgp".into(),
        ],
    }
}

fn without_certificate(source: &Source, orphans: BTreeSet<Keygrip>) -> Unread {
    let key = |keygrip| UnreadKey { fingerprint: None, keygrip: Some(keygrip), user_id: None };
    Unread {
        file: source.path(SECRET_KEYS),
        reason: format!(
            "holds {} without a certificate in any keyring here; look for one in a backup, or where the \
             build system publishes it, and import it into a copy of the home with gpg --homedir COPY \
             --import CERTIFICATE, then import the copy",
            count(orphans.len())
        ),
        keys: orphans.into_iter().map(key).collect(),
        steps: Vec::new(),
    }
}

fn count(keys: usize) -> String {
    if keys == 1 { "1 secret key".into() } else { format!("{keys} secret keys") }
}

/// Whether a regular file is there with something in it.
pub fn is_filled(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|found| found.is_file() && found.len() > 0)
}

fn path<S: Serializer>(path: &Path, serializer: S) -> std::result::Result<S::Ok, S::Error> {
    serializer.serialize_str(&path.to_string_lossy())
}

fn text_or_null<S: Serializer>(
    value: &Option<impl std::fmt::Display>,
    serializer: S,
) -> std::result::Result<S::Ok, S::Error> {
    match value {
        Some(value) => serializer.collect_str(value),
        None => serializer.serialize_none(),
    }
}
