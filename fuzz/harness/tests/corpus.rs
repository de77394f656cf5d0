//! Every file of `fuzz/corpus` goes through the function that the fuzz target of its directory calls.

#![allow(clippy::unwrap_used, missing_docs)]
use std::collections::BTreeSet;
use std::fs;
use std::panic::catch_unwind;
use std::path::{Path, PathBuf};

use fuzzing::TARGETS;

/// The most files in one corpus, and the most bytes in all of them. The corpora are for replay, not the
/// working set of a fuzzer.
const FILES_MAX: usize = 100;
const TOTAL_MAX: u64 = 1024 * 1024;

fn directory() -> PathBuf {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/..")).into()
}

fn names(path: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

#[test]
fn every_file_holds_what_its_target_asserts() {
    let (mut total, mut failed) = (0, Vec::new());
    for (target, run) in TARGETS {
        let corpus = directory().join("corpus").join(target);
        let files = names(&corpus);
        assert!(!files.is_empty(), "{} is empty", corpus.display());
        assert!(files.len() <= FILES_MAX, "{} holds {} files", corpus.display(), files.len());
        for file in &files {
            let data = fs::read(corpus.join(file)).unwrap();
            total += u64::try_from(data.len()).unwrap();
            if catch_unwind(|| run(&data)).is_err() {
                failed.push(format!("{target}/{file}"));
            }
        }
        println!("{target}: {} files", files.len());
    }
    assert!(failed.is_empty(), "{failed:#?}");
    assert!(total <= TOTAL_MAX, "the corpora have {total} bytes");
}

#[test]
fn targets_programs_and_corpora_are_the_same_ones() {
    let targets: BTreeSet<_> = TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(targets.len(), TARGETS.len());
    assert_eq!(names(&directory().join("corpus")), targets);
    let programs = targets.iter().map(|name| format!("{name}.rs")).collect();
    assert_eq!(names(&directory().join("fuzz_targets")), programs);
    let manifest = fs::read_to_string(directory().join("Cargo.toml")).unwrap();
    for name in &targets {
        let source =
            fs::read_to_string(directory().join(format!("fuzz_targets/{name}.rs"))).unwrap();
        assert!(source.contains(&format!("run(\"{name}\", data)")), "{name}");
        assert!(manifest.contains(&format!("name = \"{name}\"\n")), "{name}");
    }
}
