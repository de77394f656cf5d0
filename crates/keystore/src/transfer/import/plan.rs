//! Decides by gpg's listing alone what is to become of each certificate of a shared keyring: imported,
//! there already, left out and why, or one of several that want the same identity. Changes nothing
//! but links of keys that are there already.

use std::collections::HashMap;

use gpg::{Certificate, Fingerprint, Keygrip, Protection, clock};

use crate::Store;
use crate::error::Result;
use crate::identity::{NameEmail, mail_address};
use crate::transfer::import::source::Source;
use crate::transfer::import::{LeftOut, Moved, Obstacle, Shadowed};

/// A certificate that may become a home.
#[derive(Clone, Debug)]
pub struct Candidate {
    pub name_email: NameEmail,
    pub fingerprint: Fingerprint,
    pub keygrip: Keygrip,
    /// Unix time of creation.
    pub created: u64,
    pub expires: Option<u64>,
    /// A reason not to import it that does not keep gpg from signing with it.
    pub unfit: Option<&'static str>,
    user_id: String,
}

/// What is to become of one certificate.
#[derive(Debug)]
pub enum Verdict {
    /// It becomes a home.
    Import(Candidate),
    /// It is one of several of this number; gpg is to say which one it would use.
    Contest(Candidate, usize),
    /// It has a home already.
    Already(Moved),
    /// It stays where it is.
    LeftOut(LeftOut),
}

/// The candidates of one identity.
#[derive(Debug, Default)]
struct Rivals {
    fingerprints: Vec<Fingerprint>,
    /// Of their contest, once there is one.
    number: Option<usize>,
}

/// A verdict for each certificate, in the order of the keyring.
#[derive(Debug, Default)]
pub struct Plan {
    pub verdicts: Vec<Verdict>,
    /// When it was made (Unix time).
    now: u64,
    /// How many identities several keys want.
    pub contests: usize,
}

impl Candidate {
    pub fn moved(&self) -> Moved {
        Moved { name_email: self.name_email.clone(), fingerprint: self.fingerprint.clone() }
    }

    /// Why nothing can be said of it yet: gpg believes nothing of a key of tomorrow.
    pub fn check_clock(&self, now: u64) -> std::result::Result<(), String> {
        if !clock::is_behind(now, self.created) {
            return Ok(());
        }
        let words =
            clock::disagreement(now, &format!("the key {}", self.fingerprint), self.created);
        Err(format!("{words}; set the clock, or import it after that date"))
    }

    pub fn left_out(&self, reason: impl Into<String>) -> LeftOut {
        LeftOut {
            name_email: Some(self.name_email.clone()),
            user_id: self.user_id.clone(),
            fingerprint: self.fingerprint.clone(),
            reason: reason.into(),
            usable: true,
            outranked: false,
        }
    }
}

/// Whether a certificate could sign and for whom; a `LeftOut` when it could not.
pub fn assess(
    certificate: Certificate,
    source: &Source,
) -> Result<std::result::Result<Candidate, LeftOut>> {
    let user_id = certificate.user_ids.first().cloned().unwrap_or_default();
    let identity = identity(&certificate.user_ids);
    let fingerprint = certificate.fingerprint;
    let created = certificate.created;
    let name_email = identity.as_ref().ok().cloned();
    let refuse = |usable: bool, reason: String| {
        let (user_id, fingerprint) = (user_id.clone(), fingerprint.clone());
        let name_email = name_email.clone();
        Ok(Err(LeftOut { name_email, user_id, fingerprint, reason, usable, outranked: false }))
    };
    let Some(keygrip) = certificate.keygrip else {
        return refuse(false, "gpg knows no keygrip of it".into());
    };
    let protection = match Obstacle::of(source.secret_key(&keygrip))? {
        Ok(Some(file)) => Protection::of(&file),
        Ok(None) => {
            // With a phrase it signed until now, or should have.
            let signed = name_email.as_ref().is_some_and(|name| source.has_signed_for(name));
            return refuse(signed && !certificate.revoked, "there is no secret key of it".into());
        }
        Err(reason) => return refuse(true, reason),
    };
    if certificate.revoked {
        return refuse(false, "it is revoked".into());
    }
    match protection {
        Some(Protection::None | Protection::Passphrase) => {}
        Some(Protection::Card) => {
            return refuse(true, "its secret key is on a smart card or in a TPM".into());
        }
        None => return refuse(true, format!("{} is no secret key", keygrip.file_name())),
    }
    match identity {
        Err(reason) => refuse(true, reason),
        Ok(name_email) => Ok(Ok(Candidate {
            name_email,
            fingerprint: fingerprint.clone(),
            keygrip,
            created,
            expires: certificate.expires,
            unfit: match () {
                () if certificate.subkeys > 0 => {
                    Some("it has subkeys; a home here holds one secret key")
                }
                () if !certificate.signs => Some("its primary key may not sign"),
                () => None,
            },
            user_id: user_id.clone(),
        })),
    }
}

/// The one identity in the user IDs of a certificate.
fn identity(user_ids: &[String]) -> std::result::Result<NameEmail, String> {
    let mut found = None;
    for user_id in user_ids {
        let name_email = match NameEmail::parse(mail_address(user_id)) {
            Ok(name_email) => name_email,
            Err(e) => return Err(format!("its user ID holds no identity: {e}")),
        };
        match found.replace(name_email) {
            Some(other) if Some(&other) != found.as_ref() => {
                return Err("its user IDs hold several identities".into());
            }
            _ => {}
        }
    }
    found.ok_or_else(|| "it has no user ID".into())
}

