//! What the measurements ran on: machine, file system, kernel, and the versions of the software.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::Result;
use crate::service::stdout_of;

#[derive(Debug)]
pub struct Machine {
    pub processor: String,
    pub cores: usize,
    pub memory_gib: u64,
    pub file_system: String,
    pub system: String,
    pub kernel: String,
    pub gpg: String,
    pub libgcrypt: String,
    pub rustc: String,
    pub version: String,
    pub date: String,
    pub load_before: String,
    pub load_after: String,
}

impl Machine {
    pub fn look(store: &Path) -> Result<Self> {
        let gpg = first_lines("gpg", &["--version"], 2)?;
        let libgcrypt = gpg.get(1).map_or("", |line| line.trim_start_matches("libgcrypt "));
        let memory = field("/proc/meminfo", "MemTotal", ':').unwrap_or_default();
        let kilobytes: u64 = memory.trim_end_matches(" kB").parse().unwrap_or_default();
        let in_store = ["--output=fstype", store.to_str().ok_or("a strange path")?];
        Ok(Self {
            processor: field("/proc/cpuinfo", "model name", ':').unwrap_or("unknown".into()),
            cores: std::thread::available_parallelism()?.get(),
            memory_gib: kilobytes.div_ceil(1024 * 1024),
            file_system: first_lines("df", &in_store, 2)?.pop().unwrap_or_default(),
            system: field("/etc/os-release", "PRETTY_NAME", '=').unwrap_or("unknown".into()),
            kernel: fs::read_to_string("/proc/sys/kernel/osrelease")?.trim().into(),
            gpg: gpg
                .first()
                .map_or(String::new(), |line| line.trim_start_matches("gpg (GnuPG) ").into()),
            libgcrypt: libgcrypt.into(),
            // A rustc that does not run for this user must not end the benchmark.
            rustc: first_lines("rustc", &["--version"], 1).map_or("unknown".into(), |l| l.concat()),
            version: env!("CARGO_PKG_VERSION").into(),
            date: first_lines("date", &["-u", "+%Y-%m-%d %H:%M UTC"], 1)?.concat(),
            load_before: load(),
            load_after: String::new(),
        })
    }

    pub fn json(&self) -> Value {
        json!({
            "processor": self.processor, "cores": self.cores, "memory_gib": self.memory_gib,
            "file_system": self.file_system, "system": self.system, "kernel": self.kernel,
            "gpg": self.gpg, "libgcrypt": self.libgcrypt, "rustc": self.rustc,
            "copr_keygen": self.version, "date": self.date,
            "load_before": self.load_before, "load_after": self.load_after,
        })
    }
}

/// Returns the load averages over 1, 5 and 15 minutes.
pub fn load() -> String {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split_whitespace().take(3).collect::<Vec<_>>().join(" ")
}

fn first_lines(program: &str, arguments: &[&str], count: usize) -> Result<Vec<String>> {
    let output = stdout_of(Command::new(program).args(arguments))?;
    Ok(String::from_utf8_lossy(&output).lines().take(count).map(str::to_owned).collect())
}

fn field(file: &str, name: &str, separator: char) -> Option<String> {
    let text = fs::read_to_string(file).ok()?;
    let mut pairs = text.lines().filter_map(|line| line.split_once(separator));
    let (_, value) = pairs.find(|(key, _)| key.trim() == name)?;
    Some(value.trim().trim_matches('"').into())
}
