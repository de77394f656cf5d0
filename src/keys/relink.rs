//! Keeps the links of obs-signd in step with `keys/` while keys come and go. Whoever adds a link looks
//! for the home afterwards, whoever removes one looks too: so whatever two processes do at the same
//! time, the last of them leaves links to what is there and none to what is not.

use std::fs;

use super::Store;
use super::record::KeyRecord;
use crate::error::Result;
use crate::gpg::Keygrip;
use crate::identity::NameEmail;

impl Store {
    /// The key of an identity, its links repaired.
    pub(super) fn relink(&self, name_email: &NameEmail) -> Result<Option<KeyRecord>> {
        while let Some(record) = self.homes.find(name_email)? {
            self.signd.add_secret_key(name_email, &record.keygrip)?;
            self.signd.add_phrase(name_email)?;
            let secret_key = record.secret_key(&self.homes.path(name_email));
            if fs::symlink_metadata(secret_key).is_ok() {
                return Ok(Some(record));
            }
            self.signd.remove_dangling_phrase(name_email);
            self.signd.remove_dangling_secret_key(&record.keygrip);
        }
        Ok(None)
    }

    /// Removes the links to a key whose home has left `keys/`, unless there is another one by now.
    pub(super) fn unlink(&self, name_email: &NameEmail, keygrip: &Keygrip) -> Result<()> {
        self.signd.remove_dangling_phrase(name_email);
        self.signd.remove_dangling_secret_key(keygrip);
        self.relink(name_email).map(drop)
    }
}
