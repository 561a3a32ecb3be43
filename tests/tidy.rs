//! The architecture's rules that a compiler does not check.

#![allow(clippy::unwrap_used, reason = "a test says what it expects by unwrapping it")]

use std::fs;
use std::path::{Path, PathBuf};

/// Each crate, and those of the workspace it may name. Imports point downward only.
const LAYERS: [(&str, &[&str]); 8] = [
    ("ledger", &[]),
    ("policy", &["ledger"]),
    ("rpc", &["ledger"]),
    ("replica", &["ledger", "rpc"]),
    ("node", &["ledger", "policy", "rpc", "replica"]),
    ("gateway", &["ledger", "policy", "rpc"]),
    ("quorate", &["ledger", "policy", "rpc", "node", "gateway"]),
    ("testkit", &["ledger", "rpc", "node"]),
];
/// Only the replica may name these.
const STORAGE: [&str; 3] = ["openraft", "sled", "bincode"];
const LINES_MAX: usize = 500;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Names under `[dependencies]`.
fn dependencies(name: &str) -> Vec<String> {
    let manifest = fs::read_to_string(root().join("crates").join(name).join("Cargo.toml")).unwrap();
    let section = manifest.split("\n[dependencies]").nth(1).unwrap();
    let section = section.split("\n[").next().unwrap();
    section
        .lines()
        .filter_map(|line| line.split(['.', ' ', '=']).next())
        .filter(|name| !name.is_empty())
        .map(str::to_owned)
        .collect()
}

fn rust_files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            rust_files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

#[test]
fn imports_point_downward() {
    let mut crates: Vec<String> = fs::read_dir(root().join("crates"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    crates.sort();
    let mut known: Vec<&str> = LAYERS.iter().map(|(name, _)| *name).collect();
    known.sort_unstable();
    assert_eq!(crates, known, "eight crates are the ceiling");
    for (name, allowed) in LAYERS {
        for dependency in dependencies(name) {
            if let Some(inner) = dependency.strip_prefix("quorate-") {
                assert!(allowed.contains(&inner), "{name} may not depend on {inner}");
            }
            assert!(
                name == "replica" || !STORAGE.contains(&dependency.as_str()),
                "only replica names {dependency}"
            );
        }
    }
    assert_eq!(dependencies("ledger"), ["serde", "thiserror"]);
}

#[test]
fn every_file_says_what_it_is_for() {
    let mut files = Vec::new();
    rust_files(&root().join("crates"), &mut files);
    rust_files(&root().join("tests"), &mut files);
    rust_files(&root().join("jepsen"), &mut files);
    assert!(files.len() > 50);
    for file in files {
        let text = fs::read_to_string(&file).unwrap();
        assert!(text.starts_with("//!"), "{} does not open with //!", file.display());
        let lines = text.lines().count();
        assert!(lines <= LINES_MAX, "{} has {lines} lines, more than {LINES_MAX}", file.display());
    }
}

/// Every block of code is closed, and every link between files leads somewhere.
#[test]
fn documents_are_whole() {
    let folders = ["", "docs", "bench", "jepsen"].map(|folder| root().join(folder));
    let entries = folders.iter().flat_map(|folder| fs::read_dir(folder).unwrap());
    let paths = entries.map(|entry| entry.unwrap().path());
    for path in paths.filter(|path| path.extension().is_some_and(|extension| extension == "md")) {
        let text = fs::read_to_string(&path).unwrap();
        let fences = text.lines().filter(|line| line.starts_with("```")).count();
        assert!(fences.is_multiple_of(2), "a block of code in {} is not closed", path.display());
        let links = text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
        for link in links.filter(|link| !link.contains("://") && !link.starts_with('#')) {
            let file = link.split('#').next().unwrap_or(link);
            assert!(
                path.with_file_name(file).exists(),
                "{} leads to {link}, which is not there",
                path.display()
            );
        }
    }
}
