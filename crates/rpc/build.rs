//! Compiles `proto/` with protox: no protoc needed.

use std::path::PathBuf;

use prost::Message as _;

const FILES: [&str; 3] =
    ["quorate/budget/v1/budget.proto", "quorate/admin/v1/admin.proto", "quorate/raft/v1/raft.proto"];
/// Contracts of others. The nodes serve none of them, so reflection does not show them.
const FOREIGN: [&str; 3] = [
    "envoy/service/ratelimit/v3/rls.proto",
    "ratelimit/config/ratelimit/v3/rls_conf.proto",
    "ratelimit/service/ratelimit/v3/rls_conf_ds.proto",
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let root = PathBuf::from(std::env::var("CARGO_MANIFEST_DIR")?).join("../../proto");
    println!("cargo::rerun-if-changed={}", root.display());
    let descriptors = protox::compile(FILES, [&root])?;
    let out = PathBuf::from(std::env::var("OUT_DIR")?).join("descriptors.bin");
    std::fs::write(out, descriptors.encode_to_vec())?;
    tonic_prost_build::configure()
        .bytes(".")
        .type_attribute(".quorate.admin", "#[derive(serde::Serialize)]")
        .type_attribute(".quorate.budget", "#[derive(serde::Serialize)]")
        .compile_fds(descriptors)?;
    tonic_prost_build::configure().bytes(".").compile_fds(protox::compile(FOREIGN, [&root])?)?;
    Ok(())
}
