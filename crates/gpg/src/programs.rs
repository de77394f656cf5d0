//! The GnuPG programs of this host, and the time limit of one run.

use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::unistd::{AccessFlags, access};

use crate::error::{Error, Result};
use crate::process;

/// The GnuPG programs of this host.
#[derive(Clone, Debug)]
pub struct Gpg {
    pub(crate) gpg: PathBuf,
    pub(crate) agent: PathBuf,
    pub(crate) timeout: Duration,
}

impl Gpg {
    /// Uses the programs `gpg` and `agent`. A gpg that runs longer than `timeout` is killed. From now on, this
    /// process adopts the orphans of its children, so that it can wait for each of them.
    pub fn new(gpg: PathBuf, agent: PathBuf, timeout: Duration) -> Result<Self> {
        process::adopt_orphans().map_err(|e| Error::io("becoming the reaper of gpg-agents", e))?;
        Ok(Self { gpg, agent, timeout })
    }

    /// Returns the paths of gpg and gpg-agent.
    pub fn programs(&self) -> [&Path; 2] {
        [&self.gpg, &self.agent]
    }

    /// Checks that both programs are executable.
    pub fn check_installed(&self) -> Result<()> {
        check_program(&self.gpg, "gpg")?;
        check_program(&self.agent, "gpg_agent")
    }
}

/// Checks that the program at `path`, the value of the setting `setting`, is executable.
pub(crate) fn check_program(path: &Path, setting: &'static str) -> Result<()> {
    access(path, AccessFlags::X_OK).map_err(|errno| Error::Missing {
        program: path.into(),
        setting,
        source: errno.into(),
    })
}
