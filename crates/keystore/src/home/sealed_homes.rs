//! Whether what the homes hold agrees with what the state says of sealing.

use std::fs;

use crate::error::{Error, Result};
use crate::files::if_there;
use crate::home::Homes;
use crate::secrets::passphrase::{Form, Passphrases, form_in};

impl Passphrases {
    /// As [`Passphrases::verify`], and that nothing is sealed where no marker says so: of `homes`, it looks at
    /// the first only.
    pub fn verify_state(&self, homes: &Homes) -> Result<()> {
        self.verify()?;
        self.check_marker(homes)
    }

    /// As [`Passphrases::verify_state`], for a process that only reads passphrases.
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
            // The store refuses a file in its place and says why. It makes a directory that is missing.
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
