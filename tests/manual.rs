//! The manual pages and shell completions in the tree match the definitions that they are generated from, and
//! groff formats every page without a warning.

#![allow(clippy::unwrap_used, missing_docs)]

#[path = "../tools/manual.rs"]
#[allow(dead_code)]
mod manual;

use std::path::Path;
use std::process::Command;

use copr_keygen::settings::SETTINGS;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn pages_and_completions_are_up_to_date() {
    for (path, text) in manual::files().unwrap() {
        let found = std::fs::read(root().join(&path)).unwrap_or_default();
        assert!(found == text, "{path} is out of date: run `make man`");
    }
}

#[test]
fn the_readme_has_every_setting_with_its_default() {
    let readme = std::fs::read_to_string(root().join("README.md")).unwrap();
    for setting in SETTINGS {
        let (name, variable) = (setting.name, setting.variable());
        let row =
            readme.lines().find(|line| line.starts_with(&format!("| `{name}` | `{variable}` |")));
        let row = row.unwrap_or_else(|| panic!("README.md has no row for {name}"));
        let default = format!("`{}`", setting.default);
        assert!(
            setting.default.is_empty() || row.contains(&default),
            "README.md: the row of {name} has another default than {default}: {row}"
        );
    }
}

#[test]
fn groff_reads_every_page_without_a_warning() {
    for (path, _) in
        manual::files().unwrap().into_iter().filter(|(path, _)| path.starts_with("man/"))
    {
        let mut groff = Command::new("groff");
        // -Wbreak: lines that groff cannot fill evenly are no reason for a warning.
        groff.args(["-man", "-Tutf8", "-z", "-ww", "-Wbreak"]).arg(root().join(&path));
        let output = groff.output().unwrap_or_else(|e| panic!("groff, package groff-base: {e}"));
        let words = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && words.is_empty(), "{path}: {words}");
    }
}
