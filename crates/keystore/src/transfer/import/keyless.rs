//! Phrases without a key of exactly their name. gpg takes a user for any part of a user ID and does not tell
//! upper case from lower, so the old service had one key for two such projects. Each has one of its own
//! from now on, and whoever runs the host must know whose signatures the packages of both have.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use gpg::Keyring;
use serde::Serialize;

use crate::error::Result;
use crate::identity::{NameEmail, mail_address};
use crate::transfer::import::plan::Candidate;
use crate::transfer::import::source::Source;
use crate::transfer::import::{ImportOptions, LeftOut, Moved, Unread, text};
use crate::{Store, parallel};

/// How long gpg may look for one key.
const LOOK_TIME: Duration = Duration::from_secs(60);

/// A phrase without a key of exactly its name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Keyless {
    /// Whose phrase it is.
    #[serde(serialize_with = "text")]
    pub name_email: NameEmail,
    /// The key gpg found under that name; `null` when it could sign with none.
    pub signed_by: Option<Moved>,
}

/// What is in the directory of phrases and belongs to no key.
#[derive(Debug, Default, Serialize)]
pub struct Phrases {
    /// Identities without a key.
    pub keyless: Vec<Keyless>,
    /// Names that no identity has.
    pub strange_phrases: Vec<String>,
}

impl Store {
    /// Looks for the key of every phrase. `keyring` holds all certificates of the source.
    pub(crate) fn find_keyless(
        &self,
        source: &Source,
        keyring: Keyring,
        assessed: &[std::result::Result<Candidate, LeftOut>],
        unread: &[Unread],
        options: ImportOptions,
    ) -> Result<Phrases> {
        // Keys that were not read are listed as well, with a way out.
        let unread = unread
            .iter()
            .flat_map(|file| &file.keys)
            .filter_map(|key| NameEmail::parse(mail_address(key.user_id.as_ref()?)).ok());
        let unread: Vec<_> = unread.collect();
        let named: HashSet<_> = assessed
            .iter()
            .filter_map(|one| match one {
                Ok(candidate) => Some(&candidate.name_email),
                // It is listed with its own reason.
                Err(left_out) => left_out.name_email.as_ref(),
            })
            .chain(&unread)
            .collect();
        let mut phrases = Phrases::default();
        let mut names = Vec::new();
        for name in source.phrase_names()? {
            match name.to_str().and_then(|name| NameEmail::parse(name).ok()) {
                Some(name_email) if named.contains(&name_email) => {}
                // One that was made here meanwhile signs for itself.
                Some(name_email) if matches!(self.homes.find(&name_email), Ok(Some(_))) => {}
                Some(name_email) => names.push(name_email),
                // The old service locked phrases with files beside them.
                None if name.as_encoded_bytes().ends_with(b".lock") => {}
                None => phrases.strange_phrases.push(name.to_string_lossy().into_owned()),
            }
        }
        phrases.keyless = parallel::map(names, options.jobs, |name_email| {
            let signed_by = self.signer_of(source, keyring, &name_email);
            Keyless { name_email, signed_by }
        });
        Ok(phrases)
    }

    /// The key gpg takes to sign as `name_email`: the first it finds whose secret key is there.
    fn signer_of(
        &self,
        source: &Source,
        keyring: Keyring,
        name_email: &NameEmail,
    ) -> Option<Moved> {
        let deadline = Instant::now() + LOOK_TIME;
        let found = self.gpg.found_as(keyring, name_email.as_str(), deadline);
        let signer = found.into_iter().find(|certificate| {
            let keygrip = certificate.keygrip.as_ref();
            !certificate.revoked && keygrip.is_some_and(|keygrip| source.has_secret_key(keygrip))
        })?;
        let whose =
            signer.user_ids.iter().find_map(|id| NameEmail::parse(mail_address(id)).ok())?;
        Some(Moved { name_email: whose, fingerprint: signer.fingerprint })
    }
}
