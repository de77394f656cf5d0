//! Gives a key a later expiry. The new certificate is made and checked in staging, holds every earlier
//! signature, and is renamed over the old one. If anything fails, the old one stays.

use std::time::Instant;

use gpg::{Certificate, Keyring, clock};

use crate::error::{Error, Result};
use crate::files::durable::{replace, write_new};
use crate::files::lock::hold_key;
use crate::files::make_directory;
use crate::home::home_files::{copy, replace_certificate};
use crate::identity::NameEmail;
use crate::layout::{PUBRING, RECORD, SECRET_KEYS};
use crate::make::limits::KEY_TIME;
use crate::shared::change::{Base, TRIES};
use crate::{Key, Store};

/// Which keys to prolong, and the new expiry.
#[derive(Clone, Copy, Debug)]
pub struct Term {
    /// Keys that expire at this Unix time or earlier are prolonged.
    pub due: u64,
    /// The new expiry (Unix time).
    pub until: u64,
}

impl Term {
    /// Whether to prolong a key that expires at `expires`. A key that expires later than the new expiry keeps
    /// its own.
    pub fn is_for(self, expires: Option<u64>) -> bool {
        expires.is_some_and(|at| at <= self.due && at < self.until)
    }
}

/// The outcome for one key.
#[derive(Debug)]
pub enum Prolonged {
    /// The key has the new expiry, and the new certificate is on the disk.
    Done(Key),
    /// The certificate needed no change: it is revoked, or [`Term::is_for`] is false for its expiry. `key.json`
    /// agrees with it now.
    Already(Key),
}

impl Store {
    /// Prolongs the key of an identity, if that is due.
    ///
    /// Fails with [`Error::InUse`] if another process works on this key, or other hosts keep changing it.
    pub fn prolong(&self, name_email: &NameEmail, term: Term) -> Result<Prolonged> {
        for _ in 0..TRIES {
            let base = self.catch_up(name_email)?;
            if let Some(prolonged) = self.prolong_from(name_email, term, base.as_ref())? {
                return Ok(prolonged);
            }
        }
        Err(Error::InUse(name_email.clone()))
    }

    /// Prolongs the certificate of `base`, the state on which the hosts have agreed. Returns `None` if another
    /// host has changed the certificate in the meantime.
    fn prolong_from(
        &self,
        name_email: &NameEmail,
        term: Term,
        base: Option<&Base>,
    ) -> Result<Option<Prolonged>> {
        let until = term.until;
        let deadline = Instant::now() + KEY_TIME;
        let home = self.homes.path(name_email);
        let _held = hold_key(&home, name_email)?;
        let Some(mut record) = self.homes.find(name_email)? else {
            return Err(Error::NoKey(name_email.clone()));
        };

        let staged = self.staging.create()?;
        let work = staged.path();
        copy(&home.join(PUBRING), &work.join(PUBRING))?;
        let pubring = work.join(PUBRING);
        let keyring = Keyring { home: work, file: &pubring };
        let before = self.gpg.view_one(keyring, deadline)?;
        let what = format!("the key of {name_email}");
        // Check the clock against the creation of the key. `changed` in `key.json` proves nothing: it may come
        // from a clock that was ahead, and gpg did not sign it.
        clock::check(&what, before.created)?;
        // gpg signs only at a time later than the newest self-signature, by its own clock. So if gpg fails and
        // the clock is behind that signature, blame the clock.
        let by_clock = |error| clock::check(&what, before.dated()).err().map_or(error, Error::from);
        if before.fingerprint != record.fingerprint {
            return Err(Error::damaged(
                &home.join(PUBRING),
                format!("holds {} instead of {}", before.fingerprint, record.fingerprint),
            ));
        }
        let cached = record.clone();
        record.algorithm.clone_from(&before.algorithm);
        record.created = before.created;
        if before.revoked || !term.is_for(before.expires) {
            record.expires = before.expires;
            if record != cached {
                record.changed = clock::believed()?;
                record.write(work)?;
                replace(&work.join(RECORD), &home.join(RECORD))?;
            }
            let key = Key { name_email: name_email.clone(), record };
            return Ok(Some(Prolonged::Already(key)));
        }

        clock::check(&what, before.dated())?;
        make_directory(&work.join(SECRET_KEYS))?;
        copy(&record.secret_key(&home), &record.secret_key(work))?;
        let old = staged.scratch().join("old.pgp");
        write_new(&old, &self.gpg.export(keyring, &record.fingerprint, false, deadline)?)?;
        let phrase = self.passphrases.read(&home, &record.keygrip)?;
        self.gpg
            .set_expiry(work, &phrase, &record.fingerprint, until, deadline)
            .and_then(|()| self.gpg.import(work, &old, None, deadline))
            .map_err(Error::from)
            .or_else(|error| self.check_space().and(Err(by_clock(error))))?;
        let after = self.gpg.view_one(keyring, deadline)?;
        check(&before, &after, until).map_err(|why| {
            by_clock(Error::Gpg(gpg::Error::Failed {
                how: format!("the new certificate is not as it must be, the old one stays: {why}"),
                words: "nothing".into(),
            }))
        })?;

        record.expires = Some(until);
        record.changed = clock::believed()?;
        record.write(work)?;
        if !self.agree_on_certificate(name_email, base, work)? {
            return Ok(None);
        }
        replace_certificate(work, &home)?;
        Ok(Some(Prolonged::Done(Key { name_email: name_email.clone(), record })))
    }
}

