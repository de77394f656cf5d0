//! The settings in effect: flag, else environment, else configuration file, else default.
//! Every value passes as text through one parser per setting, wherever it came from.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use log::LevelFilter;

use crate::error::{Error, Result};
use crate::key_request::{KeyLength, Lifetime};
use crate::keys::{SealingKey, Stock};
use crate::listen_address::ListenAddress;

mod table;
mod values;

pub use table::{SETTINGS, Setting};
use values::{
    duration, jobs, listen_addresses, log_level, optional, path, positive_duration, program, stock,
    words, yes_or_no,
};

/// The configuration file that is read when no other is named. It need not exist.
pub const CONFIG_FILE: &str = "/etc/copr-keygen/config.toml";

const ENVIRONMENT_PREFIX: &str = "COPR_KEYGEN_";

/// All settings, parsed.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The directory of the keys and all that is derived from them (docs/operations.md); absolute.
    pub state_dir: PathBuf,
    /// Where to listen when systemd passes no sockets.
    pub listen: Vec<ListenAddress>,
    /// The gpg program.
    pub gpg: PathBuf,
    /// The gpg-agent program that belongs to it.
    pub gpg_agent: PathBuf,
    /// Length of keys whose request names none.
    pub key_length: KeyLength,
    /// Lifetime of keys whose request names none.
    pub expire: Lifetime,
    /// How many gpg jobs run at once; the default is one per core.
    pub jobs: usize,
    /// How long a socket-activated service waits for work before it exits; zero is for ever.
    pub idle_timeout: Duration,
    /// How long a request waits for one of the `jobs` before it is answered 503.
    pub queue_timeout: Duration,
    /// How long one gpg process may take.
    pub gpg_timeout: Duration,
    /// The least important message that is logged.
    pub log_level: LevelFilter,
    /// Secret keys that are made in advance.
    pub pool: Vec<Stock>,
    /// How old they may become.
    pub pool_max_age: Duration,
    /// A program that `prolong` runs when certificates have changed, with their names on stdin.
    pub hook: Option<PathBuf>,
    /// How long that may run.
    pub hook_timeout: Duration,
    /// Where `prolong` writes metrics for the text-file collector of node_exporter.
    pub metrics_file: Option<PathBuf>,
    /// Where the tokens are, when no credential of systemd holds them.
    pub tokens_file: Option<PathBuf>,
    /// Users who need no token on a Unix socket: names or numbers.
    pub allow_users: Vec<String>,
    /// Groups whose members need no token on a Unix socket: names or numbers.
    pub allow_groups: Vec<String>,
    /// Whether other hosts may ask although there are no tokens.
    pub allow_anonymous: bool,
    /// The key that passphrases are sealed with, off systemd.
    pub passphrase_key_file: Option<PathBuf>,
    /// Where signd finds passphrases as files, in memory; `None` for links in `phrases/`.
    pub phrases_dir: Option<PathBuf>,
    /// That key, for modes that need it: no setting, see [`Settings::find_sealing_key`].
    pub sealing_key: Option<SealingKey>,
    /// Why that key could not be taken, in modes that can do without.
    pub sealing_key_fault: Option<String>,
    /// Every setting as it was written, and where that was: name, text, source.
    pub origins: Vec<(String, String, String)>,
    /// Environment variables that look like settings of ours and are none.
    pub unknown_variables: Vec<String>,
}

/// Where a value came from; settles precedence and tells the operator where to correct it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Source {
    Default,
    File(PathBuf),
    Environment(String),
    Flag(&'static str),
}

impl fmt::Display for Source {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => out.write_str("the default"),
            Self::File(path) => write!(out, "{}", path.display()),
            Self::Environment(name) => write!(out, "environment variable {name}"),
            Self::Flag(name) => write!(out, "--{name}"),
        }
    }
}

/// What the command line said. Empty and `None` mean: nothing.
#[derive(Debug, Default)]
pub struct Flags {
    /// `--config`
    pub config: Option<PathBuf>,
    /// `--state-dir`
    pub state_dir: Option<PathBuf>,
    /// `--listen`, in order
    pub listen: Vec<String>,
}

