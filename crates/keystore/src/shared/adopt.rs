//! Carries out on this host what all hosts have agreed on. A new key is assembled in staging, tried, and
//! published like any other; a removed key goes to the trash here too. A signature that this host has is never
//! lost.

use std::time::Instant;

use gpg::packets::{Packet, packets};
use gpg::{Keyring, keybox};

use crate::Store;
use crate::error::{Error, Result};
use crate::files::durable::write_new;
use crate::files::lock::hold_key;
use crate::files::small_files::read_file;
use crate::home::home_files::{HomeFileName, HomeFiles, copy, replace_certificate};
use crate::home::record::KeyRecord;
use crate::identity::NameEmail;
use crate::layout::PUBRING;
use crate::make::limits::KEY_TIME;
use crate::shared::value::Shared;
use crate::view::publish::Publication;

/// How often adoption starts over when the home appears and disappears meanwhile.
const TRIES: usize = 10;

/// The outcome for a key that all hosts have agreed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Adopted {
    /// This host did not have the key and has it now.
    Made,
    /// This host had the key, and its certificate has new signatures now.
    Updated,
    /// Nothing changed: this host had all of it, or the key was removed everywhere and this host did not have
    /// it.
    Kept,
    /// This host had the key, and it is in the trash now.
    Removed,
    /// This host has the key, with signatures that the other hosts do not have.
    Ahead,
}

impl Store {
    /// Brings this host in line with the agreed value of an identity; see [`crate::Agreed::value`].
    ///
    /// Fails with [`Error::Refused`] if the value is not a whole key of this identity, or if this host has
    /// another key that was never removed. Then nothing is changed, except that a key which other hosts have
    /// removed may be in the trash already.
    pub fn adopt(&self, name_email: &NameEmail, value: &[u8]) -> Result<Adopted> {
        self.adopt_shared(name_email, &Shared::parse(value)?)
    }

    pub(crate) fn adopt_shared(&self, name_email: &NameEmail, shared: &Shared) -> Result<Adopted> {
        let mut otherwise = Adopted::Kept;
        for _ in 0..TRIES {
            let present = self.homes.find(name_email)?;
            match (present, &shared.files) {
                (Some(present), _) if shared.has_removed(&present.fingerprint) => {
                    let removed =
                        self.take_out(name_email, |found| match *found == present.fingerprint {
                            true => self.check_still(name_email, |now| now.has_removed(found)),
                            false => Err(Error::InUse(name_email.clone())),
                        })?;
                    log::info!(
                        "{name_email}: the key {} was removed by another host; it is in {}",
                        present.fingerprint,
                        removed.entry.display()
                    );
                    otherwise = Adopted::Removed;
                }
                (Some(present), None) => {
                    return Err(Error::Refused(format!(
                        "this host has the key {} of {name_email}, of which the other hosts know nothing, and they \
                         have removed another one; to use it everywhere: `copr-keygen follow --seed`",
                        present.fingerprint
                    )));
                }
                (Some(present), Some(files)) => {
                    return self.adopt_over(name_email, files, &present);
                }
                (None, None) => {
                    // Another process of this host may be publishing the key.
                    let _apart = self.hold_apart(name_email)?;
                    if self.homes.find(name_email)?.is_none() {
                        return Ok(otherwise);
                    }
                }
                (None, Some(files)) => {
                    self.check_space()?;
                    self.signd.check_is_ours()?;
                    let staged = self.staging.create()?;
                    let (record, _) = self.assemble(staged.path(), name_email, files)?;
                    // This host may have had the key meanwhile, and removed it.
                    let _apart = self.hold_apart(name_email)?;
                    self.check_still(name_email, |now| !now.has_removed(&record.fingerprint))?;
                    let publication = self.publisher().publish(
                        staged.path(),
                        staged.scratch(),
                        name_email,
                        &record.keygrip,
                    )?;
                    if publication == Publication::Done {
                        self.relink(name_email)?;
                        return Ok(Adopted::Made);
                    }
                }
            }
        }
        Err(Error::busy(format!("the key of {name_email} comes and goes")))
    }

