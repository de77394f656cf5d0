//! `copr-keygen gpg`, also called as `gpg-copr`: the `gpg:` program of obs-signd. Finds the key that a gpg
//! command line is about, then executes gpg with the keyring of that key and the shared agent. Prints nothing
//! of its own unless it refuses the command line. A user from outside never becomes an option of gpg.

use std::ffi::{OsStr, OsString};
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use gpg::arguments::{self, Call};
use gpg::process::unblock_signals;
use gpg::text::printable;
use gpg::{Fingerprint, is_key_id};
use keystore::{AgentHome, Homes, NameEmail, check_user, old_keyring};

use super::state;
use crate::error::{Error, Result};
use crate::privileges;
use crate::settings::GpgSettings;

/// The names under which the program runs as this mode and takes all its arguments as those of gpg.
pub const CALLED_AS: [&str; 2] = ["gpg-copr", "gpg_copr.sh"];

/// Runs gpg with `arguments`. For a single key, gpg replaces this process, so only a failure to execute it
/// returns. For several keys, gpg runs once for each; returns the first exit status that is not 0.
pub fn run(settings: &GpgSettings, arguments: Vec<OsString>) -> Result<ExitCode> {
    let host = SignHost::new(settings);
    if host.is_foreign(std::env::var_os("GNUPGHOME")) {
        return Err(become_gpg(Command::new(&settings.gpg).args(arguments)));
    }
    check_user(&settings.state_dir)?;
    if old_keyring(host.agent_home.path())?.is_some() {
        privileges::become_owner(&settings.state_dir)?;
        if !host.has_taken_over(&arguments) {
            // The old service still signs with its own keys: call gpg as its gpg-copr did.
            let mut gpg = Command::new(&settings.gpg);
            gpg.arg("--homedir").arg(host.agent_home.path()).arg("--no-auto-check-trustdb");
            return Err(become_gpg(gpg.args(arguments)));
        }
    }
    let call = arguments::parse(&arguments).map_err(Error::Arguments)?;
    // In a missing state, every user would seem to have no key.
    if !matches!(call, Call::AboutGpg) {
        state::require_state(&settings.state_dir)?;
    }
    privileges::become_owner(&settings.state_dir)?;
    match call {
        Call::AboutGpg => Err(become_gpg(host.gpg().args(arguments))),
        Call::Sign { options, user, files } => {
            host.check_agent_home()?;
            let key = host.select(&user, is_of_signd(&options))?;
            let mut gpg = host.gpg_with(&key);
            Err(become_gpg(gpg.args(options).arg("-u").arg(key.selector).arg("--").args(files)))
        }
        Call::Read { options, users } => {
            let of_signd = is_of_signd(&options);
            // signd looks up a key with this option, and only with this one, before its agent signs.
            if options.iter().any(|option| option == "--locate-key") {
                host.check_agent_home()?;
            }
            let read = |key: Selected| {
                let mut gpg = host.gpg_with(&key);
                gpg.args(&options).arg("--").arg(key.selector);
                gpg
            };
            match &users[..] {
                [user] => Err(become_gpg(&mut read(host.select(user, of_signd)?))),
                [] => run_each(host.all()?.map(|key| key.map(read))),
                _ => run_each(users.iter().map(|user| host.select(user, of_signd).map(read))),
            }
        }
    }
}

/// The keys of this host and the gpg that is to use them.
struct SignHost<'a> {
    gpg: &'a Path,
    agent_home: AgentHome,
    homes: Homes,
}

/// What to tell gpg about a user of its command line.
struct Selected {
    /// The keyring of the user's key; `None` if the user has no key.
    pubring: Option<PathBuf>,
    /// The word that replaces the user. It can neither be taken for an option nor match another key.
    selector: OsString,
}

impl<'a> SignHost<'a> {
    fn new(settings: &'a GpgSettings) -> Self {
        Self {
            gpg: &settings.gpg,
            agent_home: AgentHome::of(&settings.state_dir),
            homes: Homes::new(&settings.state_dir),
        }
    }

    /// Whether GNUPGHOME names another GnuPG home than that of the shared agent.
    fn is_foreign(&self, gnupghome: Option<OsString>) -> bool {
        let same = |a: &Path, b: &Path| match (a.canonicalize(), b.canonicalize()) {
            (Ok(a), Ok(b)) => a == b,
            _ => a == b,
        };
        // gpg treats an empty GNUPGHOME as unset.
        gnupghome
            .is_some_and(|home| !home.is_empty() && !same(Path::new(&home), self.agent_home.path()))
    }

    /// Fails if no agent runs in the agent's home and none can be started. signd's sandbox keeps the
    /// directory that was there when signd started. If that was moved away and created anew, no agent can
    /// start, and gpg's own message would not say why.
    fn check_agent_home(&self) -> Result<()> {
        match self.agent_home.lacks_agent() {
            None => Ok(()),
            Some(errno) => Err(Error::Refused(format!(
                "{}: no gpg-agent runs there and none can be started: {errno}; if the directory was moved \
                 away or made anew since signd was started: systemctl restart signd (obssignd on openSUSE); \
                 else `copr-keygen check` says more",
                self.agent_home.path().display()
            ))),
        }
    }

