//! What every section needs to know of the host: the state and its owner, whether to repair, and the units.

use std::io;
use std::path::{Path, PathBuf};

use keystore::remedy::{self, STATE, quote_path};
use keystore::{Inspector, Owner};
use nix::unistd::{Gid, Uid, User, getegid, geteuid};

use super::finding::Remedy;
use super::who_signs::WhoSigns;
use crate::cli::Check;
use crate::commands::sign_conf::SignConf;
use crate::error::Result;
use crate::settings::{CONFIG_FILE, DEFAULT, Settings};
use crate::systemd::systemctl::Units;

/// The account of the package (sysusers.d/copr-keygen.conf).
pub const ACCOUNT: &str = "copr-signer";

/// The configuration file of obs-signd.
const SIGN_CONF: &str = "/etc/sign.conf";

/// The host that is checked.
pub struct Host<'a> {
    pub settings: &'a Settings,
    pub options: &'a Check,
    pub inspector: Inspector,
    /// The user who must own the state.
    pub owner: Owner,
    /// Whether this was started as root.
    pub as_root: bool,
    /// The units that work on this state, or why systemd could not be asked. `None` with `--no-units`,
    /// without systemd, or for a state that no unit works on.
    pub units: Option<std::result::Result<Units, String>>,
    /// The configuration of obs-signd.
    pub conf: io::Result<SignConf>,
    /// Which signer this host has.
    pub who_signs: WhoSigns,
}

impl<'a> Host<'a> {
    pub fn new(settings: &'a Settings, options: &'a Check) -> Result<Self> {
        let has_units = !options.no_units
            && !is_another_state(settings)
            && Path::new("/run/systemd/system").is_dir();
        let units = has_units.then(Units::look);
        let conf = SignConf::read(sign_conf(options));
        let who_signs = match &units {
            Some(Ok(units)) => WhoSigns::by_units(units),
            // The signers of this host work on another state, so neither counts.
            None if conf.is_err() && is_another_state(settings) && !sets_signd_listen(settings) => {
                WhoSigns { ours: false, obs_signd: false }
            }
            _ => WhoSigns::by_answers(settings, conf.as_ref().ok()),
        };
        Ok(Self {
            settings,
            options,
            inspector: Inspector::new(&settings.keystore()?, settings.gnupg()?),
            owner: owner(settings),
            as_root: geteuid().is_root(),
            units,
            conf,
            who_signs,
        })
    }

    /// Returns the state directory.
    pub fn state(&self) -> &Path {
        &self.settings.state_dir
    }

    /// Returns the path of `name` in the state directory.
    pub fn part(&self, name: &str) -> PathBuf {
        self.state().join(name)
    }

    /// Returns the units that work on this state, if systemd could be asked.
    pub fn known_units(&self) -> Option<&Units> {
        self.units.as_ref()?.as_ref().ok()
    }

    /// Returns the path of the configuration of obs-signd.
    pub fn sign_conf(&self) -> &Path {
        sign_conf(self.options)
    }

    /// Whether this host must have obs-signd. It need not for a state that was named for this run only,
    /// unless `--sign-conf` is given.
    pub fn needs_signd(&self) -> bool {
        self.options.sign_conf.is_some() || !is_another_state(self.settings)
    }

    /// Whether `gnupg/` and `phrases/` belong to copr-keygen rather than to the old service.
    pub fn is_ours(&self) -> bool {
        matches!(keystore::old_keyring(&self.part("gnupg")), Ok(None))
    }

    /// Returns a path as it is shown: one below the state directory is relative to that.
    pub fn name(&self, path: &Path) -> String {
        let path = match path.strip_prefix(self.state()) {
            Ok(rest) if !rest.as_os_str().is_empty() => rest,
            _ => path,
        };
        path.to_string_lossy().into_owned()
    }

    /// Whether passphrases are sealed and this process lacks the key to open them.
    pub fn lacks_sealing_key(&self) -> bool {
        let passphrases = self.inspector.passphrases();
        passphrases.key().is_none() && matches!(passphrases.marker(), Ok(Some(_)))
    }

    /// Returns a command line that runs copr-keygen on this state.
    pub fn command(&self, words: &str) -> String {
        let Some(config) = &self.settings.config else {
            return remedy::command(self.state(), words);
        };
        let config = std::path::absolute(config).unwrap_or_else(|_| config.clone());
        let words = format!("{words} --config {}", quote_path(&config));
        match source_of(self.settings, "state_dir") == config.to_string_lossy() {
            true => format!("copr-keygen {words}"),
            false => remedy::command(self.state(), &words),
        }
    }

    /// Returns the remedy for everything that `--repair` mends.
    pub fn repair(&self) -> Remedy {
        // What only --deep finds is repaired only with --deep.
        let words = if self.options.deep { "check --repair --deep" } else { "check --repair" };
        Remedy::Command(self.command(words))
    }

    /// Returns the remedy for a file with the wrong owner, which only root can correct.
    pub fn give_back(&self) -> Remedy {
        match self.as_root {
            true => self.repair(),
            false => "only root can mend that: run check --repair as root".into(),
        }
    }

    /// Returns the remedy for a file in the place of one that copr-keygen needs. Moves it
    /// aside, as it may be somebody's only copy.
    pub fn keep_aside(&self, path: &Path) -> Remedy {
        let aside = remedy::keep_aside(self.state(), path);
        Remedy::commands([aside, self.command("check --repair")])
    }
}

fn sign_conf(options: &Check) -> &Path {
    options.sign_conf.as_deref().unwrap_or(Path::new(SIGN_CONF))
}

/// Whether the state directory was set for this run only, by a flag, the environment or a configuration file that a
/// flag names. The units then work on another state.
fn is_another_state(settings: &Settings) -> bool {
    let real = |path: &Path| path.canonicalize().ok();
    let is_own = |config: &PathBuf| real(config) != real(Path::new(CONFIG_FILE));
    let has_own_file = settings.config.as_ref().is_some_and(is_own);
    let source = source_of(settings, "state_dir");
    let is_for_this_run = has_own_file && source != DEFAULT
        || ["--", "environment"].iter().any(|it| source.starts_with(it));
    settings.state_dir != Path::new(STATE) && is_for_this_run
}

fn sets_signd_listen(settings: &Settings) -> bool {
    source_of(settings, "signd.listen") != DEFAULT
}

/// Returns where a setting was set.
fn source_of<'a>(settings: &'a Settings, name: &str) -> &'a str {
    let origin = settings.origins.iter().find(|(known, ..)| known == name);
    origin.map_or(DEFAULT, |(.., source)| source)
}

/// Returns the user who must own the state. The package's state directory must belong to the package's
/// account. Any other must belong to whoever owns it now, as every mode becomes that user.
fn owner(settings: &Settings) -> Owner {
    let of_user = |user: User| Owner { uid: user.uid, gid: user.gid, name: user.name };
    if settings.state_dir == Path::new(STATE) {
        if let Ok(Some(user)) = User::from_name(ACCOUNT) {
            return of_user(user);
        }
    }
    let (uid, gid) = match keystore::owner_of(&settings.state_dir) {
        Ok(Some((uid, gid))) => (Uid::from_raw(uid), Gid::from_raw(gid)),
        // `owners` reports what is wrong with the directory, and the page goes no further.
        Ok(None) | Err(_) => (geteuid(), getegid()),
    };
    match User::from_uid(uid) {
        Ok(Some(user)) => of_user(user),
        _ => Owner { uid, gid, name: uid.to_string() },
    }
}