    fn adopt_over(
        &self,
        name_email: &NameEmail,
        files: &HomeFiles,
        present: &KeyRecord,
    ) -> Result<Adopted> {
        let is_other = |found: &KeyRecord, there: &KeyRecord| {
            Error::Refused(format!(
                "this host has the key {} of {name_email}, the other hosts have {}, and neither was removed; this \
                 host's was left alone; look at both, then `copr-keygen remove` the wrong one (docs/cluster.md)",
                found.fingerprint, there.fingerprint
            ))
        };
        let there = files.record().ok_or_else(|| {
            Error::Refused("it cannot be told which key the other hosts have".into())
        })?;
        if there.fingerprint != present.fingerprint {
            return Err(is_other(present, &there));
        }
        let home = self.homes.path(name_email);
        let pubring = home.join(PUBRING);
        let limit = HomeFileName::Pubring.limit();
        let ours = read_file(&pubring, limit)?;
        if has_all(&ours, files.pubring())? {
            self.relink(name_email)?;
            let is_same = has_all(files.pubring(), &ours)?;
            return Ok(if is_same { Adopted::Kept } else { Adopted::Ahead });
        }
        let staged = self.staging.create()?;
        let (record, _) = self.assemble(staged.path(), name_email, files)?;
        let _held = hold_key(&home, name_email)?;
        let Some(present) = self.homes.find(name_email)? else {
            return Err(Error::NoKey(name_email.clone()));
        };
        if record.fingerprint != present.fingerprint {
            return Err(is_other(&present, &record));
        }
        let ours = read_file(&pubring, limit)?;
        let adopted = match has_all(files.pubring(), &ours)? {
            true => {
                replace_certificate(staged.path(), &home)?;
                Adopted::Updated
            }
            false => {
                let deadline = Instant::now() + KEY_TIME;
                let more = staged.scratch().join("theirs.pgp");
                let file = staged.path().join(PUBRING);
                let keyring = Keyring { home: staged.path(), file: &file };
                let exported = self.gpg.export(keyring, &record.fingerprint, false, deadline)?;
                write_new(&more, &exported)?;
                let union = self.staging.create()?;
                let file = union.path().join(PUBRING);
                copy(&pubring, &file)?;
                self.gpg.import(union.path(), &more, None, deadline)?;
                let keyring = Keyring { home: union.path(), file: &file };
                let merged = self.gpg.inspect_one(keyring, deadline)?;
                let union_file = read_file(&file, limit)?;
                if !has_all(&union_file, &ours)? || !has_all(&union_file, files.pubring())? {
                    return Err(Error::Refused(format!(
                        "gpg could not merge what this host and the others have of the certificate {}; this host's \
                         was left alone",
                        record.fingerprint
                    )));
                }
                let mut known = present;
                known.learn(&merged);
                known.changed = known.changed.max(record.changed);
                known.write(union.path())?;
                replace_certificate(union.path(), &home)?;
                Adopted::Ahead
            }
        };
        self.signd.mark_changed(staged.scratch());
        self.relink(name_email)?;
        Ok(adopted)
    }
}

/// The type of the trust packets, in which gpg keeps notes of its own (RFC 9580, 5.10).
const RING_TRUST: u8 = 12;

/// Whether the certificate in `keyring` has every packet of the one in `of`: each user ID and each signature.
fn has_all(keyring: &[u8], of: &[u8]) -> Result<bool> {
    let (there, of) = (packets_in(keyring)?, packets_in(of)?);
    Ok(of.iter().all(|packet| packet.kind == RING_TRUST || there.contains(packet)))
}

fn packets_in(keyring: &[u8]) -> Result<Vec<Packet>> {
    let refused = |why: String| Error::Refused(format!("a certificate to be compared {why}"));
    let certificate = keybox::one_certificate(keyring).map_err(refused)?;
    let bytes = certificate.packets().ok_or_else(|| refused("is cut off".into()))?;
    packets(bytes).map_err(|e| refused(format!("holds {e}")))
}
