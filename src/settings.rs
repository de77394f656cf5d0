//! The settings in effect. In order of precedence, they come from flags, environment variables, the
//! configuration file and the defaults. Wherever a value comes from, it is parsed as text by the one parser of
//! its setting. An invalid value fails only the modes that need it.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use gpg::{Gpg, clock};
use keystore::{CREDENTIAL, SealingKey};

use crate::error::{Error, Result};
use crate::systemd::credentials;

mod cluster;
mod layers;
mod table;
mod value;
mod values;

use layers::Layers;
pub use layers::{CONFIG_FILE, DEFAULT, Flags, Setting};
pub use table::{ClusterSettings, SETTINGS, Settings, SigndSettings};
pub use value::Value;
pub use values::rules_in;
use values::{absolute_path, state_dir};

/// The settings of `gpg-copr`, the `gpg:` program of obs-signd. Signing needs no others, so no others are
/// parsed.
#[derive(Debug)]
pub struct GpgSettings {
    /// The directory of the keys.
    pub state_dir: PathBuf,
    /// The gpg program.
    pub gpg: PathBuf,
}

impl Settings {
    /// Loads the settings from flags, environment and configuration file.
    ///
    /// Fails with [`Error::Settings`] if the file is unreadable or has an unknown key, or if `state_dir` or
    /// `log_level` is invalid. For other invalid values, see [`Value::get`].
    pub fn load(
        flags: Flags,
        environment: impl Iterator<Item = (OsString, OsString)>,
    ) -> Result<Self> {
        let layers = Layers::defaults(SETTINGS).read(flags, environment, None)?;
        layers.refuse_unknown()?;
        Self::parse(layers)
    }

    /// Returns the settings that a configuration file with this text would give by itself. Fails if any of them
    /// is invalid.
    pub fn of_file(path: &Path, text: &str) -> Result<Self> {
        let mut layers = Layers::defaults(SETTINGS);
        layers.add_text(path, text)?;
        layers.refuse_unknown()?;
        let settings = Self::parse(layers)?;
        match settings.faults.first() {
            Some(fault) => Err(Error::Settings(fault.clone())),
            None => Ok(settings),
        }
    }

    /// Returns what is wrong with invalid values, each as a sentence that says where the value was set.
    pub fn faults(&self) -> &[String] {
        &self.faults
    }

    /// Fails if a key made now could not have the lifetime given by `expire`. Otherwise, clients would be told
    /// that a field is wrong which they did not send.
    pub fn check_expire(&self) -> Result<()> {
        let expiry = self.expire.get()?.expiry(clock::now()?);
        expiry.map(drop).map_err(|why| Error::Settings(format!("expire: {why}")))
    }

    /// Logs what is wrong with settings that this mode does not need.
    pub fn warn_of_faults(&self) {
        for fault in &self.faults {
            log::warn!("{fault}; whatever needs this setting fails");
        }
    }

    /// Reads the sealing key, if this process was given one. Must be called before privileges are dropped, as
    /// only root may be able to read it.
    pub fn find_sealing_key(&mut self) -> Result<()> {
        let file = self.passphrase_key_file.get()?.as_deref();
        let (given, source) = match (credentials::read(CREDENTIAL)?, file) {
            (Some(content), _) => (content, format!("the credential {CREDENTIAL}")),
            (None, Some(file)) => {
                const SETTING: &str = "passphrase_key_file";
                let given = credentials::read_file(SETTING, file, &self.state_dir)?;
                (given, format!("{SETTING} {}", file.display()))
            }
            (None, None) => return Ok(()),
        };
        let key = SealingKey::parse(given.as_bytes());
        self.sealing_key = Some(key.map_err(|why| Error::Settings(format!("{source}: {why}")))?);
        Ok(())
    }

    /// Returns the GnuPG programs to use.
    pub fn gnupg(&self) -> Result<Gpg> {
        let (gpg, agent) = (self.gpg.get()?.clone(), self.gpg_agent.get()?.clone());
        Ok(Gpg::new(gpg, agent, *self.gpg_timeout.get()?)?)
    }

    /// Returns the options of the key store. `queue_timeout` and `pool_max_age` default to zero if invalid:
    /// only modes that make keys need them, and those have checked both before.
    pub fn keystore(&self) -> Result<keystore::Options> {
        Ok(keystore::Options {
            state_dir: self.state_dir.clone(),
            jobs: *self.jobs.get()?,
            queue_timeout: self.queue_timeout.get().copied().unwrap_or_default(),
            pool_max_age: self.pool_max_age.get().copied().unwrap_or_default(),
            phrases_dir: self.phrases_dir.get()?.clone(),
            sealing_key: self.sealing_key.clone(),
            agreement: self.cluster_directory.clone().map(|directory| directory as _),
        })
    }

