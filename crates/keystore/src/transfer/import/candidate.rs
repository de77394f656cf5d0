//! Decides from gpg's listing and the secret key files which certificates of a shared keyring may get homes,
//! and for which identities. Changes nothing.

use std::collections::{HashMap, HashSet};

use gpg::{Certificate, Fingerprint, Keygrip, Protection, clock};

use crate::error::{Error, Result};
use crate::identity::NameEmail;
use crate::transfer::import::source::ImportSource;
use crate::transfer::report::{Loss, MissingKey, NamedKey, Shadowed};

/// A certificate that may get a home of its own.
#[derive(Clone, Debug)]
pub struct Candidate {
    pub name_email: NameEmail,
    pub fingerprint: Fingerprint,
    pub keygrip: Keygrip,
    /// The Unix time of creation.
    pub created: u64,
    pub expires: Option<u64>,
    /// A reason not to import the key, although gpg can sign with it.
    pub unfit: Option<&'static str>,
}

/// The verdict on a certificate: it may get a home, or it stays where it is.
pub type Assessed = std::result::Result<Candidate, MissingKey>;

impl Candidate {
    /// Returns the name of the key in reports.
    pub fn named(&self) -> NamedKey {
        NamedKey { name_email: self.name_email.clone(), fingerprint: self.fingerprint.clone() }
    }

    /// Fails if the key is dated after the clock: gpg does not use it before that date.
    pub fn check_clock(&self, now: u64) -> Result<()> {
        if !clock::is_behind(now, self.created) {
            return Ok(());
        }
        let words =
            clock::disagreement(now, &format!("the key {}", self.fingerprint), self.created);
        Err(Error::Refused(format!("{words}; set the clock, or import it after that date")))
    }

    /// Describes the key as left out for this reason.
    pub fn left_out(&self, reason: impl Into<String>) -> MissingKey {
        MissingKey::key(self.named(), reason)
    }

    /// Describes the key as left out because gpg signs with `other` for the same identity.
    pub fn outranked(&self, other: &Fingerprint) -> MissingKey {
        let reason = format!("there are several keys of it, and gpg signs with {other}");
        MissingKey { loss: Loss::Spare, ..self.left_out(reason) }
    }
}

/// Separates errors that concern one key from those that end the import. The former become the reason, in
/// words, why this key is left out.
pub fn of_one_key<T>(result: Result<T>) -> Result<std::result::Result<T, String>> {
    match result {
        Ok(value) => Ok(Ok(value)),
        Err(
            error @ (Error::Gpg(
                gpg::Error::Failed { .. }
                | gpg::Error::TimedOut { .. }
                | gpg::Error::DamagedHome { .. }
                | gpg::Error::Clock(_),
            )
            | Error::Occupied { .. }
            | Error::Refused(_)),
        ) => Ok(Err(error.to_string())),
        Err(error) => Err(error),
    }
}

/// Determines whether the key of a certificate could sign until now, and for which identity.
pub fn assess(certificate: &Certificate, source: &ImportSource) -> Result<Assessed> {
    let identity = identity(&certificate.user_ids);
    let refuse = |is_loss: bool, reason: String| {
        let name_email = identity.as_ref().ok().cloned();
        let user_id = certificate.user_ids.first().cloned().unwrap_or_default();
        Ok(Err(MissingKey {
            user_id: name_email.is_none().then_some(user_id),
            name_email,
            fingerprint: Some(certificate.fingerprint.clone()),
            reason,
            loss: if is_loss { Loss::Signatures } else { Loss::Nothing },
        }))
    };
    let Some(keygrip) = &certificate.keygrip else {
        return refuse(false, "gpg knows no keygrip of it".into());
    };
    let secret = match of_one_key(source.secret_key(keygrip))? {
        Ok(Some(secret)) => secret,
        Ok(None) => {
            // If its identity has a phrase, the key signed until now, or should have.
            let signed = identity.as_ref().is_ok_and(|name| source.has_signed_for(name));
            return refuse(signed && !certificate.revoked, "there is no secret key of it".into());
        }
        Err(reason) => return refuse(true, reason),
    };
    if certificate.revoked {
        return refuse(false, "it is revoked".into());
    }
    match (Protection::of(&secret), &identity) {
        (Some(Protection::Card), _) => {
            refuse(true, "its secret key is on a smart card or in a TPM".into())
        }
        (None, _) => refuse(true, format!("{} is no secret key", keygrip.file_name())),
        (_, Err(reason)) => refuse(true, reason.clone()),
        (Some(Protection::None | Protection::Passphrase), Ok(name_email)) => Ok(Ok(Candidate {
            name_email: name_email.clone(),
            fingerprint: certificate.fingerprint.clone(),
            keygrip: keygrip.clone(),
            created: certificate.created,
            expires: certificate.expires,
            unfit: match certificate {
                it if it.subkeys > 0 => Some("it has subkeys; a home here holds one secret key"),
                it if !it.signs => Some("its primary key may not sign"),
                _ => None,
            },
        })),
    }
}

