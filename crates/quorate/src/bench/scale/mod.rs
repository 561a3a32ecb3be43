//! How cost grows, and whether it stays: memory by the piece, a soak, a million accounts, sweeps.
//!
//! Each program starts clusters of its own, loads them, stops by itself and hands over [`Findings`]. What they share:
//! `walk` (the load), `watch` (looks at processes and folders), `fit` and `plot`. Deliberately absent: comparisons with
//! others' software.

mod accounts;
mod fit;
mod growth;
mod idle;
mod memory;
mod plot;
mod snapshots;
mod soak;
mod streams;
mod walk;
mod watch;

use std::path::Path;

use anyhow::{Context as _, Result};
use comfy_table::Table;
use serde::Serialize;

pub use self::accounts::Accounts;
pub use self::growth::Growth;
pub use self::idle::Idle;
pub use self::memory::Memory;
pub use self::plot::Plot;
pub use self::soak::Soak;

/// What a program found: a table for people, itself for programs.
pub trait Findings: Serialize {
    /// Of the files it is saved in.
    const NAME: &'static str;

    fn table(&self) -> Table;

    /// What does not fit the table.
    fn notes(&self) -> Vec<String>;

    /// Each with the end of its file's name.
    fn plots(&self) -> Vec<(String, Plot)> {
        Vec::new()
    }
}

/// Writes `NAME.json`, and a `NAME-….svg` for each plot.
///
/// # Errors
/// A file cannot be written.
pub fn save<F: Findings>(findings: &F, folder: &Path) -> Result<()> {
    let write = |name: String, text: String| {
        let path = folder.join(name);
        std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
    };
    std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    write(format!("{}.json", F::NAME), serde_json::to_string_pretty(findings)? + "\n")?;
    for (name, plot) in findings.plots() {
        write(format!("{}-{name}.svg", F::NAME), plot.svg())?;
    }
    Ok(())
}

/// Bytes as MiB, for plots and tables.
fn mib(bytes: f64) -> f64 {
    bytes / f64::from(1 << 20)
}
