//! Exports keys into one ordinary GnuPG home that all of them share, with a directory of phrases, as the old
//! service had it. The state is only read. A marker file says that the export is incomplete until every key in
//! it has signed.

mod sign_all;
mod target;

use std::collections::HashMap;
use std::path::Path;

use gpg::{Keygrip, keybox};

use crate::error::{Error, Result};
use crate::files::is_there;
use crate::files::small_files::read_file;
use crate::identity::NameEmail;
use crate::layout::{PUBRING, REVOCATIONS, revocation_file};
use crate::parallel::map;
use crate::transfer::export::target::{ExportTarget, ExportedKey, KeyContents};
use crate::transfer::report::{ExportReport, MissingKey, NamedKey};
use crate::{Filter, Form, Key, Listed, Store, interrupt};

/// The size limit in bytes, larger than any file of a home.
const FILE_MAX: u64 = 16 * 1024 * 1024;
/// The number of keys that are read in parallel before they are written.
const BATCH: usize = 256;

impl Store {
    /// Exports the keys that match `filter` to the directory `to`, and signs with each, on `jobs` threads.
    /// Calls `progress` with the number of keys that have been tried and the total.
    pub fn export(
        &self,
        to: &Path,
        filter: &Filter,
        jobs: usize,
        progress: &(dyn Fn(usize, usize) + Sync),
    ) -> Result<ExportReport> {
        let to = &std::path::absolute(to).map_err(Error::at("finding", to))?;
        let mut target = ExportTarget::make(to, self.homes.directory())?;
        let mut report = ExportReport::default();
        let keys = self.keys_to_export(filter, &mut report)?;
        let exported = self.copy_all(keys, jobs, &mut target, &mut report)?;
        let doubts = self.try_exported(&target, &exported, jobs, progress)?;
        for (ExportedKey { name_email, fingerprint, .. }, doubt) in exported.into_iter().zip(doubts)
        {
            let reason = doubt.map(|why| format!("plain gpg cannot sign for it: {why}"));
            report.not_signing.extend(reason.map(|why| MissingKey::of(name_email.clone(), why)));
            report.exported.push(NamedKey { name_email, fingerprint });
        }
        target.finish(report.missing())?;
        Ok(report)
    }

    /// Returns the keys in the order of the new keyring. gpg looks for a user in any part of a user ID and
    /// takes the first key that matches. So an identity whose name is part of another name must come first.
    fn keys_to_export(&self, filter: &Filter, report: &mut ExportReport) -> Result<Vec<Key>> {
        let (mut keys, mut unreadable) = (Vec::new(), Vec::new());
        for listed in self.catalog.listing(filter.clone())? {
            match listed? {
                Listed::Key(key) => keys.push(key),
                Listed::PassedOver => {}
                Listed::Unreadable(name_email, error) => unreadable.push((name_email, error)),
            }
        }
        let place = |name: &NameEmail| (name.as_str().len(), name.clone());
        keys.sort_by_cached_key(|key| place(&key.name_email));
        unreadable.sort_by_cached_key(|(name_email, _)| place(name_email));
        for (name_email, error) in unreadable {
            report.left_out.push(MissingKey::of(name_email, error.to_string()));
        }
        Ok(self.one_of_each(keys, report))
    }

    /// Leaves out homes with the secret key of another home, which a copied home has. The home whose identity
    /// is in a user ID of the certificate stays, or else the first one.
    fn one_of_each(&self, mut keys: Vec<Key>, report: &mut ExportReport) -> Vec<Key> {
        let mut homes: HashMap<Keygrip, Vec<NameEmail>> = HashMap::with_capacity(keys.len());
        for Key { name_email, record } in &keys {
            homes.entry(record.keygrip.clone()).or_default().push(name_email.clone());
        }
        let is_its_own = |name_email: &&NameEmail| {
            let certificate = self.catalog.certificate(name_email);
            certificate.is_ok_and(|found| found.user_ids.iter().any(|id| name_email.is_in(id)))
        };
        homes.retain(|_, names| names.len() > 1);
        let owners: HashMap<_, _> = homes
            .iter()
            .filter_map(|(keygrip, names)| {
                let owner = names.iter().find(is_its_own).or(names.first())?;
                Some((keygrip, owner))
            })
            .collect();
        keys.retain(|Key { name_email, record }| match owners.get(&record.keygrip) {
            Some(owner) if *owner != name_email => {
                let reason = format!(
                    "its home holds the secret key of {owner}, which is exported; `copr-keygen check` says \
                     what to do"
                );
                report.left_out.push(MissingKey::of(name_email.clone(), reason));
                false
            }
            _ => true,
        });
        keys
    }

    /// Copies the files of all keys. A key that cannot be read is left out. An error in the target ends the
    /// export.
    fn copy_all(
        &self,
        keys: Vec<Key>,
        jobs: usize,
        target: &mut ExportTarget,
        report: &mut ExportReport,
    ) -> Result<Vec<ExportedKey>> {
        let mut exported = Vec::with_capacity(keys.len());
        let read = |key: Key| (key.name_email.clone(), self.read_key(key));
        let mut keys = keys.into_iter().peekable();
        while keys.peek().is_some() {
            interrupt::check(|| target.left())?;
            for (name_email, key) in map(keys.by_ref().take(BATCH).collect(), jobs, read) {
                match key {
                    Ok((key, contents)) => {
                        target.add(&key, &contents)?;
                        exported.push(key);
                    }
                    Err(_) if !self.homes.path(&name_email).exists() => {} // removed meanwhile
                    Err(e) => report.left_out.push(MissingKey::of(name_email, e.to_string())),
                }
            }
        }
        target.flush()?;
        Ok(exported)
    }

    /// Reads the files of one home. gpg must be able to read the certificate too: in the new keyring, one that
    /// it cannot read would hide all that follow it.
    fn read_key(&self, Key { name_email, record }: Key) -> Result<(ExportedKey, KeyContents)> {
        let home = self.homes.path(&name_email);
        let pubring = home.join(PUBRING);
        // Read the file once, so that a certificate which `prolong` replaces is either the old or the new one.
        let keyring = read_file(&pubring, FILE_MAX)?;
        let found =
            keybox::one_certificate(&keyring).map_err(|reason| Error::damaged(&pubring, reason))?;
        let certificate = self.catalog.view(&name_email)?;
        let is_of_secret_key = certificate.keygrip.as_ref() == Some(&record.keygrip);
        if certificate.fingerprint != record.fingerprint || !is_of_secret_key {
            return Err(Error::Refused(format!(
                "its pubring.kbx is not what was written when the key was made: there is no certificate {} of \
                 its secret key in it; `copr-keygen check --deep` says what to do",
                record.fingerprint
            )));
        }
        let revocation = home.join(REVOCATIONS).join(revocation_file(&record.fingerprint));
        let revocation = match is_there(&revocation)? {
            true => Some(read_file(&revocation, FILE_MAX)?),
            false => {
                log::warn!("{name_email}: exported without a revocation certificate");
                None
            }
        };
        let phrase = self.passphrases.read(&home, &record.keygrip)?;
        let contents = KeyContents {
            first: found.first.to_vec(),
            certificate: found.certificate.to_vec(),
            secret: read_file(&record.secret_key(&home), FILE_MAX)?,
            phrase: self.passphrases.content(Form::Clear, &record.keygrip, &phrase)?,
            revocation,
            keygrip: record.keygrip,
        };
        let key = ExportedKey {
            name_email,
            fingerprint: record.fingerprint,
            created: certificate.created,
            expires: certificate.expires,
            revoked: certificate.revoked,
        };
        Ok((key, contents))
    }
}