impl Settings {
    /// Reads flags, environment and configuration file.
    ///
    /// Fails with [`Error::Settings`] on an unreadable file, an unknown key in it, and any value
    /// that its setting cannot take.
    pub fn load(
        flags: Flags,
        environment: impl Iterator<Item = (OsString, OsString)>,
    ) -> Result<Self> {
        let mut layers = Layers::defaults();
        let (variables, unknown_variables) = read_environment(environment)?;
        let named = flags.config.or_else(|| variables.get("config").map(PathBuf::from));
        layers.add_file(named)?;
        for (name, value) in variables {
            let variable = format!("{ENVIRONMENT_PREFIX}{}", name.to_uppercase());
            layers.set(&name, value, Source::Environment(variable));
        }
        if let Some(dir) = flags.state_dir {
            layers.set("state_dir", utf8(dir.into())?, Source::Flag("state-dir"));
        }
        if !flags.listen.is_empty() {
            layers.set("listen", flags.listen.join(" "), Source::Flag("listen"));
        }
        Self::parse(&layers, unknown_variables)
    }

    /// What a configuration file of this text alone would set.
    pub(crate) fn of_file(path: &Path, text: &str) -> Result<Self> {
        let mut layers = Layers::defaults();
        layers.add_text(path, text)?;
        Self::parse(&layers, Vec::new())
    }

    fn parse(layers: &Layers, unknown_variables: Vec<String>) -> Result<Self> {
        Ok(Self {
            state_dir: absolute(layers.parse("state_dir", path)?)?,
            listen: layers.parse("listen", listen_addresses)?,
            gpg: layers.parse("gpg", program)?,
            gpg_agent: layers.parse("gpg_agent", program)?,
            key_length: layers.parse("key_length", KeyLength::from_str)?,
            expire: layers.parse("expire", Lifetime::from_str)?,
            jobs: layers.parse("jobs", jobs)?,
            idle_timeout: layers.parse("idle_timeout", duration)?,
            queue_timeout: layers.parse("queue_timeout", duration)?,
            gpg_timeout: layers.parse("gpg_timeout", positive_duration)?,
            log_level: layers.parse("log_level", log_level)?,
            pool: layers.parse("pool", stock)?,
            pool_max_age: layers.parse("pool_max_age", positive_duration)?,
            hook: layers.parse("hook", |text| optional(text, program))?,
            hook_timeout: layers.parse("hook_timeout", positive_duration)?,
            metrics_file: layers.parse("metrics_file", |text| optional(text, program))?,
            tokens_file: layers.parse("tokens_file", |text| optional(text, program))?,
            allow_users: layers.parse("allow_users", words)?,
            allow_groups: layers.parse("allow_groups", words)?,
            allow_anonymous: layers.parse("allow_anonymous", yes_or_no)?,
            passphrase_key_file: layers
                .parse("passphrase_key_file", |text| optional(text, program))?,
            phrases_dir: layers.parse("phrases_dir", |text| optional(text, program))?,
            sealing_key: None,
            sealing_key_fault: None,
            origins: layers.origins(),
            unknown_variables,
        })
    }

    /// Takes the sealing key that this process was given, if it was. To be called before privileges are
    /// given up, as root may be the only one who can read it.
    pub fn find_sealing_key(&mut self) -> Result<()> {
        self.sealing_key = SealingKey::find(self.passphrase_key_file.as_deref(), &self.state_dir)?;
        Ok(())
    }
}

/// The text of every setting and where it came from; what is set later wins.
struct Layers(BTreeMap<String, (String, Source)>);

impl Layers {
    fn defaults() -> Self {
        let default = |setting: Setting| {
            (setting.name.to_owned(), (setting.default.to_owned(), Source::Default))
        };
        Self(SETTINGS.map(default).into())
    }

