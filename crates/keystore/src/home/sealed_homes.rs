//! Checks whether the passphrases in the homes agree with the sealing marker.

use std::fs;

use crate::error::{Error, Result};
use crate::files::if_there;
use crate::home::Homes;
use crate::secrets::passphrase::{Form, Passphrases, form_in};

impl Passphrases {
    /// Fails as [`Passphrases::verify`] does, and also if passphrases are sealed although there is no marker.
    /// Looks only at the first home of `homes`.
    pub fn verify_state(&self, homes: &Homes) -> Result<()> {
        self.verify()?;
        self.check_marker(homes)
    }

    /// Fails as [`Passphrases::verify_state`] does, but without asking for `phrases_dir`, which a process
    /// that only reads passphrases does not need.
    pub fn verify_readable(&self, homes: &Homes) -> Result<()> {
        self.verify_key()?;
        self.check_marker(homes)
    }

    fn check_marker(&self, homes: &Homes) -> Result<()> {
        if self.marker()?.is_some() {
            return Ok(());
        }
        let keys = homes.directory();
        match if_there(fs::metadata(keys)).map_err(Error::at("looking at", keys))? {
            Some(found) if found.is_dir() => {}
            // The store creates a missing directory. It refuses a file in its place, and says why.
            _ => return Ok(()),
        }
        let first = homes.identities()?.next().transpose()?;
        match first.map(|name| form_in(&homes.path(&name))) {
            Some(Err(
                error @ (Error::Gpg(gpg::Error::Io { .. }) | Error::Gpg(gpg::Error::Busy(_))),
            )) => Err(error),
            Some(Ok(Form::Sealed)) => Err(Error::Settings(format!(
                "the state {} holds sealed passphrases, and sealing.json is missing; nothing was changed; \
                 put it back from a backup, or run `copr-keygen seal` with the passphrase-key they were sealed \
                 with, which makes it anew (docs/sealing.md)",
                self.root().display()
            ))),
            _ => Ok(()),
        }
    }
}
