//! The survey of `keys/`, made once for all sections.

use std::ffi::OsString;

use keystore::Home;
use keystore::parallel::map_ahead;

use super::host::Host;
use crate::error::Error;

#[derive(Default)]
pub struct Survey {
    /// Every home, ordered by name.
    pub homes: Vec<Home>,
    /// The names in `keys/` that are not names of identities.
    pub strange: Vec<OsString>,
    /// Why `keys/` could not be read.
    pub failure: Option<Error>,
}

impl Survey {
    /// Surveys every home.
    pub fn take(host: &Host) -> Self {
        let (names, strange) = match host.inspector.names() {
            Ok(found) => found,
            Err(e) => return Self { failure: Some(e), ..Self::default() },
        };
        let owner = host.owner.uid.as_raw();
        let examine = |name| host.inspector.examine(name, owner);
        let homes = map_ahead(names.into_iter(), examine).flatten().collect();
        Self { homes, strange, failure: None }
    }

    /// Yields the homes that hold every file that signing needs.
    pub fn whole(&self) -> impl Iterator<Item = &Home> {
        self.homes.iter().filter(|home| home.is_whole())
    }
}