/// Returns the one identity that all user IDs of a certificate name.
fn identity(user_ids: &[String]) -> std::result::Result<NameEmail, String> {
    let parse = |user_id: &String| {
        NameEmail::of_user_id(user_id).map_err(|e| format!("its user ID holds no identity: {e}"))
    };
    let mut found = user_ids.iter().map(parse);
    let first = found.next().unwrap_or_else(|| Err("it has no user ID".into()))?;
    for other in found {
        if other? != first {
            return Err("its user IDs hold several identities".into());
        }
    }
    Ok(first)
}

/// Returns the candidates under whose name gpg finds an earlier candidate, so that obs-signd got the wrong key.
/// gpg finds a user such as `copr#foo@host` in any part of a user ID, thus also at the end of `@copr#foo@host`.
/// If the user begins with "@", gpg looks for the part behind it. It ignores case.
pub fn shadowed(assessed: &[Assessed]) -> Vec<Shadowed> {
    let names = || assessed.iter().flatten().map(|candidate| &candidate.name_email);
    let lower = |name_email: &NameEmail| name_email.as_str().to_ascii_lowercase();
    // The text that gpg looks for.
    let part = |name: &str| name.strip_prefix('@').unwrap_or(name).to_owned();
    let parts: HashSet<String> = names().map(|name_email| part(&lower(name_email))).collect();
    // The first identity that ends with such a part.
    let mut first: HashMap<&str, &NameEmail> = HashMap::new();
    let mut seen = HashSet::new();
    let mut found = Vec::new();
    for name_email in names().filter(|name_email| seen.insert(*name_email)) {
        let name = lower(name_email);
        if let Some(by) = first.get(&part(&name)[..]).copied().cloned() {
            found.push(Shadowed { name_email: name_email.clone(), by });
        }
        for end in name.char_indices().filter_map(|(at, _)| parts.get(&name[at..])) {
            first.entry(end).or_insert(name_email);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_is_shadowed_by_an_earlier_one_that_gpg_takes_for_it() {
        let names = ["x#a@h", "@g#a@h", "G#a@h", "a.g#a@h", "zz#b@h", "z#b@h", "q#b@h"];
        assert_eq!(found(&names), ["G#a@h @g#a@h", "z#b@h zz#b@h"]);
        // gpg looks for the part behind the "@", and ignores case.
        assert_eq!(found(&["g#a@h", "@g#a@h"]), ["@g#a@h g#a@h"]);
        assert_eq!(found(&["User#a@h", "user#a@h", "User#a@h"]), ["user#a@h User#a@h"]);
    }

    fn found(names: &[&str]) -> Vec<String> {
        let grip = "0".repeat(40);
        let candidate = |name: &&str| {
            Some(Ok(Candidate {
                name_email: NameEmail::parse(name).ok()?,
                fingerprint: Fingerprint::parse(&grip)?,
                keygrip: Keygrip::parse(&grip)?,
                created: 1,
                expires: None,
                unfit: None,
            }))
        };
        let assessed: Vec<_> = names.iter().filter_map(candidate).collect();
        shadowed(&assessed).iter().map(|s| format!("{} {}", s.name_email, s.by)).collect()
    }

    #[test]
    fn the_identity_is_the_address_of_every_user_id() {
        let find = |user_ids: &[&str]| {
            let user_ids: Vec<_> = user_ids.iter().map(|text| (*text).to_owned()).collect();
            identity(&user_ids).map(|found| found.to_string())
        };
        let found = |text: &str| Ok(text.to_owned());
        assert_eq!(find(&["a_b (None) <a#b@c>"]), found("a#b@c"));
        assert_eq!(find(&["a#b@c"]), found("a#b@c"));
        assert_eq!(find(&["x <y> <@g#b@c>", "z <@g#b@c>"]), found("@g#b@c"));
        for (bad, words) in [
            (&[][..], "no user ID"),
            (&["a <b@c>"], "no identity: name_email: has no '#'"),
            (&["a <a#b@c>", ""], "no identity"),
            (&["a <a#b@c>", "a <a#x@c>"], "several identities"),
            (&["a <../a#b@c>"], "no identity"),
            (&["a#b@c>"], "no identity"),
        ] {
            assert!(find(bad).is_err_and(|e| e.contains(words)), "{bad:?}: {:?}", find(bad));
        }
    }
}
