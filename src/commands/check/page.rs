//! The page that `check` prints: sections of findings, for people or as JSON. What comes out of the
//! state is hostile: nothing of it may reach a terminal as anything but plain text.

use std::fmt::Write as _;
use std::io::{self, IsTerminal};

use serde::Serialize;

use crate::commands::output;
pub use crate::commands::output::number;
use crate::error::{Error, Result};
pub use keystore::remedy::quote;

/// So many findings that say the same are shown to people.
const SHOWN: usize = 10;

/// How good or bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
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

/// One line of the page.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    section: &'static str,
    level: Level,
    subject: String,
    message: String,
    /// What to do; `null` when there is nothing to be done.
    remedy: Option<String>,
}

/// Findings about one thing, under one heading.
#[derive(Debug)]
pub struct Section {
    name: &'static str,
    findings: Vec<Finding>,
}

impl Section {
    pub fn new(name: &'static str) -> Self {
        Self { name, findings: Vec::new() }
    }

    pub fn ok(&mut self, subject: impl Into<String>, message: impl Into<String>) {
        self.add(Level::Ok, subject.into(), message.into(), None);
    }

    pub fn note(&mut self, subject: impl Into<String>, message: impl Into<String>) {
        self.add(Level::Note, subject.into(), message.into(), None);
    }

    pub fn warning(
        &mut self,
        subject: impl Into<String>,
        message: impl Into<String>,
        remedy: impl Into<String>,
    ) {
        self.add(Level::Warning, subject.into(), message.into(), Some(remedy.into()));
    }

    pub fn failed(
        &mut self,
        subject: impl Into<String>,
        message: impl Into<String>,
        remedy: impl Into<String>,
    ) {
        self.add(Level::Failed, subject.into(), message.into(), Some(remedy.into()));
    }

    pub fn repaired(&mut self, subject: impl Into<String>, message: impl Into<String>) {
        self.add(Level::Repaired, subject.into(), message.into(), None);
    }

    /// What became of something that `--repair` tried to mend.
    pub fn mended(
        &mut self,
        subject: impl Into<String>,
        message: impl Into<String>,
        result: Result<()>,
    ) {
        let (subject, message) = (subject.into(), message.into());
        match result {
            Ok(()) => self.repaired(subject, message),
            Err(e) => {
                let message = format!("{message}; it could not be mended: {e}");
                self.failed(subject, message, "correct that, then run check --repair again");
            }
        }
    }

    fn add(&mut self, level: Level, subject: String, message: String, remedy: Option<String>) {
        let [subject, message] = [subject, message].map(|text| plain(&text));
        let remedy = remedy.map(|text| plain(&text));
        self.findings.push(Finding { section: self.name, level, subject, message, remedy });
    }

    /// Whether nothing is amiss so far.
    pub fn is_well(&self) -> bool {
        self.findings.iter().all(|finding| matches!(finding.level, Level::Ok | Level::Note))
    }
}

/// All of it.
#[derive(Debug, Default)]
pub struct Page(Vec<Section>);

impl Page {
    pub fn add(&mut self, section: Section) {
        self.0.push(section);
    }

    /// Prints the page; an error when a line failed.
    pub fn show(&self, json: bool) -> Result<()> {
        if json {
            output::json_array(self.0.iter().flat_map(|section| &section.findings))?;
        } else {
            output::print(&self.text(io::stdout().is_terminal()))?;
        }
        match self.count(Level::Failed) {
            0 => Ok(()),
            1 => Err(Error::Partly("this host is not well: one line failed".into())),
            count => Err(Error::Partly(format!("this host is not well: {count} lines failed"))),
        }
    }

    fn count(&self, level: Level) -> usize {
        self.0.iter().flat_map(|section| &section.findings).filter(|f| f.level == level).count()
    }

    fn text(&self, colour: bool) -> String {
        let mut text = String::new();
        for section in self.0.iter().filter(|section| !section.findings.is_empty()) {
            let _ = writeln!(text, "{}", section.name); // writing to a String cannot fail
            for group in groups(&section.findings) {
                write_group(&mut text, &group, colour);
            }
            text.push('\n');
        }
        let counts =
            [Level::Failed, Level::Warning, Level::Repaired].map(|level| self.count(level));
        let [failed, warnings, repaired] = counts;
        let counts = format!("{}, {repaired} repaired", number(warnings, "warning", "warnings"));
        let _ = match (failed, warnings + repaired) {
            (0, 0) => writeln!(text, "This host is well."),
            (0, _) => writeln!(text, "This host is well: nothing failed, {counts}."),
            _ => writeln!(text, "This host is not well: {failed} failed, {counts}."),
        };
        text
    }
}

