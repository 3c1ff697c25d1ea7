//! Every kept input of every fuzz target, replayed: what a fuzzer once found stays mended.

#![expect(clippy::expect_used, reason = "a corpus that cannot be read fails the test")]

#[path = "fuzz/targets.rs"]
mod targets;

use std::collections::BTreeSet;
use std::fs;
use std::panic::{self, AssertUnwindSafe};
use std::path::{Path, PathBuf};

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz").join(name)
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).expect("a folder below tests/fuzz");
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
    paths.sort();
    paths
}

/// Names in a folder, without endings.
fn names(folder: &Path) -> BTreeSet<String> {
    let stem = |path: PathBuf| path.file_stem().expect("a name").to_string_lossy().into_owned();
    entries(folder).into_iter().map(stem).collect()
}

#[test]
fn every_kept_input_holds_what_its_target_promises() {
    let mut broken = Vec::new();
    for (name, _) in targets::TABLE {
        let inputs = entries(&folder("corpus").join(name));
        assert!(!inputs.is_empty(), "the target {name} has no inputs");
        for input in inputs {
            let bytes = fs::read(&input).expect("an input");
            let replay = AssertUnwindSafe(|| targets::run(name, &bytes));
            if panic::catch_unwind(replay).is_err() {
                broken.push(input);
            }
        }
    }
    assert!(broken.is_empty(), "{broken:#?}");
}

#[test]
fn targets_programs_and_corpora_go_by_the_same_names() {
    let targets: BTreeSet<String> =
        targets::TABLE.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(names(&folder("corpus")), targets);
    assert_eq!(names(&folder("fuzz_targets")), targets);
}
