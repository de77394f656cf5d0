//! Publishes a home, which makes its key visible to everybody, and to signd last of all.

use std::path::Path;

use gpg::Keygrip;

use crate::error::{Error, Result};
use crate::files::durable;
use crate::home::Homes;
use crate::home::on_disk::{HomeVersion, OnDisk};
use crate::identity::NameEmail;
use crate::view::signd_view::SigndView;

/// The outcome of a rename into `keys/`.
#[derive(Debug, PartialEq, Eq)]
pub enum Publication {
    /// The home is published.
    Done,
    /// Another process has published a key of this identity first, and that key counts.
    Lost,
}

/// The places that a publication writes to or updates.
pub struct Publisher<'a> {
    /// The published homes.
    pub homes: &'a Homes,
    /// The links and files for signd.
    pub signd: &'a SigndView,
    /// The record of what is known to be on the disk.
    pub on_disk: &'a OnDisk,
}

impl Publisher<'_> {
    /// Publishes the home in `from`, which must be complete. The order is: link the secret key, rename the home
    /// into `keys/`, link the phrase. The rename is the moment at which the key comes into existence. Returns
    /// once all of it is on the disk. `scratch` is a directory in staging.
    pub fn publish(
        &self,
        from: &Path,
        scratch: &Path,
        name_email: &NameEmail,
        keygrip: &Keygrip,
    ) -> Result<Publication> {
        let Self { homes, signd, on_disk } = self;
        signd.check_is_free(name_email, keygrip)?;
        durable::sync_tree(from)?;
        if !signd.add_secret_key(name_email, keygrip)? {
            durable::sync(signd.secret_keys())?; // another process made the link
        }
        let target = homes.path(name_email);
        if let Err(e) = durable::rename(from, &target) {
            // The link now leads to nothing, so remove it. If this process dies first, the home in staging
            // still tells the next one about the link.
            signd.remove_dangling_secret_key(keygrip);
            return match durable::is_taken(&e) {
                true => Ok(Publication::Lost),
                false => Err(Error::at("publishing", &target)(e)),
            };
        }
        let seen = HomeVersion::of(&target);
        durable::sync(homes.directory())?;
        signd.mark_changed(scratch);
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