/// Findings that say the same of different things, in the order of the first of each.
fn groups(findings: &[Finding]) -> Vec<Vec<&Finding>> {
    let mut places = std::collections::HashMap::new();
    let mut groups: Vec<Vec<&Finding>> = Vec::new();
    for finding in findings {
        // What is well is a list of different things.
        let alike = (finding.level != Level::Ok).then_some((finding.level as u8, &finding.message));
        let place = match alike {
            Some(alike) => *places.entry(alike).or_insert(groups.len()),
            None => groups.len(),
        };
        match groups.get_mut(place) {
            Some(group) => group.push(finding),
            None => groups.push(vec![finding]),
        }
    }
    groups
}

fn write_group(text: &mut String, group: &[&Finding], colour: bool) {
    let remedy = |text: &mut String, finding: &Finding| {
        if let Some(remedy) = &finding.remedy {
            let _ = writeln!(text, "            -> {remedy}");
        }
    };
    let shown = &group[..group.len().min(SHOWN)];
    for (index, finding) in shown.iter().enumerate() {
        let level = label(finding.level, colour);
        let _ = writeln!(text, "  {level}{}: {}", finding.subject, finding.message);
        let next = shown.get(index + 1);
        if next.is_some_and(|next| next.remedy != finding.remedy) {
            remedy(text, finding);
        }
    }
    if group.len() > SHOWN {
        let _ = writeln!(text, "            … and {} more (--json has all)", group.len() - SHOWN);
    }
    if let Some(last) = shown.last() {
        remedy(text, last);
    }
}

/// Ten columns wide.
fn label(level: Level, colour: bool) -> String {
    let (word, code) = match level {
        Level::Ok => ("ok", 32),
        Level::Note => ("note", 36),
        Level::Warning => ("warning", 33),
        Level::Failed => ("FAILED", 31),
        Level::Repaired => ("repaired", 35),
    };
    if colour { format!("\x1b[{code}m{word:<10}\x1b[0m") } else { format!("{word:<10}") }
}

/// One line without control characters, nor those that turn the direction of a line around.
fn plain(text: &str) -> String {
    let is_odd = |c: char| {
        c.is_control()
            || matches!(c, '\u{200e}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if is_odd(c) {
            out.extend(c.escape_default());
        } else {
            out.push(c);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_lists_are_cut_and_remedies_said_once() {
        let mut section = Section::new("keys");
        section.failed("other", "is odd", "look");
        for number in 0..25 {
            section.failed(format!("key{number}"), "is missing", "restore it");
        }
        section.ok("x", "fine");
        let mut page = Page::default();
        page.add(section);
        let text = page.text(false);
        assert_eq!(text.matches("is missing").count(), 10, "{text}");
        assert_eq!(text.matches("restore it").count(), 1, "{text}");
        assert!(text.contains("\n            … and 15 more"), "{text}");
        assert!(text.contains("\n  FAILED    other: is odd\n            -> look\n"), "{text}");
        assert!(text.ends_with("\nThis host is not well: 26 failed, 0 warnings, 0 repaired.\n"));
        assert!(!text.contains('\x1b') && page.text(true).contains("\x1b[31mFAILED"));
    }

    #[test]
    fn remedies_that_differ_stay_with_their_finding() {
        let mut section = Section::new("keys");
        section.failed("a", "is odd", "mend a");
        section.failed("b", "is odd", "mend b");
        let mut page = Page::default();
        page.add(section);
        let text = page.text(false);
        let at = |word| text.find(word);
        assert!(at("mend a") < at("b: is odd") && at("b: is odd") < at("mend b"), "{text}");
    }

    #[test]
    fn names_cannot_speak_to_the_terminal() {
        let mut section = Section::new("keys");
        section.note("a\x1b[2J\n\u{202e}b", "odd");
        let mut page = Page::default();
        page.add(section);
        assert!(page.text(false).contains(r"a\u{1b}[2J\n\u{202e}b: odd"), "{}", page.text(false));
    }
}
