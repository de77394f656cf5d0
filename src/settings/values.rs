//! Parsers for the values of settings. Each takes the text as written, and returns the value or a sentence on
//! what it must be.

use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::time::Duration;

use cluster::Endpoint;
use keystore::Stock;
use log::LevelFilter;

use crate::access_rule::AccessRule;
use crate::listen_address::ListenAddress;

/// The maximum number of keys of one length that are made in advance.
const POOL_MAX: usize = 10_000;

/// The longest duration: a hundred years of 365.25 days. Adding it to the current time does not overflow.
const DURATION_MAX: Duration = Duration::from_secs(100 * 31_557_600);

/// The number of available cores. Determined once, because this reads several files of the cgroups.
static CORES: LazyLock<usize> =
    LazyLock::new(|| std::thread::available_parallelism().map_or(1, usize::from));

/// A value, or a sentence on what it must be.
type Result<T> = std::result::Result<T, String>;

/// Parses one or more addresses.
pub fn listen_addresses(text: &str) -> Result<Vec<ListenAddress>> {
    let addresses: Vec<_> = text.split_whitespace().map(str::parse).collect::<Result<_>>()?;
    if addresses.is_empty() { Err("must name at least one address".into()) } else { Ok(addresses) }
}

/// Parses the state directory. A relative path is made absolute.
pub fn state_dir(text: &str) -> Result<PathBuf> {
    match text {
        text if text.trim().is_empty() => Err("must not be empty".into()),
        text => std::path::absolute(text).map_err(|e| e.to_string()),
    }
}

/// Parses an absolute path.
pub fn absolute_path(text: &str) -> Result<PathBuf> {
    optional_path(text)?.ok_or_else(|| "must not be empty".into())
}

/// Parses an absolute path; an empty text means none.
pub fn optional_path(text: &str) -> Result<Option<PathBuf>> {
    match Path::new(text) {
        _ if text.is_empty() => Ok(None),
        path if path.is_absolute() => Ok(Some(path.into())),
        _ => Err("must be an absolute path".into()),
    }
}

/// Parses words; there may be none.
pub fn words(text: &str) -> Result<Vec<String>> {
    Ok(text.split_whitespace().map(str::to_owned).collect())
}

/// Parses members of etcd; there may be none.
pub fn endpoints(text: &str) -> Result<Vec<Endpoint>> {
    text.split_whitespace().map(str::parse).collect()
}

/// Parses the prefix of names in etcd.
pub fn prefix(text: &str) -> Result<String> {
    let is_plain = text.bytes().all(|byte| byte.is_ascii_graphic());
    match text {
        _ if text.starts_with('/') && text.len() > 1 && text.len() <= 100 && is_plain => {
            Ok(text.into())
        }
        _ => Err("must be like /copr-keygen: begin with /, and have at most 100 letters, digits and signs".into()),
    }
}

/// Parses the name of a host. An empty text means the name of this host.
pub fn host_name(text: &str) -> Result<String> {
    let own = || nix::unistd::gethostname().ok()?.into_string().ok();
    let name = if text.is_empty() { own().unwrap_or_default() } else { text.to_owned() };
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b".-_".contains(&byte);
    match name.len() {
        1..=100 if name.bytes().all(is_plain) => Ok(name),
        _ => Err("must have 1 to 100 letters, digits, '.', '-' and '_'".into()),
    }
}

/// Parses access rules; there may be none.
pub fn access_rules(text: &str) -> Result<Vec<AccessRule>> {
    rules_in(text).map(str::parse).collect()
}

/// Returns the texts of access rules, which are separated by commas or line breaks.
pub fn rules_in(text: &str) -> impl Iterator<Item = &str> {
    text.split([',', '\n']).map(str::trim).filter(|rule| !rule.is_empty())
}

/// Parses `true` or `false`.
pub fn yes_or_no(text: &str) -> Result<bool> {
    text.parse().map_err(|_| "must be true or false".into())
}

/// Parses a number of jobs to run at once; 0 means one per core.
pub fn jobs(text: &str) -> Result<usize> {
    match text.parse() {
        Ok(0) => Ok(*CORES),
        Ok(count @ 1..=256) => Ok(count),
        _ => Err("must be a number from 1 to 256, or 0 for one per core".into()),
    }
}

/// Parses a duration of at most a hundred years.
pub fn duration(text: &str) -> Result<Duration> {
    match humantime::parse_duration(text) {
        Ok(duration) if duration <= DURATION_MAX => Ok(duration),
        _ => Err("must be a duration like 500ms, 20s or 2min, at most 100y; 0 is zero".into()),
    }
}

/// Parses a duration greater than zero.
pub fn positive_duration(text: &str) -> Result<Duration> {
    match duration(text)? {
        Duration::ZERO => Err("must be longer than nothing".into()),
        duration => Ok(duration),
    }
}

/// Parses any number of words `LENGTH:COUNT`.
pub fn stock(text: &str) -> Result<Vec<Stock>> {
    let parse = |word: &str| {
        let (length, count) = word.split_once(':')?;
        let count = count.parse().ok().filter(|count| *count <= POOL_MAX)?;
        Some(Stock { length: length.parse().ok()?, count })
    };
    let stocks: Option<Vec<Stock>> = text.split_whitespace().map(parse).collect();
    let wrong = || format!("must be like 2048:16, each length once, at most {POOL_MAX} keys");
    let stocks = stocks.ok_or_else(wrong)?;
    let twice = |(at, stock): (usize, &Stock)| {
        stocks[..at].iter().any(|earlier| earlier.length == stock.length)
    };
    if stocks.iter().enumerate().any(twice) { Err(wrong()) } else { Ok(stocks) }
}

/// Parses the log level, the least important one that is logged.
pub fn log_level(text: &str) -> Result<LevelFilter> {
    text.parse().map_err(|_| "must be off, error, warn, info, debug or trace".into())
}
