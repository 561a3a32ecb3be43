//! `quorate bench` at a tiny size: does it run to its end, and do its findings hold together? No figure is judged.

#![allow(clippy::unwrap_used, reason = "a test says what it expects by unwrapping it")]

use std::path::Path;
use std::process::Command;

use serde_json::Value;

fn bench(folder: &Path, arguments: &[&str]) -> Value {
    let ran = Command::new(env!("CARGO_BIN_EXE_quorate"))
        .arg("bench")
        .args(arguments)
        .args(["--output", "json", "--save", folder.to_str().unwrap()])
        .output()
        .unwrap();
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    serde_json::from_slice(&ran.stdout).unwrap()
}

#[test]
fn a_soak_of_two_seconds_has_intervals_trends_and_plots() {
    let folder = tempfile::tempdir().unwrap();
    let found = bench(folder.path(), &["soak", "--minutes", "0.04", "--rate", "100", "--chat-rate", "20"]);
    assert_eq!((&found["errors"], &found["rate"]), (&Value::from(0), &Value::from(100.0)), "{found:#}");
    let intervals = found["intervals"].as_array().unwrap();
    assert!(
        !intervals.is_empty() && intervals.iter().all(|one| one["processes"].as_array().unwrap().len() == 6)
    );
    let lines = std::fs::read_to_string(folder.path().join("soak.jsonl")).unwrap();
    assert_eq!(lines.lines().count(), intervals.len());
    let verdicts: Vec<&str> =
        found["trends"].as_array().unwrap().iter().map(|trend| trend["what"].as_str().unwrap()).collect();
    assert!(verdicts.contains(&"memory of node-1") && verdicts.contains(&"data of node-3"), "{verdicts:?}");
    let plot = std::fs::read_to_string(folder.path().join("soak-memory.svg")).unwrap();
    assert!(plot.contains("gateway-1") && plot.ends_with("</svg>\n"), "{plot}");
}
