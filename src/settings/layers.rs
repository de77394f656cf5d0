//! What was written about settings, as text, and where: defaults, the configuration file, the
//! environment, flags. What is set later wins.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::{fmt, io};

use gpg::text::printable;

use super::value::Value;
use super::values::state_dir;
use crate::error::{Error, Result};

/// The configuration file that is read when no other is named. It need not exist.
pub const CONFIG_FILE: &str = "/etc/copr-keygen/config.toml";

const ENVIRONMENT_PREFIX: &str = "COPR_KEYGEN_";

/// A setting as it is documented.
#[derive(Debug)]
pub struct Setting {
    /// Its name: its key in the configuration file, behind the name of its table and a dot if it is in one.
    pub name: &'static str,
    /// Its text when it is not set; empty for none.
    pub default: &'static str,
    /// What stands between the members of an array when they become one text.
    pub joint: &'static str,
    /// What it holds and what it is for: a paragraph of the manual page.
    pub about: &'static str,
}

impl Setting {
    /// The environment variable, without `COPR_KEYGEN_`: the name in capitals, with `_` for a dot.
    pub fn variable(&self) -> String {
        variable_of(self.name)
    }
}

fn variable_of(name: &str) -> String {
    name.replace('.', "_").to_uppercase()
}

/// What the command line set. Empty and `None` mean: nothing.
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

/// What a parser makes of a text: a value, or what the text must be.
type Parsed<T> = std::result::Result<T, String>;

/// A setting as it was written last.
struct Written {
    name: &'static str,
    joint: &'static str,
    /// The text, or a sentence that says why there is none.
    text: Parsed<String>,
    /// Where it was written, for the operator who corrects it.
    source: String,
}

/// Every setting as it was written last.
pub struct Layers {
    written: Vec<Written>,
    /// A sentence for each unknown setting in the configuration file.
    unknown_keys: Vec<String>,
    /// Environment variables that look like settings of ours and are none.
    pub unknown_variables: Vec<String>,
    /// What is wrong with the values of settings that only some modes need.
    pub faults: Vec<String>,
}

impl Layers {
    /// The defaults alone.
    pub fn defaults(settings: &[Setting]) -> Self {
        let default = |setting: &Setting| Written {
            name: setting.name,
            joint: setting.joint,
            text: Ok(setting.default.into()),
            source: "the default".into(),
        };
        Self {
            written: settings.iter().map(default).collect(),
            unknown_keys: Vec::new(),
            unknown_variables: Vec::new(),
            faults: Vec::new(),
        }
    }

    /// Reads flags, environment and configuration file. Fails only when the file cannot be read or is not
    /// TOML. A caller that needs only the settings `only` can do with a file that is not TOML, as long as
    /// their lines are.
    pub fn read(
        mut self,
        flags: Flags,
        environment: impl Iterator<Item = (OsString, OsString)>,
        only: Option<&[&str]>,
    ) -> Result<Self> {
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
            Ok(bytes) => String::from_utf8(bytes),
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

    /// Takes what a configuration file says.
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
        self.set(name, text, file.into());
    }

    /// Notes a key that is no setting, and where it would be one.
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

    /// Fails when the configuration file sets a setting that does not exist: most likely a slip in its name.
    pub fn refuse_unknown(&self) -> Result<()> {
        self.unknown_keys.first().map_or(Ok(()), |why| Err(Error::Settings(why.clone())))
    }

    /// Every setting in the order of the defaults: its name, its text, its source.
    pub fn origins(&self) -> Vec<(String, String, String)> {
        let origin = |written: &Written| {
            let text = written.text.clone().unwrap_or_default();
            (written.name.to_owned(), text, written.source.clone())
        };
        self.written.iter().map(origin).collect()
    }

    /// The value of a setting that every mode needs.
    pub fn every_mode<T>(&self, name: &str, parser: impl Fn(&str) -> Parsed<T>) -> Result<T> {
        self.parse(name, parser).map_err(Error::Settings)
    }

    /// The value of a setting that some modes need. What is wrong with it is added to the faults; it is no
    /// error here.
    pub fn some_modes<T>(
        &mut self,
        name: &str,
        parser: impl Fn(&str) -> Parsed<T>,
    ) -> Result<Value<T>> {
        let parsed = self.parse(name, parser);
        self.faults.extend(parsed.as_ref().err().cloned());
        Ok(Value::new(parsed))
    }

    /// As [`Layers::some_modes`], for a file that is written anew: it must not be one of the state.
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

/// Whether a file that is written at `path` is below `directory`, also where links lead there.
fn is_below(path: &Path, directory: &Path) -> bool {
    let real = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
    path.parent().is_some_and(|parent| real(parent).starts_with(real(directory)))
}

/// The lines that set one of `names`, in the place where they were.
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
