//! For every attack, docs/hardening.md names the tests that show what stops it. All of these tests exist.

#![allow(missing_docs, clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Returns the file that must hold the test, and the text that this file must contain.
fn place(test: &str) -> (PathBuf, String) {
    if let Some(case) = test.strip_prefix("system/") {
        return (root().join(format!("tests/system/cases/{case}.sh")), String::new());
    }
    if let Some(target) = test.strip_prefix("fuzz/") {
        let program = root().join(format!("fuzz/fuzz_targets/{target}.rs"));
        return (program, format!("run({target:?}, data)"));
    }
    if let Some(mechanism) = test.strip_prefix("guest/") {
        let file = root().join(format!("tests/guest/guest-{mechanism}"));
        return (file, "expect_confined".into());
    }
    let (file, name) = test.split_once("::").unwrap();
    (root().join(format!("tests/service/{file}.rs")), format!("#[test]\nfn {name}()"))
}

#[test]
fn every_attack_has_tests_and_they_exist() {
    let page = fs::read_to_string(root().join("docs/hardening.md")).unwrap();
    let table = page.split("## Attacks").nth(1).unwrap();
    let rows: Vec<_> = table.lines().filter(|line| line.starts_with("| ")).skip(1).collect();
    assert!(rows.len() > 20, "the table is gone");
    for row in rows {
        let tests = row.trim_end_matches([' ', '|']).rsplit(" | ").next().unwrap();
        let tests: Vec<_> = tests.split('`').skip(1).step_by(2).collect();
        assert!(!tests.is_empty(), "no test: {row}");
        for test in tests {
            let (file, words) = place(test);
            let text = fs::read_to_string(&file).unwrap_or_else(|e| panic!("{test}: {e}"));
            assert!(text.contains(&words), "{test} is not in {}", file.display());
        }
    }
}
