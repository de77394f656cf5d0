//! The version of the installed GnuPG.

use std::fmt;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::error::{Error, Result};
use crate::process::{self, Job};
use crate::programs::{Gpg, check_program};

/// How long a program may take to print its version.
const VERSION_TIME: Duration = Duration::from_secs(5);

/// A version of GnuPG, like 2.2.40.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version {
    numbers: [u32; 3],
    text: String,
}

impl Version {
    /// Parses the output of `--version`: `gpg (GnuPG) 2.2.40` or `gpg-agent (GnuPG) 2.4.7-beta12`.
    fn parse(output: &str) -> Option<Self> {
        let (_, text) = output.lines().next()?.rsplit_once(' ')?;
        let mut parts = text.split(|c: char| !c.is_ascii_digit()).map(str::parse);
        let mut number = || parts.next()?.ok();
        let numbers = [number()?, number()?, number()?];
        Some(Self { numbers, text: text.chars().take(40).collect() })
    }

    /// Whether this version is older than `numbers`.
    pub fn is_before(&self, numbers: [u32; 3]) -> bool {
        self.numbers < numbers
    }
}

impl fmt::Display for Version {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.text)
    }
}

impl Gpg {
    /// Returns the version of gpg.
    pub fn version(&self) -> Result<Version> {
        version(&self.gpg, "gpg")
    }

    /// Returns the version of gpg-agent.
    pub fn agent_version(&self) -> Result<Version> {
        version(&self.agent, "gpg_agent")
    }
}

fn version(program: &Path, setting: &'static str) -> Result<Version> {
    check_program(program, setting)?;
    let (arguments, deadline) = (vec!["--version".into()], Instant::now() + VERSION_TIME);
    let job = Job { program, arguments, stdin: b"", deadline, background: None };
    let finished = process::run(&job).map_err(|source| Error::Missing {
        program: program.into(),
        setting,
        source,
    })?;
    let output = finished.succeeded("asking for a version")?;
    Version::parse(&String::from_utf8_lossy(&output.stdout)).ok_or_else(|| Error::Failed {
        how: format!("{} does not tell its version", program.display()),
        words: output.words,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_and_compared() {
        let old = Version::parse("gpg (GnuPG) 2.2.9\nlibgcrypt 1.8.4\n");
        assert!(old.as_ref().is_some_and(|version| version.is_before([2, 2, 20])));
        assert_eq!(old.map(|version| version.to_string()).as_deref(), Some("2.2.9"));
        let beta = Version::parse("gpg-agent (GnuPG) 2.4.7-beta12");
        assert!(beta.as_ref().is_some_and(|version| !version.is_before([2, 2, 20])));
        assert!(beta.is_some_and(|version| version.is_before([2, 5, 0])));
        for bad in ["", "gpg", "gpg (GnuPG) two", "gpg (GnuPG) 2.2", "2.2.40"] {
            assert_eq!(Version::parse(bad), None, "{bad}");
        }
    }
}
