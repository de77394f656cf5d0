//! The findings of `check` as data: sections return them, `repair` carries out their
//! repairs, and `page` prints them.

use std::fmt::Display;
use std::path::PathBuf;

use gpg::text::printable;
use keystore::LinkProblem;

use crate::error::Result;

/// How good or bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// All is as it should be.
    Ok,
    /// Nothing is wrong, but it is worth knowing.
    Note,
    /// Will need attention, or hides a problem.
    Warning,
    /// Something is wrong.
    Failed,
    /// Something was wrong and has been repaired.
    Repaired,
}

/// What to do about a finding.
#[derive(Debug, PartialEq, Eq)]
pub enum Remedy {
    /// Nothing needs to be done.
    None,
    /// Prose, not a command line.
    Advice(String),
    /// A command line that works as printed.
    Command(String),
    /// A repair that `check --repair` carries out.
    Repair(Mend),
}

/// A repair that loses nothing.
#[derive(Debug, PartialEq, Eq)]
pub enum Mend {
    /// Sets the mode of a file or directory.
    Mode(PathBuf, u32),
    /// Creates a missing directory of the state.
    Part(PathBuf),
    /// Rewrites `key.json` of the home at this index in the survey.
    Record(usize),
    /// Corrects a link for obs-signd.
    Link(Box<LinkProblem>),
    /// Creates or updates the files of the shared agent's home.
    AgentHome,
    /// Removes the trust database in the shared agent's home.
    TrustDatabase(PathBuf),
    /// Removes what dead processes have left in `staging/`.
    Staging,
}

impl Remedy {
    /// Joins commands with `&&`, so that each runs only if the one before it succeeded.
    pub fn commands<const N: usize>(commands: [String; N]) -> Self {
        Self::Command(commands.join(" && "))
    }

    /// Returns the text of the remedy. [`Remedy::Repair`] has none: `repair::settle`
    /// replaces it before the page is printed.
    pub fn text(&self) -> Option<&str> {
        match self {
            Self::Advice(text) | Self::Command(text) => Some(text),
            Self::None | Self::Repair(_) => None,
        }
    }
}

impl From<&str> for Remedy {
    fn from(advice: &str) -> Self {
        Self::Advice(printable(advice))
    }
}

impl From<String> for Remedy {
    fn from(advice: String) -> Self {
        Self::Advice(printable(&advice))
    }
}

impl From<Mend> for Remedy {
    fn from(mend: Mend) -> Self {
        Self::Repair(mend)
    }
}

/// One line of the page.
#[derive(Debug, PartialEq, Eq)]
pub struct Finding {
    pub verdict: Verdict,
    /// What the line is about.
    pub subject: String,
    pub message: String,
    pub remedy: Remedy,
    /// Whether the finding only matters where obs-signd signs.
    of_obs_signd: bool,
}

impl Finding {
    fn new(verdict: Verdict, subject: &str, message: &str, remedy: Remedy) -> Self {
        let (subject, message) = (printable(subject), printable(message));
        Self { verdict, subject, message, remedy, of_obs_signd: false }
    }

    /// Records the result of a repair: repaired, or failed with the reason.
    pub fn settle(&mut self, result: Result<()>) {
        (self.verdict, self.remedy) = match result {
            Ok(()) => (Verdict::Repaired, Remedy::None),
            Err(e) => {
                let why = printable(&e.to_string());
                self.message = format!("{}; it could not be mended: {why}", self.message);
                (Verdict::Failed, "correct that, then run check --repair again".into())
            }
        };
    }

    /// Whether the verdict is `Ok` or `Note`.
    pub fn is_well(&self) -> bool {
        matches!(self.verdict, Verdict::Ok | Verdict::Note)
    }
}

/// The findings about one thing, under one heading.
#[derive(Debug)]
pub struct Section {
    pub name: &'static str,
    pub findings: Vec<Finding>,
}

impl Section {
    pub fn new(name: &'static str) -> Self {
        Self { name, findings: Vec::new() }
    }

    /// Marks all findings so far as mattering only where obs-signd signs.
    pub fn of_obs_signd(mut self) -> Self {
        self.findings.iter_mut().for_each(|finding| finding.of_obs_signd = true);
        self
    }

    /// Turns failures and warnings that only matter to obs-signd into notes. `--repair` still repairs such
    /// things, so that obs-signd can take over signing on this host.
    pub fn excuse_obs_signd(&mut self) {
        let needs_it = |finding: &&mut Finding| {
            finding.of_obs_signd && matches!(finding.verdict, Verdict::Warning | Verdict::Failed)
        };
        for finding in self.findings.iter_mut().filter(needs_it) {
            finding.verdict = Verdict::Note;
            finding.message += "; it matters to obs-signd only, which does not sign here";
        }
    }

    pub fn ok(&mut self, subject: impl AsRef<str>, message: impl AsRef<str>) {
        self.add(Verdict::Ok, subject, message, Remedy::None);
    }

    pub fn note(&mut self, subject: impl AsRef<str>, message: impl AsRef<str>) {
        self.add(Verdict::Note, subject, message, Remedy::None);
    }

    pub fn warning(
        &mut self,
        subject: impl AsRef<str>,
        message: impl AsRef<str>,
        remedy: impl Into<Remedy>,
    ) {
        self.add(Verdict::Warning, subject, message, remedy);
    }

    pub fn failed(
        &mut self,
        subject: impl AsRef<str>,
        message: impl AsRef<str>,
        remedy: impl Into<Remedy>,
    ) {
        self.add(Verdict::Failed, subject, message, remedy);
    }

    /// Returns the value of `found`, or adds its error as a failed finding.
    pub fn look<T, E: Display>(
        &mut self,
        subject: impl AsRef<str>,
        found: std::result::Result<T, E>,
        remedy: impl Into<Remedy>,
    ) -> Option<T> {
        found.map_err(|e| self.failed(subject, e.to_string(), remedy)).ok()
    }

    /// Adds a finding about something that was repaired at once, with the result of the repair.
    pub fn settled(&mut self, subject: &str, message: &str, result: Result<()>) {
        self.failed(subject, message, Remedy::None);
        if let Some(last) = self.findings.last_mut() {
            last.settle(result);
        }
    }

    pub fn add(
        &mut self,
        verdict: Verdict,
        subject: impl AsRef<str>,
        message: impl AsRef<str>,
        remedy: impl Into<Remedy>,
    ) {
        let (subject, message) = (subject.as_ref(), message.as_ref());
        self.findings.push(Finding::new(verdict, subject, message, remedy.into()));
    }

    /// Whether every finding so far is `Ok` or `Note`.
    pub fn is_well(&self) -> bool {
        self.findings.iter().all(Finding::is_well)
    }
}
