//! `quorate bench` at a tiny size: does it run to its end, and do its findings hold together? No figure is judged but the
//! memory of processes that have nothing to do, which does not depend on what else the machine does.

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

/// They take about 6 MiB. Huge pages, or a table that somebody fills in advance, are tens of MiB more.
#[test]
#[cfg(target_os = "linux")]
fn idle_processes_have_little_memory_of_their_own() {
    const OWN_BYTES_MAX: u64 = 16 << 20;
    let folder = tempfile::tempdir().unwrap();
    let found = bench(folder.path(), &["idle", "--duration", "1", "--reservations", "0"]);
    let resting = found["resting"].as_array().unwrap();
    let at_start: Vec<&Value> = resting.iter().filter(|one| one["after"] == "the start").collect();
    let names: Vec<&str> = at_start.iter().map(|one| one["process"].as_str().unwrap()).collect();
    assert_eq!(names.iter().filter(|name| **name == "follower").count(), 2, "{names:?}");
    assert!(names.contains(&"gateway") && names.contains(&"leader"), "{names:?}");
    for one in at_start {
        let own = one["resident"]["own_bytes"].as_u64().unwrap();
        assert!(own < OWN_BYTES_MAX, "{one:#}");
    }
    assert_eq!(resting.len(), 8, "{found:#}");
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
