//! The texts of the settings and where each was set: in the defaults, the configuration file, the environment
//! or a flag. Later layers override earlier ones.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::{fmt, io};

use gpg::text::printable;

use super::value::Value;
use super::values::state_dir;
use crate::error::{Error, Result};

/// The configuration file that is read if no other is given. It need not exist.
pub const CONFIG_FILE: &str = "/etc/copr-keygen/config.toml";

/// The source of a setting that is not set anywhere.
pub const DEFAULT: &str = "the default";

const ENVIRONMENT_PREFIX: &str = "COPR_KEYGEN_";

/// The documentation and default of a setting.
#[derive(Debug)]
pub struct Setting {
    /// The name of the setting: its key in the configuration file. In a table, the key is preceded by the name
    /// of the table and a dot.
    pub name: &'static str,
    /// The text that applies if the setting is not set; empty for none.
    pub default: &'static str,
    /// The separator with which the members of an array are joined to one text.
    pub joint: &'static str,
    /// What the setting holds and what it is for, as a paragraph of the manual page.
    pub about: &'static str,
}

impl Setting {
    /// Returns the environment variable, without `COPR_KEYGEN_`: the name in capitals, with `_` for dots.
    pub fn variable(&self) -> String {
        variable_of(self.name)
    }
}

fn variable_of(name: &str) -> String {
    name.replace('.', "_").to_uppercase()
}

/// The settings given on the command line. Empty and `None` mean that a flag was not given.
#[derive(Debug, Default)]
pub struct Flags {
    /// `--config`
    pub config: Option<PathBuf>,
    /// `--state-dir`
    pub state_dir: Option<PathBuf>,
    /// `--listen` of serve, in order
    pub listen: Vec<String>,
    /// `--listen` of signd, in order
    pub signd_listen: Vec<String>,
}

/// The result of a parser: the value, or what the text must be.
type Parsed<T> = std::result::Result<T, String>;

/// A setting as the last layer gives it.
struct Written {
    name: &'static str,
    joint: &'static str,
    /// The text, or a sentence that says why there is none.
    text: Parsed<String>,
    /// Where the text was written, for the operator who has to correct it.
    source: String,
}

/// The settings, each as the last layer gives it.
pub struct Layers {
    written: Vec<Written>,
    /// A sentence for each unknown setting in the configuration file.
    unknown_keys: Vec<String>,
    /// The configuration file that `--config` names.
    pub config: Option<PathBuf>,
    /// Environment variables that begin like settings of ours but name none.
    pub unknown_variables: Vec<String>,
    /// What is wrong with values of settings that only some modes need.
    pub faults: Vec<String>,
}

impl Layers {
    /// Creates the layer of the defaults.
    pub fn defaults(settings: &[Setting]) -> Self {
        let default = |setting: &Setting| Written {
            name: setting.name,
            joint: setting.joint,
            text: Ok(setting.default.into()),
            source: DEFAULT.into(),
        };
        Self {
            written: settings.iter().map(default).collect(),
            unknown_keys: Vec::new(),
            config: None,
            unknown_variables: Vec::new(),
            faults: Vec::new(),
        }
    }

    /// Adds the configuration file, the environment and the flags. Fails if the file cannot be read or is not
    /// TOML. If the caller needs only the settings in `only`, the file need not be TOML as a whole: the lines
    /// that set these are enough.
    pub fn read(
        mut self,
        flags: Flags,
        environment: impl Iterator<Item = (OsString, OsString)>,
        only: Option<&[&str]>,
    ) -> Result<Self> {
        self.config = flags.config.clone();
        let (mut config, mut variables) = (flags.config, Vec::new());
        for (variable, value) in environment {
            let Some(suffix) = variable.to_str().and_then(|v| v.strip_prefix(ENVIRONMENT_PREFIX))
            else {
                continue;
            };
            let written = suffix.to_uppercase();
            if written == "CONFIG" {
                config = config.or_else(|| Some(value.into()));
            } else if let Some(name) = self.names().find(|name| variable_of(name) == written) {
                variables.push((name, value));
            } else {
                self.unknown_variables.push(format!("{ENVIRONMENT_PREFIX}{suffix}"));
            }
        }
        self.add_file(config, only)?;
        for (name, value) in variables {
            let source = format!("environment variable {ENVIRONMENT_PREFIX}{}", variable_of(name));
            self.set_os(name, value, source);
        }
        if let Some(directory) = flags.state_dir {
            self.set_os("state_dir", directory.into(), "--state-dir".into());
        }
        for (name, listen) in [("listen", flags.listen), ("signd.listen", flags.signd_listen)] {
            if !listen.is_empty() {
                self.set(name, Ok(listen.join(" ")), "--listen".into());
            }
        }
        Ok(self)
    }