    fn set(&mut self, name: &str, text: String, source: Source) {
        if let Some(slot) = self.0.get_mut(name) {
            *slot = (text, source);
        }
    }

    fn add_file(&mut self, named: Option<PathBuf>) -> Result<()> {
        let must_exist = named.is_some();
        let path = named.unwrap_or_else(|| CONFIG_FILE.into());
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(e) if e.kind() == io::ErrorKind::NotFound && !must_exist => return Ok(()),
            Err(e) => {
                return Err(Error::Settings(format!(
                    "{}: the configuration file cannot be read: {e}",
                    path.display()
                )));
            }
        };
        self.add_text(&path, &text)
    }

    fn add_text(&mut self, path: &Path, text: &str) -> Result<()> {
        let table: toml::Table = text
            .parse()
            .map_err(|e: toml::de::Error| Error::Settings(describe_toml(path, text, &e)))?;
        for (name, value) in table {
            let refuse = |why: String| {
                let (path, name) = (path.display(), name.escape_debug());
                Err(Error::Settings(format!("{path}: {name}: {why}")))
            };
            if !self.0.contains_key(&name) {
                let known: Vec<_> = SETTINGS.iter().map(|setting| setting.name).collect();
                return refuse(format!("unknown setting; there are {}", known.join(", ")));
            }
            match plain_text(&value) {
                Some(text) => self.set(&name, text, Source::File(path.into())),
                None => {
                    return refuse(
                        "must be a string, a whole number, true, false or an array of strings"
                            .into(),
                    );
                }
            }
        }
        Ok(())
    }

    /// Every setting in the order of the defaults.
    fn origins(&self) -> Vec<(String, String, String)> {
        let origin = |setting: &Setting| {
            let (text, source) = &self.0[setting.name];
            (setting.name.to_owned(), text.clone(), source.to_string())
        };
        SETTINGS.iter().map(origin).collect()
    }

    fn parse<T>(
        &self,
        name: &str,
        parser: impl Fn(&str) -> std::result::Result<T, String>,
    ) -> Result<T> {
        let (text, source) = &self.0[name];
        parser(text)
            .map_err(|why| Error::Settings(format!("{name} = {text:?} (from {source}): {why}")))
    }
}

/// The variables that are settings, by setting name, and the names of those that only look so.
fn read_environment(
    environment: impl Iterator<Item = (OsString, OsString)>,
) -> Result<(BTreeMap<String, String>, Vec<String>)> {
    let mut known = BTreeMap::new();
    let mut unknown = Vec::new();
    for (variable, value) in environment {
        let Some(suffix) = variable.to_str().and_then(|v| v.strip_prefix(ENVIRONMENT_PREFIX))
        else {
            continue;
        };
        let name = suffix.to_lowercase();
        if name == "config" || SETTINGS.iter().any(|setting| setting.name == name) {
            known.insert(name, utf8(value)?);
        } else {
            unknown.push(format!("{ENVIRONMENT_PREFIX}{suffix}"));
        }
    }
    Ok((known, unknown))
}

fn utf8(text: OsString) -> Result<String> {
    text.into_string().map_err(|text| Error::Settings(format!("{text:?} is not valid UTF-8")))
}

fn describe_toml(path: &Path, text: &str, error: &toml::de::Error) -> String {
    let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
    let line = before.matches('\n').count() + 1;
    let message = error.message().lines().collect::<Vec<_>>().join(", ");
    format!("{}, line {line}: {message}", path.display())
}

fn plain_text(value: &toml::Value) -> Option<String> {
    match value {
        toml::Value::String(text) => Some(text.clone()),
        toml::Value::Integer(number) => Some(number.to_string()),
        toml::Value::Boolean(value) => Some(value.to_string()),
        toml::Value::Array(values) => {
            let texts: Option<Vec<_>> = values.iter().map(toml::Value::as_str).collect();
            texts.map(|texts| texts.join(" "))
        }
        _ => None,
    }
}

