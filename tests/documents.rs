//! Links between the documents lead to files and headings that exist.

#![allow(missing_docs, clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn documents() -> Vec<PathBuf> {
    let directories = ["", "docs", "selinux", "apparmor", "fuzz", "tests/system/cases"];
    let entries = directories.iter().flat_map(|path| fs::read_dir(root().join(path)).unwrap());
    let paths = entries.map(|entry| entry.unwrap().path());
    paths.filter(|path| path.extension().is_some_and(|it| it == "md")).collect()
}

/// Returns the link targets in a Markdown text: whatever stands between `](` and `)`.
fn links(text: &str) -> impl Iterator<Item = &str> {
    text.split("](").skip(1).filter_map(|rest| rest.split(')').next())
}

/// Returns the anchors of the headings, formed from their text as forges form them.
fn anchors(text: &str) -> Vec<String> {
    let headings = text.lines().filter(|line| line.starts_with('#'));
    let anchor = |heading: &str| {
        let words = heading.trim_start_matches('#').trim().to_lowercase().replace(' ', "-");
        words.chars().filter(|c| c.is_alphanumeric() || "-_".contains(*c)).collect()
    };
    headings.map(anchor).collect()
}

#[test]
fn every_link_leads_to_a_file_and_a_heading() {
    let documents = documents();
    assert!(documents.len() > 15, "{documents:?}");
    for document in documents {
        let text = fs::read_to_string(&document).unwrap();
        for link in links(&text).filter(|link| !link.contains("://")) {
            let (path, anchor) = link.split_once('#').unwrap_or((link, ""));
            let target = match path {
                "" => document.clone(),
                path => document.with_file_name(path),
            };
            assert!(target.exists(), "{}: {link}", document.display());
            if !anchor.is_empty() {
                let headings = anchors(&fs::read_to_string(&target).unwrap());
                assert!(headings.iter().any(|it| it == anchor), "{}: {link}", document.display());
            }
        }
    }
}

/// The person on call finds instructions: every alert names its section of docs/alerts.md.
#[test]
fn every_alert_has_a_runbook_that_exists() {
    let rules = root().join("contrib/prometheus/copr-keygen.rules.yml");
    let rules = fs::read_to_string(rules).unwrap();
    let values =
        |key: &'static str| rules.lines().filter_map(move |line| line.trim().strip_prefix(key));
    let alerts: Vec<_> = values("- alert: ").map(str::to_lowercase).collect();
    let runbooks: Vec<_> = values("runbook: docs/alerts.md#").collect();
    assert!(alerts.len() > 10, "{alerts:?}");
    assert_eq!(alerts, runbooks);
    let headings = anchors(&fs::read_to_string(root().join("docs/alerts.md")).unwrap());
    for runbook in runbooks {
        assert!(headings.iter().any(|it| it == runbook), "{runbook}");
    }
}

/// The packages take their version from the changelog, the program takes its version from Cargo.toml.
#[test]
fn the_newest_release_in_the_changelog_has_the_version_of_the_program() {
    let printed = Command::new(root().join("tools/version")).output().unwrap();
    let version = env!("CARGO_PKG_VERSION");
    assert_eq!(String::from_utf8(printed.stdout).unwrap().trim(), version);
    // The spec has to repeat the version: rpmbuild reads it before it unpacks any source.
    let spec = fs::read_to_string(root().join("packaging/rpm/copr-keygen.spec")).unwrap();
    let value = |tag: &str| spec.lines().find_map(|line| line.strip_prefix(tag)).unwrap().trim();
    assert_eq!(value("Version:"), version);
    assert!(
        spec.lines()
            .any(|line| line.starts_with("* ") && line.ends_with(&format!(" - {version}-1")))
    );
}