impl Plan {
    /// Settles what `assessed` says against the keys of `store`.
    pub fn make(
        store: &Store,
        assessed: Vec<std::result::Result<Candidate, LeftOut>>,
        now: u64,
        dry_run: bool,
    ) -> Result<Self> {
        let mut rivals: HashMap<NameEmail, Rivals> = HashMap::new();
        for candidate in assessed.iter().flatten() {
            let rivals = rivals.entry(candidate.name_email.clone()).or_default();
            rivals.fingerprints.push(candidate.fingerprint.clone());
        }
        let mut plan = Self { now, ..Self::default() };
        for assessed in assessed {
            let verdict = match assessed {
                Err(left_out) => Verdict::LeftOut(left_out),
                Ok(candidate) => plan.settle(store, candidate, &mut rivals, dry_run)?,
            };
            plan.verdicts.push(verdict);
        }
        Ok(plan)
    }

    fn settle(
        &mut self,
        store: &Store,
        candidate: Candidate,
        rivals: &mut HashMap<NameEmail, Rivals>,
        dry_run: bool,
    ) -> Result<Verdict> {
        let record = match Obstacle::of(store.homes.find(&candidate.name_email))? {
            Ok(record) => record,
            Err(reason) => return Ok(Verdict::LeftOut(candidate.left_out(reason))),
        };
        if let Some(record) = record {
            let is_rival = |rivals: &Rivals| rivals.fingerprints.contains(&record.fingerprint);
            if record.fingerprint != candidate.fingerprint
                && rivals.get(&candidate.name_email).is_some_and(is_rival)
            {
                // An import before this one has asked gpg.
                let reason = Obstacle::Outranked(record.fingerprint).reason();
                let left_out = candidate.left_out(reason);
                return Ok(Verdict::LeftOut(LeftOut { outranked: true, ..left_out }));
            }
            if record.fingerprint != candidate.fingerprint {
                let reason = format!("keys/ has another key of it, {}", record.fingerprint);
                return Ok(Verdict::LeftOut(candidate.left_out(reason)));
            }
            if !dry_run {
                store.signd.add_secret_key(&candidate.name_email, &record.keygrip)?;
                store.signd.add_phrase(&candidate.name_email)?;
            }
            return Ok(Verdict::Already(candidate.moved()));
        }
        match rivals.get_mut(&candidate.name_email) {
            Some(rivals) if rivals.fingerprints.len() > 1 => {
                let number = *rivals.number.get_or_insert_with(|| {
                    self.contests += 1;
                    self.contests - 1
                });
                Ok(Verdict::Contest(candidate, number))
            }
            _ => Ok(match (candidate.unfit, candidate.check_clock(self.now)) {
                (Some(reason), _) => Verdict::LeftOut(candidate.left_out(reason)),
                (None, Err(reason)) => Verdict::LeftOut(candidate.left_out(reason)),
                (None, Ok(())) => Verdict::Import(candidate),
            }),
        }
    }
}

/// Candidates under whose name gpg finds an earlier one, so that obs-signd got the key of that. A user like
/// `copr#foo@host` is any part of a user ID for gpg, so also the end of `@copr#foo@host`; of a user that
/// begins with "@" it looks for what is behind that; and it does not tell upper case from lower.
pub fn shadowed(assessed: &[std::result::Result<Candidate, LeftOut>]) -> Vec<Shadowed> {
    let lower = |name_email: &NameEmail| name_email.as_str().to_ascii_lowercase();
    let mut first: HashMap<&NameEmail, usize> = HashMap::new();
    for (position, candidate) in assessed.iter().flatten().enumerate() {
        first.entry(&candidate.name_email).or_insert(position);
    }
    // What gpg looks for, and who is meant by it.
    let mut wanted: HashMap<String, Vec<usize>> = HashMap::new();
    for (name_email, position) in &first {
        let name = lower(name_email);
        let part = name.strip_prefix('@').unwrap_or(&name).to_owned();
        wanted.entry(part).or_default().push(*position);
    }
    let mut by: HashMap<usize, (usize, &NameEmail)> = HashMap::new();
    for (name_email, position) in &first {
        let name = lower(name_email);
        for (at, _) in name.char_indices() {
            for shadowed in wanted.get(&name[at..]).into_iter().flatten().filter(|p| *p > position)
            {
                let nearest = by.entry(*shadowed).or_insert((*position, name_email));
                *nearest = (*nearest).min((*position, name_email));
            }
        }
    }
    let mut found: Vec<_> = by.into_iter().collect();
    found.sort();
    let name = |position: usize| assessed.iter().flatten().nth(position);
    let found = found.into_iter().filter_map(|(position, (_, by))| {
        Some(Shadowed { name_email: name(position)?.name_email.clone(), by: by.clone() })
    });
    found.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_is_shadowed_by_an_earlier_one_that_gpg_takes_for_it() {
        let names = ["x#a@h", "@g#a@h", "G#a@h", "a.g#a@h", "zz#b@h", "z#b@h", "q#b@h"];
        assert_eq!(found(&names), ["G#a@h @g#a@h", "z#b@h zz#b@h"]);
        // Behind the "@", and in upper and lower case.
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
                user_id: String::new(),
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
