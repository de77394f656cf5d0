//! What `check` has found, as data: a section says it, `repair` carries out what can be mended, `page`
//! words it.

use std::fmt::Display;
use std::path::PathBuf;

use gpg::text::printable;
use keystore::LinkProblem;

use crate::error::Result;

/// How good or bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// As it should be.
    Ok,
    /// Worth knowing.
    Note,
    /// Will want a hand, or hides something.
    Warning,
    /// Not well.
    Failed,
    /// Was not well, and has been mended.
    Repaired,
}

/// What to do about a finding.
#[derive(Debug, PartialEq, Eq)]
pub enum Remedy {
    /// There is nothing to be done.
    None,
    /// Prose: nobody can type it in.
    Advice(String),
    /// A command line that works when it is typed in as it stands.
    Command(String),
    /// `check --repair` mends it.
    Repair(Mend),
}

/// Something that is mended without a loss.
#[derive(Debug, PartialEq, Eq)]
pub enum Mend {
    /// The mode of a file or directory of the owner's own.
    Mode(PathBuf, u32),
    /// A directory of the state that is missing.
    Part(PathBuf),
    /// `key.json` of the home at this place in the survey.
    Record(usize),
    /// A link of obs-signd.
    Link(Box<LinkProblem>),
    /// The files of the shared agent's home.
    AgentHome,
    /// The trust database in that home.
    TrustDatabase(PathBuf),
    /// What processes that died have left in `staging/`.
    Staging,
}

impl Remedy {
    /// A command line of these commands, each of which is only run when the one before succeeded.
    pub fn commands<const N: usize>(commands: [String; N]) -> Self {
        Self::Command(commands.join(" && "))
    }

    /// The text of it, once it is known what becomes of [`Remedy::Repair`].
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
    /// What it is about.
    pub subject: String,
    pub message: String,
    pub remedy: Remedy,
    /// Whether it only matters where obs-signd signs.
    of_obs_signd: bool,
}

impl Finding {
    fn new(verdict: Verdict, subject: &str, message: &str, remedy: Remedy) -> Self {
        let (subject, message) = (printable(subject), printable(message));
        Self { verdict, subject, message, remedy, of_obs_signd: false }
    }

    /// What became of something that was mended.
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

    /// Whether nothing is amiss.
    pub fn is_well(&self) -> bool {
        matches!(self.verdict, Verdict::Ok | Verdict::Note)
    }
}

/// Findings about one thing, under one heading.
#[derive(Debug)]
pub struct Section {
    pub name: &'static str,
    pub findings: Vec<Finding>,
}

impl Section {
    pub fn new(name: &'static str) -> Self {
        Self { name, findings: Vec::new() }
    }

    /// The same findings, all of which only matter where obs-signd signs.
    pub fn of_obs_signd(mut self) -> Self {
        self.findings.iter_mut().for_each(|finding| finding.of_obs_signd = true);
        self
    }

    /// Nothing fails here for lack of what obs-signd needs. `--repair` mends that all the same, so that the host can be
    /// given to it.
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

    /// What was looked at; that it could not be is a finding.
    pub fn look<T, E: Display>(
        &mut self,
        subject: impl AsRef<str>,
        found: std::result::Result<T, E>,
        remedy: impl Into<Remedy>,
    ) -> Option<T> {
        found.map_err(|e| self.failed(subject, e.to_string(), remedy)).ok()
    }

    /// What was mended while it was looked at, and how that ended.
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

    /// Whether nothing is amiss so far.
    pub fn is_well(&self) -> bool {
        self.findings.iter().all(Finding::is_well)
    }
}
