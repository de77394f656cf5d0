//! Finds phrases without a key of exactly the same name. gpg finds a user in any part of a user ID and ignores
//! case. So the old service had only one key for two such projects. From now on each gets a key of its own, and
//! the operator must know with which key the packages of both are signed.

use std::collections::HashSet;
use std::time::Instant;

use gpg::Keyring;

use crate::error::Result;
use crate::identity::NameEmail;
use crate::make::limits::KEY_TIME;
use crate::transfer::import::candidate::Assessed;
use crate::transfer::import::source::ImportSource;
use crate::transfer::report::{FoundKey, Keyless, Unread};
use crate::{Store, parallel};

impl Store {
    /// Returns the identities with a phrase but no key in `keyring`, which holds all certificates of the
    /// source. Also returns the names of phrase files that cannot be names of an identity.
    pub(crate) fn find_keyless(
        &self,
        source: &ImportSource,
        keyring: Keyring,
        assessed: &[Assessed],
        unread: &[Unread],
        jobs: usize,
    ) -> Result<(Vec<Keyless>, Vec<String>)> {
        // Keys that were left out or not read are reported elsewhere.
        let unread = unread.iter().flat_map(|file| &file.keys);
        let unread: Vec<_> =
            unread.filter_map(|key| NameEmail::of_user_id(key.user_id.as_ref()?).ok()).collect();
        let named: HashSet<_> = assessed
            .iter()
            .filter_map(|one| match one {
                Ok(candidate) => Some(&candidate.name_email),
                Err(missing) => missing.name_email.as_ref(),
            })
            .chain(&unread)
            .collect();
        let (mut names, mut strange) = (Vec::new(), Vec::new());
        for name in source.phrase_names()? {
            match name.to_str().and_then(|name| NameEmail::parse(name).ok()) {
                Some(name_email) if named.contains(&name_email) => {}
                // The identity has got a key of its own here in the meantime.
                Some(name_email) if matches!(self.homes.find(&name_email), Ok(Some(_))) => {}
                Some(name_email) => names.push(name_email),
                // The old service used lock files beside the phrases.
                None if name.as_encoded_bytes().ends_with(b".lock") => {}
                None => strange.push(name.to_string_lossy().into_owned()),
            }
        }
        let keyless = parallel::map(names, jobs, |name_email| {
            let signed_by = self.signer_of(source, keyring, &name_email);
            Keyless { name_email, signed_by }
        });
        Ok((keyless, strange))
    }

    /// Returns the key with which gpg signs as `name_email`: the first match that is not revoked and whose
    /// secret key is present.
    fn signer_of(
        &self,
        source: &ImportSource,
        keyring: Keyring,
        name_email: &NameEmail,
    ) -> Option<FoundKey> {
        let found = self.gpg.found_as(keyring, name_email.as_str(), Instant::now() + KEY_TIME);
        let signer = found.into_iter().find(|certificate| {
            let keygrip = certificate.keygrip.as_ref();
            !certificate.revoked && keygrip.is_some_and(|keygrip| source.has_secret_key(keygrip))
        })?;
        Some(signer.into())
    }
}
