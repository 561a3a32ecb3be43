//! The ledger reads no clock, waits for nothing and iterates in no random order: its source names nothing that could.

#![allow(clippy::unwrap_used, reason = "a test may fail here")]

/// (what, why not)
const BANNED: [(&str, &str); 10] = [
    ("now()", "time comes with the command"),
    ("Instant", "time comes with the command"),
    ("SystemTime", "time comes with the command"),
    ("tokio", "nothing waits here"),
    ("async fn", "nothing waits here"),
    ("HashMap", "its order differs from replica to replica"),
    ("HashSet", "its order differs from replica to replica"),
    (": f64", "amounts are exact"),
    ("as f64", "amounts are exact"),
    ("rand::", "replicas must agree"),
];

#[test]
fn the_source_names_nothing_impure() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let source = std::fs::read_to_string(&path).unwrap();
        for (line, text) in source.lines().enumerate() {
            for (what, why) in BANNED {
                assert!(!text.contains(what), "{}:{}: {what}: {why}", path.display(), line + 1);
            }
        }
        files += 1;
    }
    assert!(files > 15, "only {files} files were read");
}