/// Fails unless `after` is `before` with the expiry `until` and a valid new self-signature, and has lost no
/// user ID and no signature.
fn check(before: &Certificate, after: &Certificate, until: u64) -> std::result::Result<(), String> {
    if after.fingerprint != before.fingerprint || after.created != before.created {
        return Err(format!("it is of {} now", after.fingerprint));
    }
    if after.expires != Some(until) {
        return Err(format!(
            "it expires {} instead of {}",
            after.expires.map_or("never".into(), clock::timestamp),
            clock::timestamp(until)
        ));
    }
    let mut old_ids = before.user_ids.clone();
    let mut new_ids = after.user_ids.clone();
    old_ids.sort();
    new_ids.sort();
    if old_ids != new_ids {
        return Err("its user IDs are others".into());
    }
    let (old, new) = (signatures(before), signatures(after));
    if let Some(lost) = old.iter().find(|signature| !new.contains(signature)) {
        return Err(format!("the signature of {} by {} is gone", clock::timestamp(lost.2), lost.1));
    }
    let is_fresh = |on: usize| {
        after.signatures.iter().any(|signature| {
            signature.on == on
                && signature.good
                && after.is_self_signature(signature)
                && !old.contains(&identify(after, signature))
        })
    };
    if !(1..=after.user_ids.len()).any(is_fresh) {
        return Err("it has no new self-signature that is valid".into());
    }
    Ok(())
}

/// What identifies a signature: the user ID it is on, the issuer, the time, the class, and whether gpg verified
/// it. The position of the user ID in the certificate does not matter.
pub(crate) type SignatureIdentity<'a> = (&'a str, &'a str, u64, &'a str, bool);

pub(crate) fn signatures(certificate: &Certificate) -> Vec<SignatureIdentity<'_>> {
    certificate.signatures.iter().map(|signature| identify(certificate, signature)).collect()
}

fn identify<'a>(
    certificate: &'a Certificate,
    signature: &'a gpg::Signature,
) -> SignatureIdentity<'a> {
    (
        certificate.signed_id(signature),
        &signature.issuer,
        signature.created,
        &signature.class,
        signature.good,
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use gpg::{Fingerprint, Signature};

    fn certificate(expires: Option<u64>, created: &[u64]) -> Option<Certificate> {
        let signature = |created: &u64| Signature {
            on: 1,
            issuer: "89ABCDEF01234567".into(),
            created: *created,
            class: "13x".into(),
            good: true,
        };
        Some(Certificate {
            fingerprint: Fingerprint::parse("0123456789ABCDEF0123456789ABCDEF01234567")?,
            keygrip: None,
            algorithm: "rsa2048".into(),
            created: 1,
            expires,
            revoked: false,
            signs: true,
            user_ids: vec!["a <a#b@c>".into()],
            subkeys: 0,
            subkey_keygrips: Vec::new(),
            signatures: created.iter().map(signature).collect(),
        })
    }

    #[test]
    fn a_certificate_is_published_only_when_nothing_is_lost() {
        let (Some(old), Some(new)) = (certificate(Some(9), &[1]), certificate(Some(20), &[5, 1]))
        else {
            unreachable!("the fingerprint is one")
        };
        assert_eq!(check(&old, &new, 20), Ok(()));
        let broken = |change: fn(&mut Certificate)| {
            let mut new = new.clone();
            change(&mut new);
            check(&old, &new, 20).err().unwrap_or_default()
        };
        assert!(broken(|c| c.expires = Some(21)).contains("instead of"));
        assert!(broken(|c| c.expires = None).contains("expires never"));
        assert!(broken(|c| c.created = 2).contains("it is of"));
        assert!(broken(|c| c.user_ids.clear()).contains("user IDs"));
        assert!(broken(|c| c.signatures.truncate(1)).contains("is gone"));
        assert!(broken(|c| c.signatures[0].good = false).contains("no new self-signature"));
        assert!(broken(|c| c.signatures[1].good = false).contains("is gone"));
        assert!(broken(|c| drop(c.signatures.remove(0))).contains("no new self-signature"));
    }

    #[test]
    fn keys_without_expiry_are_never_due() {
        let term = Term { due: 100, until: 200 };
        for (expires, due) in
            [(None, false), (Some(50), true), (Some(100), true), (Some(101), false)]
        {
            assert_eq!(term.is_for(expires), due, "{expires:?}");
        }
        assert!(!Term { due: 100, until: 60 }.is_for(Some(60)));
    }
}
