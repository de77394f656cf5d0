//! What was written about settings, as text, and where: defaults, the configuration file, the
//! environment, flags. What is set later wins.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::{fmt, io};

use super::{CONFIG_FILE, Flags, SETTINGS, Setting, Value};
use crate::error::{Error, Result};

const ENVIRONMENT_PREFIX: &str = "COPR_KEYGEN_";

/// Where a value came from; tells the operator where to correct it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
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

/// The text of a setting; `Err` is what is wrong where there should be a text.
type Text = std::result::Result<String, String>;

/// Every setting as it was written last.
pub struct Layers {
    texts: BTreeMap<&'static str, (Text, Source)>,
    /// What the configuration file sets although there is no such setting.
    unknown_keys: Vec<String>,
    /// Environment variables that look like settings of ours and are none.
    pub unknown_variables: Vec<String>,
}

impl Layers {
    /// What counts when nobody says anything.
    pub fn defaults() -> Self {
        let default =
            |setting: Setting| (setting.name, (Ok(setting.default.to_owned()), Source::Default));
        Self {
            texts: SETTINGS.map(default).into(),
            unknown_keys: Vec::new(),
            unknown_variables: Vec::new(),
        }
    }

    /// Reads flags, environment and configuration file. Fails only when the file cannot be read or is
    /// not TOML: nobody knows what it would have set. Where only the settings `only` are needed, of
    /// a file that is not TOML their lines have to be.
    pub fn read(
        flags: Flags,
        environment: impl Iterator<Item = (OsString, OsString)>,
        only: Option<&[&str]>,
    ) -> Result<Self> {
        let mut layers = Self::defaults();
        let (mut config, mut variables) = (flags.config, Vec::new());
        for (variable, value) in environment {
            let Some(suffix) = variable.to_str().and_then(|v| v.strip_prefix(ENVIRONMENT_PREFIX))
            else {
                continue;
            };
            let name = suffix.to_lowercase();
            if name == "config" {
                config = config.or_else(|| Some(value.into()));
            } else if layers.texts.contains_key(&*name) {
                variables.push((name, value));
            } else {
                layers.unknown_variables.push(format!("{ENVIRONMENT_PREFIX}{suffix}"));
            }
        }
        layers.add_file(config, only)?;
        for (name, value) in variables {
            let variable = format!("{ENVIRONMENT_PREFIX}{}", name.to_uppercase());
            layers.set(&name, utf8(value), Source::Environment(variable));
        }
        if let Some(dir) = flags.state_dir {
            layers.set("state_dir", utf8(dir.into()), Source::Flag("state-dir"));
        }
        if !flags.listen.is_empty() {
            layers.set("listen", Ok(flags.listen.join(" ")), Source::Flag("listen"));
        }
        Ok(layers)
    }

    fn set(&mut self, name: &str, text: Text, source: Source) {
        if let Some(slot) = self.texts.get_mut(name) {
            *slot = (text, source);
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
        for (name, value) in table {
            if !self.texts.contains_key(&*name) {
                let known: Vec<_> = SETTINGS.iter().map(|setting| setting.name).collect();
                self.unknown_keys.push(format!(
                    "{}: {}: unknown setting; there are {}",
                    path.display(),
                    name.escape_debug(),
                    known.join(", ")
                ));
                continue;
            }
            let wrong_type = "must be a string, a whole number, true, false or an array of strings";
            let text = plain_text(&value)
                .ok_or_else(|| format!("{}: {name}: {wrong_type}", path.display()));
            self.set(&name, text, Source::File(path.into()));
        }
        Ok(())
    }

    /// Fails when the configuration file sets what there is not: most likely a slip in a name.
    pub fn refuse_unknown(&self) -> Result<()> {
        self.unknown_keys.first().map_or(Ok(()), |why| Err(Error::Settings(why.clone())))
    }

    /// Every setting in the order of the defaults.
    pub fn origins(&self) -> Vec<(String, String, String)> {
        let origin = |setting: &Setting| {
            let (text, source) = &self.texts[setting.name];
            let text = text.clone().unwrap_or_default();
            (setting.name.to_owned(), text, source.to_string())
        };
        SETTINGS.iter().map(origin).collect()
    }

    /// The value of a setting that every mode needs.
    pub fn parse<T>(
        &self,
        name: &str,
        parser: impl Fn(&str) -> std::result::Result<T, String>,
    ) -> Result<T> {
        self.try_parse(name, parser).map_err(Error::Settings)
    }

    /// The value of a setting that some modes need; what is wrong with it is added to `faults`.
    pub fn value<T>(
        &self,
        name: &str,
        parser: impl Fn(&str) -> std::result::Result<T, String>,
        faults: &mut Vec<String>,
    ) -> Value<T> {
        let parsed = self.try_parse(name, parser);
        faults.extend(parsed.as_ref().err().cloned());
        Value::new(parsed)
    }

    fn try_parse<T>(
        &self,
        name: &str,
        parser: impl Fn(&str) -> std::result::Result<T, String>,
    ) -> std::result::Result<T, String> {
        let (text, source) = &self.texts[name];
        let text = text.as_ref().map_err(|why| match source {
            Source::File(_) => why.clone(),
            _ => format!("{name} (from {source}): {why}"),
        })?;
        parser(text).map_err(|why| format!("{name} = {text:?} (from {source}): {why}"))
    }
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

fn utf8(text: OsString) -> Text {
    text.into_string().map_err(|text| format!("{text:?} is not valid UTF-8"))
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