fn absolute(path: PathBuf) -> Result<PathBuf> {
    std::path::absolute(&path)
        .map_err(|e| Error::Settings(format!("state_dir = {}: {e}", path.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variables(pairs: &[(&str, &str)]) -> impl Iterator<Item = (OsString, OsString)> {
        pairs.iter().map(|(k, v)| (k.into(), v.into())).collect::<Vec<_>>().into_iter()
    }

    fn load_file(text: &str) -> Result<Settings> {
        let dir = std::env::temp_dir().join(format!("ckg-settings-{:x}", rand::random::<u64>()));
        std::fs::create_dir(&dir).map_err(|e| Error::io("mkdir", e))?;
        let config = dir.join("config.toml");
        std::fs::write(&config, text).map_err(|e| Error::io("write", e))?;
        let flags = Flags { config: Some(config), ..Flags::default() };
        let loaded = Settings::load(flags, variables(&[]));
        std::fs::remove_dir_all(&dir).map_err(|e| Error::io("remove", e))?;
        loaded
    }

    #[test]
    fn defaults_hold_and_parse() -> Result<()> {
        let flags = Flags { config: Some("/dev/null".into()), ..Flags::default() };
        let settings = Settings::load(flags, variables(&[("HOME", "/root")]))?;
        assert_eq!(settings.state_dir, Path::new("/var/lib/copr-keygen"));
        assert_eq!(settings.key_length, KeyLength::Rsa2048);
        assert_eq!(settings.expire, Lifetime::FOREVER);
        assert!(settings.jobs >= 1);
        assert!(settings.unknown_variables.is_empty());
        Ok(())
    }

    #[test]
    fn flag_beats_environment_beats_file() -> Result<()> {
        let settings =
            load_file("key_length = 4096\nexpire = '5y'\nlisten = ['[::1]:1', 'unix:/x']")?;
        assert_eq!(settings.key_length, KeyLength::Rsa4096);
        assert_eq!(settings.expire.seconds(), 5 * 365 * 86_400);
        assert_eq!(settings.listen.len(), 2);

        let settings = Settings::load(
            Flags {
                config: Some("/dev/null".into()),
                state_dir: Some("/flag".into()),
                listen: vec!["127.0.0.1:1".into(), "unix:/s".into()],
            },
            variables(&[
                ("COPR_KEYGEN_STATE_DIR", "/environment"),
                ("COPR_KEYGEN_KEY_LENGTH", "3072"),
                ("COPR_KEYGEN_COLOUR", "red"),
            ]),
        )?;
        assert_eq!(settings.state_dir, Path::new("/flag"));
        assert_eq!(settings.key_length, KeyLength::Rsa3072);
        assert_eq!(settings.listen[1], ListenAddress::Unix("/s".into()));
        assert_eq!(settings.unknown_variables, ["COPR_KEYGEN_COLOUR"]);
        Ok(())
    }

    #[test]
    fn mistakes_are_named_with_their_place() {
        for (text, expected) in [
            ("colour = 'red'", "colour: unknown setting"),
            ("\"\\u001b[31m\" = 1", "\\u{1b}[31m: unknown setting"),
            ("key_length = 1024", "key_length = \"1024\" (from "),
            ("key_length = 2048.0", "key_length: must be a string"),
            ("key_length = true", "key_length = \"true\" (from "),
            ("tokens_file = 'tokens'", "absolute path"),
            ("allow_anonymous = 1", "must be true or false"),
            ("\nexpire = ", "line 2: "),
            ("idle_timeout = '5 parsecs'", "must be a duration"),
            ("idle_timeout = 5", "must be a duration"),
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
            let message = load_file(text).err().map(|e| e.to_string()).unwrap_or_default();
            assert!(message.contains(expected), "{text:?} gave {message:?}");
        }
    }

    #[test]
    fn a_named_file_must_be_readable() {
        let flags = Flags { config: Some("/nonexistent/config.toml".into()), ..Flags::default() };
        let error = Settings::load(flags, variables(&[])).err();
        assert_eq!(error.map(|e| e.exit_status()), Some(78));
    }
}
