//! What every section needs to know: which state, whose, and whether to mend.

use std::path::{Path, PathBuf};

use keystore::remedy::{self, STATE, quote_path};
use keystore::{self, Inspector, Owner};
use nix::unistd::{Gid, Uid, User, getegid, geteuid};

use crate::cli::Check;
use crate::settings::Settings;

/// The account of the package (sysusers.d/copr-keygen.conf).
pub const ACCOUNT: &str = "copr-signer";

/// The host that is checked.
pub struct Host<'a> {
    pub settings: &'a Settings,
    pub options: &'a Check,
    pub inspector: Inspector,
    /// Who is to own the state.
    pub owner: Owner,
    /// Whether this was started as root.
    pub as_root: bool,
}

impl Host<'_> {
    /// The state directory.
    pub fn state(&self) -> &Path {
        &self.settings.state_dir
    }

    /// A part of the state.
    pub fn part(&self, name: &str) -> PathBuf {
        self.state().join(name)
    }

    /// Whether `gnupg/` and `phrases/` are ours, and not those of the old service.
    pub fn is_ours(&self) -> bool {
        matches!(keystore::old_keyring(&self.part("gnupg")), Ok(None))
    }

    /// A path as it is shown: below the state directory without that.
    pub fn name(&self, path: &Path) -> String {
        let path = match path.strip_prefix(self.state()) {
            Ok(rest) if !rest.as_os_str().is_empty() => rest,
            _ => path,
        };
        path.to_string_lossy().into_owned()
    }

    /// A path as it is written on a command line.
    pub fn quoted(&self, path: &Path) -> String {
        quote_path(path)
    }

    /// Whether passphrases are sealed, and this process cannot open them.
    pub fn lacks_sealing_key(&self) -> bool {
        let passphrases = self.inspector.passphrases();
        passphrases.key().is_none() && matches!(passphrases.marker(), Ok(Some(_)))
    }

    /// The remedy for whatever `--repair` mends.
    pub fn repair(&self) -> String {
        self.command("check --repair")
    }

    /// A command line of this program about this state.
    pub fn command(&self, words: &str) -> String {
        remedy::command(self.state(), words)
    }
}

/// Who is to own the state: the account of the package when the state is where the package has it, else
/// whoever owns it, as every mode becomes that user.
pub fn owner(settings: &Settings) -> Owner {
    let of_user = |user: User| Owner { uid: user.uid, gid: user.gid, name: user.name };
    if settings.state_dir == Path::new(STATE) {
        if let Ok(Some(user)) = User::from_name(ACCOUNT) {
            return of_user(user);
        }
    }
    let (uid, gid) = match keystore::owner_of(&settings.state_dir) {
        Ok(Some((uid, gid))) => (Uid::from_raw(uid), Gid::from_raw(gid)),
        // The page says what is wrong with the directory, and goes no further.
        Ok(None) | Err(_) => (geteuid(), getegid()),
    };
    match User::from_uid(uid) {
        Ok(Some(user)) => of_user(user),
        _ => Owner { uid, gid, name: uid.to_string() },
    }
}