    fn find(&self, name: &str) -> Option<&Written> {
        self.written.iter().find(|written| written.name == name)
    }

    fn names(&self) -> impl Iterator<Item = &'static str> {
        self.written.iter().map(|written| written.name)
    }

    fn set_os(&mut self, name: &str, text: OsString, source: String) {
        let text = text
            .into_string()
            .map_err(|text| format!("{name} (from {source}): {text:?} is not valid UTF-8"));
        self.set(name, text, source);
    }

    fn set(&mut self, name: &str, text: Parsed<String>, source: String) {
        if let Some(written) = self.written.iter_mut().find(|written| written.name == name) {
            (written.text, written.source) = (text, source);
        }
    }

    fn add_file(&mut self, named: Option<PathBuf>, only: Option<&[&str]>) -> Result<()> {
        let must_exist = named.is_some();
        let path = named.unwrap_or_else(|| CONFIG_FILE.into());
        let unreadable = |e: &dyn fmt::Display| {
            let path = path.display();
            Error::Settings(format!("{path}: the configuration file cannot be read: {e}"))
        };
        let text = match std::fs::read(&path) {
            // An editor may have put a byte order mark in front.
            Ok(bytes) => String::from_utf8(
                bytes.strip_prefix("\u{feff}".as_bytes()).unwrap_or(&bytes).to_vec(),
            ),
            Err(e) if e.kind() == io::ErrorKind::NotFound && !must_exist => return Ok(()),
            Err(e) => return Err(unreadable(&e)),
        };
        match (text, only) {
            (Ok(text), None) => self.add_text(&path, &text),
            (Err(e), None) => Err(unreadable(&e)),
            (text, Some(names)) => {
                let text =
                    text.unwrap_or_else(|e| String::from_utf8_lossy(e.as_bytes()).into_owned());
                match text.parse::<toml::Table>() {
                    Ok(_) => self.add_text(&path, &text),
                    Err(_) => self.add_text(&path, &lines_of(&text, names)),
                }
            }
        }
    }

    /// Adds the settings in `text`, the contents of a configuration file.
    pub fn add_text(&mut self, path: &Path, text: &str) -> Result<()> {
        let table: toml::Table = text
            .parse()
            .map_err(|e: toml::de::Error| Error::Settings(describe_toml(path, text, &e)))?;
        let file = path.display().to_string();
        for (key, value) in table {
            match value {
                toml::Value::Table(entries) if self.has_table(&key) => {
                    for (in_key, value) in entries {
                        self.add_key(&file, &format!("{key}.{in_key}"), &value);
                    }
                }
                _ if key.contains('.') => self.refuse_key(&file, &key),
                value => self.add_key(&file, &key, &value),
            }
        }
        Ok(())
    }

    fn has_table(&self, table: &str) -> bool {
        self.names().any(|name| name.split_once('.').is_some_and(|(of, _)| of == table))
    }

    fn add_key(&mut self, file: &str, name: &str, value: &toml::Value) {
        let Some(written) = self.find(name) else { return self.refuse_key(file, name) };
        let expected = "a string, a whole number, true, false or an array of strings";
        let text = plain_text(value, written.joint)
            .ok_or_else(|| format!("{file}: {name}: must be {expected}"));
        // Other programs read the file too, gpg-copr for one, each in a directory of its own.
        let text = match text {
            Ok(path) if name == "state_dir" && !path.is_empty() && !path.starts_with('/') => {
                Err(format!("{file}: {name} = {path:?}: must be an absolute path"))
            }
            text => text,
        };
        self.set(name, text, file.into());
    }

    /// Records an error for a key that is no setting, and says which setting was probably meant.
    fn refuse_key(&mut self, file: &str, name: &str) {
        let key = name.rsplit('.').next().unwrap_or(name);
        let same_variable = |known: &&str| variable_of(known) == variable_of(name);
        let same_key = |known: &&str| known.rsplit('.').next() == Some(key);
        let meant = self.names().find(same_variable).or_else(|| self.names().find(same_key));
        let why = match meant.map(|known| (known, known.split_once('.'))) {
            _ if self.has_table(name) => {
                format!("must be a table, with its settings below [{name}]")
            }
            Some((_, Some((table, key)))) => {
                format!("unknown setting; write {key} below the line [{table}]")
            }
            Some((known, None)) => {
                format!("unknown setting; write {known} above the first line in brackets")
            }
            None => {
                let known: Vec<_> = self.names().collect();
                format!("unknown setting; there are {}", known.join(", "))
            }
        };
        self.unknown_keys.push(format!("{file}: {}: {why}", printable(name)));
    }

    /// Fails if the configuration file has an unknown setting. Most likely its name is mistyped.
    pub fn refuse_unknown(&self) -> Result<()> {
        self.unknown_keys.first().map_or(Ok(()), |why| Err(Error::Settings(why.clone())))
    }

    /// Returns the name, text and source of every setting, in the order of the defaults.
    pub fn origins(&self) -> Vec<(String, String, String)> {
        let origin = |written: &Written| {
            let text = written.text.clone().unwrap_or_default();
            (written.name.to_owned(), text, written.source.clone())
        };
        self.written.iter().map(origin).collect()
    }

    /// Returns the value of a setting that every mode needs. Fails if it is invalid.
    pub fn every_mode<T>(&self, name: &str, parser: impl Fn(&str) -> Parsed<T>) -> Result<T> {
        self.parse(name, parser).map_err(Error::Settings)
    }

    /// Returns the value of a setting that only some modes need. If it is invalid, adds this to the faults and
    /// does not fail.
    pub fn some_modes<T>(
        &mut self,
        name: &str,
        parser: impl Fn(&str) -> Parsed<T>,
    ) -> Result<Value<T>> {
        let parsed = self.parse(name, parser);
        self.faults.extend(parsed.as_ref().err().cloned());
        Ok(Value::new(parsed))
    }

    /// Does the same as [`Layers::some_modes`] for a file that will be replaced. It must not be in the state
    /// directory.
    pub fn outside_state(
        &mut self,
        name: &str,
        parser: impl Fn(&str) -> Parsed<Option<PathBuf>>,
    ) -> Result<Value<Option<PathBuf>>> {
        let state = self.parse("state_dir", state_dir);
        let parsed = |text: &str| match (parser(text)?, &state) {
            (Some(path), Ok(state)) if is_below(&path, state) => {
                Err(format!("must not be in the state directory {}", state.display()))
            }
            (path, _) => Ok(path),
        };
        self.some_modes(name, parsed)
    }

    fn parse<T>(&self, name: &str, parser: impl Fn(&str) -> Parsed<T>) -> Parsed<T> {
        let written = self.find(name).ok_or_else(|| format!("{name}: there is no such setting"))?;
        let (text, source) = (written.text.clone()?, &written.source);
        parser(&text).map_err(|why| format!("{name} = {text:?} (from {source}): {why}"))
    }
}

