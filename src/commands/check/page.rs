//! Prints findings for people or as JSON, and derives the exit status from them.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::io;

use serde::Serialize;

use super::finding::{Finding, Remedy, Section, Verdict};
use crate::cli::Check;
use crate::commands::output::{self, number, takes_more_than_lines};
use crate::error::{Error, Result};

/// The number of findings with the same message that are shown to people.
const SHOWN: usize = 10;

/// The page: all sections in order.
#[derive(Debug, Default)]
pub struct Page(Vec<Section>);

/// A finding in the JSON array.
#[derive(Serialize)]
struct Line<'a> {
    section: &'static str,
    level: Verdict,
    subject: &'a str,
    message: &'a str,
    /// What to do; `null` if there is nothing to do.
    remedy: Option<&'a str>,
    /// Whether the remedy is a command line rather than prose.
    is_command: bool,
}

impl Page {
    /// Adds a section. If the last section has the same name, the findings are appended to that.
    pub fn add(&mut self, section: Section) {
        match self.0.last_mut() {
            Some(last) if last.name == section.name => last.findings.extend(section.findings),
            _ => self.0.push(section),
        }
    }

    /// Prints the page, with `--quiet` only the lines that are not well. Fails with
    /// [`Error::Partly`] if a line failed.
    pub fn show(mut self, options: &Check) -> Result<()> {
        if options.quiet {
            self.0.iter_mut().for_each(|section| section.findings.retain(|f| !f.is_well()));
        }
        if options.json {
            output::json_array(self.lines())?;
        } else if !options.quiet || self.findings().next().is_some() {
            output::print(&self.text(takes_more_than_lines(&io::stdout())))?;
        }
        match self.count(Verdict::Failed) {
            0 => Ok(()),
            count => {
                let failed = number(count, "line", "lines");
                Err(Error::Partly(format!("this host is not well: {failed} failed")))
            }
        }
    }

    fn findings(&self) -> impl Iterator<Item = &Finding> {
        self.0.iter().flat_map(|section| &section.findings)
    }

    fn lines(&self) -> impl Iterator<Item = Line<'_>> {
        self.0.iter().flat_map(|section| {
            section.findings.iter().map(|finding| Line {
                section: section.name,
                level: finding.verdict,
                subject: &finding.subject,
                message: &finding.message,
                remedy: finding.remedy.text(),
                is_command: matches!(finding.remedy, Remedy::Command(_)),
            })
        })
    }

    fn count(&self, verdict: Verdict) -> usize {
        self.findings().filter(|finding| finding.verdict == verdict).count()
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
        let [failed, warnings, repaired] =
            [Verdict::Failed, Verdict::Warning, Verdict::Repaired].map(|it| self.count(it));
        let counts = format!("{}, {repaired} repaired", number(warnings, "warning", "warnings"));
        text.push_str(&match (failed, warnings + repaired) {
            (0, 0) => "This host is well.\n".into(),
            (0, _) => format!("This host is well: nothing failed, {counts}.\n"),
            _ => format!("This host is not well: {failed} failed, {counts}.\n"),
        });
        text
    }
}

/// Groups findings with the same verdict and message, in the order of the first finding of each group.
fn groups(findings: &[Finding]) -> Vec<Vec<&Finding>> {
    let mut places = HashMap::new();
    let mut groups: Vec<Vec<&Finding>> = Vec::new();
    for finding in findings {
        // Lines that are well are not grouped: they are a list of different things.
        let alike =
            (finding.verdict != Verdict::Ok).then_some((finding.verdict as u8, &finding.message));
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

/// Writes a group of findings. A remedy shared by consecutive findings is written once, after the last of them.
fn write_group(text: &mut String, group: &[&Finding], colour: bool) {
    let shown = &group[..group.len().min(SHOWN)];
    for (index, finding) in shown.iter().enumerate() {
        let verdict = label(finding.verdict, colour);
        let _ = writeln!(text, "  {verdict}{}: {}", finding.subject, finding.message);
        let is_last = index + 1 == shown.len();
        if is_last && group.len() > SHOWN {
            let more = group.len() - SHOWN;
            let _ = writeln!(text, "            … and {more} more (--json has all)");
        }
        if let Some(remedy) = finding.remedy.text() {
            if is_last || shown[index + 1].remedy != finding.remedy {
                let _ = writeln!(text, "            -> {remedy}");
            }
        }
    }
}

/// Returns the verdict as a label ten columns wide.
fn label(verdict: Verdict, colour: bool) -> String {
    let (word, code) = match verdict {
        Verdict::Ok => ("ok", 32),
        Verdict::Note => ("note", 36),
        Verdict::Warning => ("warning", 33),
        Verdict::Failed => ("FAILED", 31),
        Verdict::Repaired => ("repaired", 35),
    };
    if colour { format!("\x1b[{code}m{word:<10}\x1b[0m") } else { format!("{word:<10}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(section: Section, colour: bool) -> String {
        Page(vec![section]).text(colour)
    }

    #[test]
    fn long_lists_are_cut_and_remedies_said_once() {
        let section = || {
            let mut section = Section::new("keys");
            section.failed("other", "is odd", "look");
            for number in 0..25 {
                section.failed(format!("key{number}"), "is missing", "restore it");
            }
            section.ok("x", "fine");
            section
        };
        let page = text(section(), false);
        assert_eq!(page.matches("is missing").count(), 10, "{page}");
        assert_eq!(page.matches("restore it").count(), 1, "{page}");
        assert!(page.contains("\n            … and 15 more"), "{page}");
        assert!(page.contains("\n  FAILED    other: is odd\n            -> look\n"), "{page}");
        assert!(page.ends_with("\nThis host is not well: 26 failed, 0 warnings, 0 repaired.\n"));
        assert!(!page.contains('\x1b') && text(section(), true).contains("\x1b[31mFAILED"));
    }

    #[test]
    fn remedies_that_differ_stay_with_their_finding() {
        let mut section = Section::new("keys");
        section.failed("a", "is odd", "mend a");
        section.failed("b", "is odd", "mend b");
        let text = text(section, false);
        let at = |word| text.find(word);
        assert!(at("mend a") < at("b: is odd") && at("b: is odd") < at("mend b"), "{text}");
    }

    #[test]
    fn names_cannot_speak_to_the_terminal() {
        let mut section = Section::new("keys");
        section.note("a\x1b[2J\n\u{202e}b", "odd");
        let text = text(section, false);
        assert!(text.contains(r"a\u{1b}[2J\n\u{202e}b: odd"), "{text}");
    }
}
