//! Configuration files: YAML, unknown keys refused with their line.

use std::path::Path;

use anyhow::{Context as _, Result, anyhow};
use serde::de::DeserializeOwned;

/// # Errors
/// Names the file, and the line and column of what is wrong in it.
pub fn load<T: DeserializeOwned>(path: &Path) -> Result<T> {
    let text = std::fs::read_to_string(path).with_context(|| format!("config file {}", path.display()))?;
    parse(&text).map_err(|error| anyhow!("config file {}: {error}", path.display()))
}

/// # Errors
/// Names line and column.
pub fn parse<T: DeserializeOwned>(text: &str) -> Result<T> {
    serde_yaml_ng::from_str(text).map_err(|error| anyhow!("{error}"))
}