    /// Returns the options of the key store for the mode that signs and makes no keys.
    pub fn signing(&self) -> Result<keystore::Options> {
        Ok(keystore::Options {
            state_dir: self.state_dir.clone(),
            jobs: *self.signd.jobs.get()?,
            queue_timeout: *self.queue_timeout.get()?,
            pool_max_age: Duration::ZERO,
            phrases_dir: None,
            sealing_key: self.sealing_key.clone(),
            agreement: None,
        })
    }
}

impl GpgSettings {
    /// Loads these settings. Ignores everything else in the configuration file.
    pub fn load(
        flags: Flags,
        environment: impl Iterator<Item = (OsString, OsString)>,
    ) -> Result<Self> {
        let needed = ["state_dir", "gpg"];
        let layers = Layers::defaults(SETTINGS).read(flags, environment, Some(&needed))?;
        Ok(Self {
            state_dir: layers.every_mode("state_dir", state_dir)?,
            gpg: layers.every_mode("gpg", absolute_path)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use gpg::{KeyLength, Lifetime};

    use super::*;
    use crate::listen_address::ListenAddress;

    fn variables(pairs: &[(&str, &str)]) -> impl Iterator<Item = (OsString, OsString)> {
        pairs.iter().map(|(k, v)| (k.into(), v.into())).collect::<Vec<_>>().into_iter()
    }

    fn load_file(text: &str) -> Result<Settings> {
        let dir = tempfile::tempdir().map_err(|e| Error::io("mkdir", e))?;
        let config = dir.path().join("config.toml");
        std::fs::write(&config, text).map_err(|e| Error::io("write", e))?;
        let flags = Flags { config: Some(config), ..Flags::default() };
        Settings::load(flags, variables(&[]))
    }

    #[test]
    fn defaults_hold_and_parse() -> Result<()> {
        let flags = Flags { config: Some("/dev/null".into()), ..Flags::default() };
        let settings = Settings::load(flags, variables(&[("HOME", "/root")]))?;
        assert_eq!(settings.state_dir, Path::new("/var/lib/copr-keygen"));
        assert_eq!(*settings.key_length.get()?, KeyLength::Rsa2048);
        assert_eq!(*settings.expire.get()?, Lifetime::FOREVER);
        assert!(*settings.jobs.get()? >= 1);
        assert!(settings.unknown_variables.is_empty() && settings.faults().is_empty());
        Ok(())
    }

    #[test]
    fn flag_beats_environment_beats_file() -> Result<()> {
        let settings =
            load_file("key_length = 4096\nexpire = '5y'\nlisten = ['[::1]:1', 'unix:/x']")?;
        assert_eq!(*settings.key_length.get()?, KeyLength::Rsa4096);
        assert_eq!(settings.expire.get()?.seconds(), 5 * 365 * 86_400);
        assert_eq!(settings.listen.get()?.len(), 2);

        let settings = Settings::load(
            Flags {
                config: Some("/dev/null".into()),
                state_dir: Some("/flag".into()),
                listen: vec!["127.0.0.1:1".into(), "unix:/s".into()],
                ..Flags::default()
            },
            variables(&[
                ("COPR_KEYGEN_STATE_DIR", "/environment"),
                ("COPR_KEYGEN_KEY_LENGTH", "3072"),
                ("COPR_KEYGEN_COLOUR", "red"),
            ]),
        )?;
        assert_eq!(settings.state_dir, Path::new("/flag"));
        assert_eq!(*settings.key_length.get()?, KeyLength::Rsa3072);
        assert_eq!(settings.listen.get()?[1], ListenAddress::Unix("/s".into()));
        assert_eq!(settings.unknown_variables, ["COPR_KEYGEN_COLOUR"]);
        Ok(())
    }

    #[test]
    fn settings_of_a_table_are_no_others() -> Result<()> {
        let settings = load_file(
            "listen = '[::1]:1'\njobs = 2\n[signd]\nlisten = ['[::1]:2', 'unix:/x']\njobs = 3\nsha1 = true\n\
             allow = ['127.0.0.1 *', 'unix:no-such-user user#*@copr.example.org @group#*']",
        )?;
        assert!(settings.faults().is_empty(), "{:?}", settings.faults());
        assert_eq!((*settings.jobs.get()?, *settings.signd.jobs.get()?), (2, 3));
        assert_eq!((settings.listen.get()?.len(), settings.signd.listen.get()?.len()), (1, 2));
        assert_eq!((*settings.signd.sha1.get()?, *settings.signd.expired.get()?), (true, false));
        assert_eq!(settings.signd.allow.get()?.len(), 2);
        let origin = |wanted: &str| {
            let found = settings.origins.iter().find(|(name, ..)| name == wanted);
            found.map(|(_, text, _)| text.as_str())
        };
        let allow = "127.0.0.1 *, unix:no-such-user user#*@copr.example.org @group#*";
        assert_eq!(origin("signd.allow"), Some(allow));
        assert_eq!(origin("signd.listen"), Some("[::1]:2 unix:/x"));
        // TOML has several ways to write a table.
        for text in ["signd.jobs = 3", "signd = { jobs = 3 }", "'signd'.'jobs' = '3'"] {
            assert_eq!(*load_file(text)?.signd.jobs.get()?, 3, "{text}");
        }

        let settings = Settings::load(
            Flags {
                config: Some("/dev/null".into()),
                signd_listen: vec!["unix:/s".into()],
                ..Flags::default()
            },
            variables(&[
                ("COPR_KEYGEN_SIGND_LISTEN", "unix:/environment"),
                ("COPR_KEYGEN_SIGND_RESERVED_PORTS", "true"),
                ("COPR_KEYGEN_SIGND_ALLOW", "::1 *,unix:0 *\n127.0.0.1 *,"),
                ("COPR_KEYGEN_SIGND.JOBS", "2"),
                ("COPR_KEYGEN_SIGND", "red"),
            ]),
        )?;
        assert_eq!(settings.signd.listen.get()?[..], [ListenAddress::Unix("/s".into())]);
        assert_eq!(settings.listen.get()?[0].to_string(), "127.0.0.1:5003");
        assert!(*settings.signd.reserved_ports.get()?);
        assert_eq!(settings.signd.allow.get()?.len(), 3);
        assert_eq!(settings.unknown_variables, ["COPR_KEYGEN_SIGND.JOBS", "COPR_KEYGEN_SIGND"]);
        Ok(())
    }

    #[test]
    fn mistakes_are_named_with_their_place() {
        for (text, expected) in [
            ("colour = 'red'", "colour: unknown setting; there are state_dir, listen, "),
            ("[signd]\ncolour = 'red'", "signd.colour: unknown setting; there are "),
            ("[sigd]\nsha1 = true", "sigd: unknown setting; there are "),
            ("[signd]\nkey_length = 4096", "key_length above the first line in brackets"),
            ("reserved_ports = true", "write reserved_ports below the line [signd]"),
            ("signd_listen = '[::1]:1'", "write listen below the line [signd]"),
            ("'signd.listen' = '[::1]:1'", "write listen below the line [signd]"),
            ("[signd]\n'a.b' = 1", "signd.a.b: unknown setting; there are "),
            ("signd = true", "signd: must be a table, with its settings below [signd]"),
            ("[[signd]]\njobs = 1", "signd: must be a table"),
            ("[signd.listen]\nport = 5167", "signd.listen: must be a string"),
            ("[signd]\nlisten = 5167", "signd.listen = \"5167\" (from "),
            ("[signd]\nlisten = []", "signd.listen = \"\" (from "),
            ("[signd]\nallow = true", "the rule \"true\": "),
            ("[signd]\nallow = ['::1 *', 'localhost *']", "the rule \"localhost *\": "),
            ("[signd]\nallow = ['127.0.0.1', '::1 *']", "the rule \"127.0.0.1\": it names no"),
            ("[signd]\nallow = [['::1 *']]", "signd.allow: must be a string"),
            ("[signd]\nreserved_ports = 1", "signd.reserved_ports = \"1\" (from "),
            ("[signd]\nsha1 = 'yes'", "must be true or false"),
            ("[signd]\nexpired = ''", "must be true or false"),
            ("[signd]\njobs = 257", "number from 1 to 256"),
            ("[signd]\nmetrics_file = 'signd.prom'", "absolute path"),
            ("metrics_file = '/var/lib/copr-keygen/x.prom'", "must not be in the state directory"),
            ("state_dir = 's'", "must be an absolute path"),
            ("\"\\u001b[31m\" = 1", "\\u{1b}[31m: unknown setting"),
            ("key_length = 1024", "key_length = \"1024\" (from "),
            ("key_length = 2048.0", "key_length: must be a string"),
            ("key_length = true", "key_length = \"true\" (from "),
            ("tokens_file = 'tokens'", "absolute path"),
            ("allow_anonymous = 1", "must be true or false"),
            ("\nexpire = ", "line 2: "),
            ("idle_timeout = '5 parsecs'", "must be a duration"),
            ("idle_timeout = 5", "must be a duration"),
            ("idle_timeout = '400000000000y'", "at most 100y"),
            ("queue_timeout = '101y'", "at most 100y"),
            ("gpg_timeout = '18446744073709551615s'", "at most 100y"),
            ("pool_max_age = '99999999999999999999y'", "at most 100y"),
            ("jobs = 257", "number from 1 to 256"),
            ("expire = '200y'", "before the year 2106"),
            ("gpg_timeout = '0'", "longer than nothing"),
            ("listen = []", "at least one address"),
            ("listen = 'nonsense'", "is no HOST:PORT"),
            ("gpg = 'gpg'", "absolute path"),
            ("jobs = -1", "number from 1 to 256"),
            ("log_level = 'loud'", "must be off"),
            ("pool = '2048'", "must be like 2048:16"),
            ("pool = ['2048:1', '2048:2']", "each length once"),
            ("pool = ['1024:1']", "must be like"),
            ("pool = ['2048:99999']", "at most 10000 keys"),
            ("pool_max_age = '0'", "longer than nothing"),
        ] {
            let message = match load_file(text) {
                Ok(settings) => settings.faults().join("\n"),
                Err(e) => e.to_string(),
            };
            assert!(message.contains(expected), "{text:?} gave {message:?}");
            assert_eq!(message.lines().count(), 1, "{text:?} gave {message:?}");
            assert!(Settings::of_file(Path::new("x"), text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_wrong_value_fails_who_asks_for_it_and_nobody_else() -> Result<()> {
        let settings = load_file("idle_timeout = '1 parsec'\nhook = 2.5\nkey_length = 4096")?;
        assert_eq!(*settings.key_length.get()?, KeyLength::Rsa4096);
        for fault in [settings.idle_timeout.get().err(), settings.hook.get().err()] {
            assert_eq!(fault.map(|e| crate::error::exit_status(&e)), Some(78));
        }
        assert_eq!(settings.faults().len(), 2);
        Ok(())
    }

    #[test]
    fn signing_needs_two_settings_and_reads_no_other() -> Result<()> {
        let dir = tempfile::tempdir().map_err(|e| Error::io("mkdir", e))?;
        let config = dir.path().join("config.toml");
        let read = |text: &[u8], pairs: &[(&str, &str)]| {
            std::fs::write(&config, text).map_err(|e| Error::io("write", e))?;
            let flags = Flags { config: Some(config.clone()), ..Flags::default() };
            GpgSettings::load(flags, variables(pairs))
        };
        for mistake in [
            "colour = 'red'",
            "listen = 'nonsense'",
            "listen = 2.5",
            "log_level = 'loud'",
            "[section]\ngpg = '/other'",
            // These are not TOML at all.
            "listen = localhost:5003",
            "jobs = 1\njobs = 2",
            "hook = '/x",
            "# Schl\u{fc}ssel\nlisten = [",
        ] {
            let latin1 = |text: String| text.chars().map(|c| c as u8).collect::<Vec<_>>();
            let text = format!("state_dir = '/state'\n\"gpg\" = '/bin/gpg' # ours\n{mistake}\n");
            let settings = read(&latin1(text), &[("COPR_KEYGEN_COLOUR", "red")])?;
            assert_eq!(settings.state_dir, Path::new("/state"), "{mistake}");
            assert_eq!(settings.gpg, Path::new("/bin/gpg"), "{mistake}");
        }
        for wrong in
            ["gpg = 'gpg'", "state_dir = 5.5", "gpg = /x", "state_dir = 'a'\nstate_dir = 'b'"]
        {
            let error = read(wrong.as_bytes(), &[]).err().map(|e| crate::error::exit_status(&e));
            assert_eq!(error, Some(78), "{wrong}");
        }
        Ok(())
    }

    #[test]
    fn a_named_file_must_be_readable() {
        let flags = Flags { config: Some("/nonexistent/config.toml".into()), ..Flags::default() };
        let error = Settings::load(flags, variables(&[])).err();
        assert_eq!(error.map(|e| crate::error::exit_status(&e)), Some(78));
    }
}
