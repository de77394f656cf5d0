//! The values of settings: from the text that somebody wrote to what it means, or to what it must be.

use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::time::Duration;

use cluster::Endpoint;
use keystore::Stock;
use log::LevelFilter;

use crate::access_rule::AccessRule;
use crate::listen_address::ListenAddress;

/// The most keys of one length that are made in advance.
const POOL_MAX: usize = 10_000;

/// The longest duration: a hundred years of 365.25 days. Added to the time of now it is still a time.
const DURATION_MAX: Duration = Duration::from_secs(100 * 31_557_600);

/// Asked for once: the answer is in several files of the cgroups.
static CORES: LazyLock<usize> =
    LazyLock::new(|| std::thread::available_parallelism().map_or(1, usize::from));

/// A value, or what it must be.
type Result<T> = std::result::Result<T, String>;

/// Addresses, at least one.
pub fn listen_addresses(text: &str) -> Result<Vec<ListenAddress>> {
    let addresses: Vec<_> = text.split_whitespace().map(str::parse).collect::<Result<_>>()?;
    if addresses.is_empty() { Err("must name at least one address".into()) } else { Ok(addresses) }
}

/// The state directory, as an absolute path.
pub fn state_dir(text: &str) -> Result<PathBuf> {
    match text {
        text if text.trim().is_empty() => Err("must not be empty".into()),
        text => std::path::absolute(text).map_err(|e| e.to_string()),
    }
}

/// An absolute path.
pub fn absolute_path(text: &str) -> Result<PathBuf> {
    optional_path(text)?.ok_or_else(|| "must not be empty".into())
}

/// An absolute path, or empty for none.
pub fn optional_path(text: &str) -> Result<Option<PathBuf>> {
    match Path::new(text) {
        _ if text.is_empty() => Ok(None),
        path if path.is_absolute() => Ok(Some(path.into())),
        _ => Err("must be an absolute path".into()),
    }
}

/// Words, or none.
pub fn words(text: &str) -> Result<Vec<String>> {
    Ok(text.split_whitespace().map(str::to_owned).collect())
}

/// Members of etcd, or none.
pub fn endpoints(text: &str) -> Result<Vec<Endpoint>> {
    text.split_whitespace().map(str::parse).collect()
}

/// What names in etcd begin with.
pub fn prefix(text: &str) -> Result<String> {
    let is_plain = text.bytes().all(|byte| byte.is_ascii_graphic());
    match text {
        _ if text.starts_with('/') && text.len() > 1 && text.len() <= 100 && is_plain => {
            Ok(text.into())
        }
        _ => Err("must be like /copr-keygen: begin with /, and have at most 100 letters, digits and signs".into()),
    }
}

/// The name of a host; that of this one where the text is empty.
pub fn host_name(text: &str) -> Result<String> {
    let own = || nix::unistd::gethostname().ok()?.into_string().ok();
    let name = if text.is_empty() { own().unwrap_or_default() } else { text.to_owned() };
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b".-_".contains(&byte);
    match name.len() {
        1..=100 if name.bytes().all(is_plain) => Ok(name),
        _ => Err("must have 1 to 100 letters, digits, '.', '-' and '_'".into()),
    }
}

/// Rules between commas or line breaks, or none.
pub fn access_rules(text: &str) -> Result<Vec<AccessRule>> {
    let rules = text.split([',', '\n']).filter(|rule| !rule.trim().is_empty());
    rules.map(str::parse).collect()
}

/// `true` or `false`.
pub fn yes_or_no(text: &str) -> Result<bool> {
    text.parse().map_err(|_| "must be true or false".into())
}

/// How many at once; one per core for 0.
pub fn jobs(text: &str) -> Result<usize> {
    match text.parse() {
        Ok(0) => Ok(*CORES),
        Ok(count @ 1..=256) => Ok(count),
        _ => Err("must be a number from 1 to 256, or 0 for one per core".into()),
    }
}

/// A duration, of which the clock can count as much as anybody waits.
pub fn duration(text: &str) -> Result<Duration> {
    match humantime::parse_duration(text) {
        Ok(duration) if duration <= DURATION_MAX => Ok(duration),
        _ => Err("must be a duration like 500ms, 20s or 2min, at most 100y; 0 is zero".into()),
    }
}

/// A duration longer than nothing.
pub fn positive_duration(text: &str) -> Result<Duration> {
    match duration(text)? {
        Duration::ZERO => Err("must be longer than nothing".into()),
        duration => Ok(duration),
    }
}

/// `LENGTH:COUNT`, any number of them.
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

/// The least important level that is logged.
pub fn log_level(text: &str) -> Result<LevelFilter> {
    text.parse().map_err(|_| "must be off, error, warn, info, debug or trace".into())
}
