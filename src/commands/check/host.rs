//! What every section needs to know: which state, whose, whether to mend, and the units around it.

use std::io;
use std::path::{Path, PathBuf};

use keystore::remedy::{self, STATE};
use keystore::{Inspector, Owner};
use nix::unistd::{Gid, Uid, User, getegid, geteuid};

use super::finding::Remedy;
use super::who_signs::WhoSigns;
use crate::cli::Check;
use crate::commands::sign_conf::SignConf;
use crate::error::Result;
use crate::settings::Settings;
use crate::systemd::systemctl::Units;

/// The account of the package (sysusers.d/copr-keygen.conf).
pub const ACCOUNT: &str = "copr-signer";

/// Where obs-signd reads its configuration.
const SIGN_CONF: &str = "/etc/sign.conf";

/// The host that is checked.
pub struct Host<'a> {
    pub settings: &'a Settings,
    pub options: &'a Check,
    pub inspector: Inspector,
    /// Who is to own the state.
    pub owner: Owner,
    /// Whether this was started as root.
    pub as_root: bool,
    /// The units that work on this state, or why systemd could not be asked. `None` where there are none.
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
            // The signers of this host are for another state.
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

    /// The state directory.
    pub fn state(&self) -> &Path {
        &self.settings.state_dir
    }

    /// A part of the state.
    pub fn part(&self, name: &str) -> PathBuf {
        self.state().join(name)
    }

    /// The units, where there are some and systemd could be asked.
    pub fn known_units(&self) -> Option<&Units> {
        self.units.as_ref()?.as_ref().ok()
    }

    /// The file of that configuration.
    pub fn sign_conf(&self) -> &Path {
        sign_conf(self.options)
    }

    /// Whether obs-signd has to be here: not for a state that somebody tries something with.
    pub fn needs_signd(&self) -> bool {
        self.options.sign_conf.is_some() || !is_another_state(self.settings)
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

    /// Whether passphrases are sealed, and this process cannot open them.
    pub fn lacks_sealing_key(&self) -> bool {
        let passphrases = self.inspector.passphrases();
        passphrases.key().is_none() && matches!(passphrases.marker(), Ok(Some(_)))
    }

    /// A command line of this program about this state.
    pub fn command(&self, words: &str) -> String {
        remedy::command(self.state(), words)
    }

    /// The remedy for whatever `--repair` mends.
    pub fn repair(&self) -> Remedy {
        // What only --deep finds is not mended without it.
        let words = if self.options.deep { "check --repair --deep" } else { "check --repair" };
        Remedy::Command(self.command(words))
    }

    /// The remedy for what belongs to somebody else, which only root can give back.
    pub fn give_back(&self) -> Remedy {
        match self.as_root {
            true => self.repair(),
            false => "only root can mend that: run check --repair as root".into(),
        }
    }

    /// The remedy for what stands where something of ours has to be, and may be somebody's only copy.
    pub fn keep_aside(&self, path: &Path) -> Remedy {
        let aside = remedy::keep_aside(self.state(), path);
        Remedy::commands([aside, self.command("check --repair")])
    }
}

fn sign_conf(options: &Check) -> &Path {
    options.sign_conf.as_deref().unwrap_or(Path::new(SIGN_CONF))
}

/// Whether the state was named for this one time, so that the units work on another one.
fn is_another_state(settings: &Settings) -> bool {
    let is_for_this_run =
        |source: &String| ["--", "environment"].iter().any(|it| source.starts_with(it));
    let mut origins = settings.origins.iter();
    settings.state_dir != Path::new(STATE)
        && origins.any(|(name, _, source)| name == "state_dir" && is_for_this_run(source))
}

fn sets_signd_listen(settings: &Settings) -> bool {
    let mut origins = settings.origins.iter();
    origins.any(|(name, _, source)| name == "signd.listen" && source != "the default")
}

/// Who is to own the state: the account of the package when the state is where the package has it, else
/// whoever owns it, as every mode becomes that user.
fn owner(settings: &Settings) -> Owner {
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
