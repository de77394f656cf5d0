//! Publishes a home: from here on everybody sees the key, and signd last of all.

use std::path::Path;

use gpg::Keygrip;

use crate::error::{Error, Result};
use crate::files::durable;
use crate::home::Homes;
use crate::home::on_disk::{HomeVersion, OnDisk};
use crate::identity::NameEmail;
use crate::view::signd_view::SigndView;

/// How a rename into `keys/` ended.
#[derive(Debug, PartialEq, Eq)]
pub enum Publication {
    /// The home is published.
    Done,
    /// Another process has published a key of this identity first, and its key counts.
    Lost,
}

/// Where homes are published, and what is told of it.
pub struct Publisher<'a> {
    /// The homes.
    pub homes: &'a Homes,
    /// What signd sees.
    pub signd: &'a SigndView,
    /// What is on the disk.
    pub on_disk: &'a OnDisk,
}

impl Publisher<'_> {
    /// Publishes the home in `from`, which must be complete, below `keys/`: links the secret key, renames the
    /// home into place (that is the moment it exists), links the phrase. Returns when all of it
    /// is on the disk. `scratch` is a directory of staging.
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
            durable::sync(signd.secret_keys())?; // the link of another process
        }
        let target = homes.path(name_email);
        if let Err(e) = durable::rename(from, &target) {
            // The link leads to where this home is not. Should this process die here, the home in staging
            // still tells the next one about it.
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