    /// Whether these arguments name a single user whose secret key is already linked from `gnupg/` into
    /// `keys/`. Such a key must sign even if somebody put a certificate into `gnupg/` by hand.
    fn has_taken_over(&self, arguments: &[OsString]) -> bool {
        let user = match arguments::parse(arguments) {
            Ok(Call::Sign { user, .. }) => user,
            Ok(Call::Read { users, .. }) if users.len() == 1 => users[0].clone(),
            _ => return false,
        };
        let name_email = user.to_str().and_then(|text| NameEmail::parse(text).ok());
        let record = name_email.as_ref().and_then(|name| self.homes.find(name).ok().flatten());
        record.is_some_and(|record| {
            let secret_keys = self.agent_home.path().join("private-keys-v1.d");
            let link = secret_keys.join(record.keygrip.file_name());
            std::fs::read_link(link).is_ok_and(|to| to.starts_with("../../keys"))
        })
    }

    /// Finds the key of `user`: a `name_email`, with or without angle brackets, or a fingerprint or key ID. A
    /// key ID is not looked up for obs-signd: that reads every key, which none of its clients may cause. If
    /// there is no key, the selection makes gpg itself report that.
    fn select(&self, user: &OsStr, of_signd: bool) -> Result<Selected> {
        let text = user.to_str().unwrap_or_default();
        let bare = text.strip_prefix('<').and_then(|text| text.strip_suffix('>')).unwrap_or(text);
        let found = match NameEmail::parse(bare) {
            Ok(name_email) => self.homes.find(&name_email)?.map(|record| (name_email, record)),
            Err(_) => match text.strip_prefix("0x").unwrap_or(text).to_uppercase() {
                digits if is_key_id(&digits) && !of_signd => self.homes.find_by_key_id(&digits)?,
                _ => None,
            },
        };
        Ok(match found {
            Some((name_email, record)) => self.selected(&name_email, &record.fingerprint),
            None => {
                // "=" makes gpg look for exactly this user ID. Without a keyring it finds nothing.
                let mut selector = OsString::from("=");
                selector.push(user);
                Selected { pubring: None, selector }
            }
        })
    }

    fn selected(&self, name_email: &NameEmail, fingerprint: &Fingerprint) -> Selected {
        let pubring = Some(self.homes.pubring(name_email));
        Selected { pubring, selector: fingerprint.as_str().into() }
    }

    /// Yields every key of this host.
    fn all(&self) -> Result<impl Iterator<Item = Result<Selected>>> {
        let find = |name_email: Result<NameEmail>| {
            let found = name_email.and_then(|name_email| {
                let record = self.homes.find(&name_email)?;
                Ok(record.map(|record| self.selected(&name_email, &record.fingerprint)))
            });
            found.transpose() // skips a key that was removed since the directory was read
        };
        Ok(self.homes.identities()?.filter_map(find))
    }

    /// Returns the command for gpg in the home of the shared agent, with an environment
    /// that cannot lead it elsewhere.
    fn gpg(&self) -> Command {
        let mut gpg = Command::new(self.gpg);
        gpg.env_clear().env("LC_ALL", "C.UTF-8").env("PATH", "/usr/bin:/bin");
        gpg.arg("--homedir").arg(self.agent_home.path());
        // Keyrings are only read here, so locks would only be left behind. A key that this host does not have
        // must not be looked up on the network.
        gpg.args(["--no-auto-check-trustdb", "--trust-model=always", "--lock-never"]);
        gpg.args(["--auto-key-locate=clear,local", "--disable-dirmngr"]);
        // Overrides /etc/gnupg/gpg.conf, which applies to every gpg of the host.
        gpg.arg("--default-sig-expire=0");
        gpg
    }

    fn gpg_with(&self, key: &Selected) -> Command {
        let mut gpg = self.gpg();
        if let Some(pubring) = &key.pubring {
            gpg.arg("--no-default-keyring").arg("--keyring").arg(pubring);
        }
        gpg
    }
}

/// Whether the command line is one that obs-signd uses to look up a key or to sign. Its `--export -a` does
/// not count, as operators use that too.
fn is_of_signd(options: &[OsString]) -> bool {
    options.iter().any(|option| option == "--locate-key" || option == "--files-are-digests")
}

/// Replaces this process with gpg; returns only the error if that fails.
fn become_gpg(gpg: &mut Command) -> Error {
    let program = gpg.get_program().into();
    Error::Gpg(gpg::Error::Missing { program, setting: "gpg", source: unblock_signals(gpg).exec() })
}

/// Runs the commands one after another. Neither a failing gpg nor a damaged home stops the rest. Returns the
/// first exit status that is not 0.
fn run_each(commands: impl Iterator<Item = Result<Command>>) -> Result<ExitCode> {
    let mut worst = 0;
    for command in commands {
        let status = command.and_then(|mut gpg| {
            unblock_signals(&mut gpg).status().map_err(|source| {
                Error::Gpg(gpg::Error::Missing {
                    program: gpg.get_program().into(),
                    setting: "gpg",
                    source,
                })
            })
        });
        let code = match status {
            Ok(status) => status.code().map_or(2, |code| u8::try_from(code).unwrap_or(2)),
            Err(e) => {
                let words = printable(&e.to_string());
                let _ = writeln!(std::io::stderr(), "gpg-copr: {words}");
                2
            }
        };
        worst = if worst == 0 { code } else { worst };
    }
    Ok(ExitCode::from(worst))
}
