//! Publishes a home: from here on everybody sees the key, and signd last of all.

use gpg::Keygrip;

use crate::error::{Error, Result};
use crate::files::durable;
use crate::home::Homes;
use crate::home::on_disk::{HomeVersion, OnDisk};
use crate::home::staging::StagedHome;
use crate::identity::NameEmail;
use crate::view::signd_view::SigndView;

/// How a rename into `keys/` ended.
#[derive(Debug, PartialEq, Eq)]
pub enum Publication {
    /// The home is published.
    Done,
    /// Somebody else published a key of this identity first; it is theirs that counts.
    Lost,
}

impl StagedHome<'_> {
    /// Publishes the home, which must be complete, below `keys/`: links the secret key, renames the
    /// home into place (that is the moment it exists), links the phrase. Returns when all of it
    /// is on the disk.
    pub fn publish(
        mut self,
        homes: &Homes,
        signd: &SigndView,
        on_disk: &OnDisk,
        name_email: &NameEmail,
        keygrip: &Keygrip,
    ) -> Result<Publication> {
        signd.check_is_free(name_email, keygrip)?;
        durable::sync_tree(self.path())?;
        self.set_link(Some(signd.secret_keys().join(keygrip.file_name())));
        if !signd.add_secret_key(name_email, keygrip)? {
            durable::sync(signd.secret_keys())?; // somebody else's link
        }
        let target = homes.path(name_email);
        match durable::rename(self.path(), &target) {
            Ok(()) => {}
            Err(e) if durable::is_taken(&e) => return Ok(Publication::Lost),
            Err(e) => return Err(Error::at("publishing", &target)(e)),
        }
        self.set_link(None);
        let seen = HomeVersion::of(&target);
        durable::sync(homes.directory())?;
        signd.mark_changed(self.scratch());
        signd.add_phrase(name_email)?;
        if let Some(phrases) = signd.phrase_links() {
            durable::sync(phrases)?;
        }
        if let Some(seen) = seen {
            on_disk.learn(name_email, seen);
        }
        Ok(Publication::Done)
    }
}
