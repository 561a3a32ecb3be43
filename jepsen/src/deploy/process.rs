//! One process under test. It dies with its handle.

use std::ffi::OsString;
use std::fs::File;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, Result};

#[derive(Debug)]
pub struct Process {
    child: Child,
}

impl Process {
    /// Its output goes to `<folder>/<name>.log`, after what is there.
    ///
    /// # Errors
    /// The program cannot be started, or the log not be written.
    pub fn start(program: &Path, folder: &Path, name: &str, arguments: &[OsString]) -> Result<Self> {
        let log = folder.join(format!("{name}.log"));
        let file = File::options().create(true).append(true).open(&log);
        let file = file.with_context(|| format!("cannot write {}", log.display()))?;
        let child = Command::new(program)
            .args(arguments)
            .env("QUORATE_LOG", "info,openraft=error")
            .env("QUORATE_INSECURE", "true")
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .spawn()
            .with_context(|| format!("cannot start {name} ({})", program.display()))?;
        Ok(Self { child })
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