/// Whether a file at `path` is below `directory`, after resolving symbolic links.
fn is_below(path: &Path, directory: &Path) -> bool {
    let real = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
    path.parent().is_some_and(|parent| real(parent).starts_with(real(directory)))
}

/// Returns the lines of `text` that set one of `names`, with empty lines for the others, so that line numbers
/// stay right. Stops at the first table.
fn lines_of(text: &str, names: &[&str]) -> String {
    let sets = |line: &str| {
        let name = line.split('=').next().unwrap_or_default();
        names.contains(&name.trim().trim_matches(['"', '\'']))
    };
    let top = text.lines().take_while(|line| !line.starts_with('['));
    top.map(|line| if sets(line) { format!("{line}\n") } else { "\n".into() }).collect()
}

fn describe_toml(path: &Path, text: &str, error: &toml::de::Error) -> String {
    let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
    let line = before.matches('\n').count() + 1;
    let message = error.message().lines().collect::<Vec<_>>().join(", ");
    format!("{}, line {line}: {message}", path.display())
}

fn plain_text(value: &toml::Value, joint: &str) -> Option<String> {
    match value {
        toml::Value::String(text) => Some(text.clone()),
        toml::Value::Integer(number) => Some(number.to_string()),
        toml::Value::Boolean(value) => Some(value.to_string()),
        toml::Value::Array(values) => {
            let texts: Option<Vec<_>> = values.iter().map(toml::Value::as_str).collect();
            texts.map(|texts| texts.join(joint))
        }
        _ => None,
    }
}
