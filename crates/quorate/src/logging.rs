//! Logs: text or JSON on stderr, or text in a file. Nothing that is logged anywhere holds a secret.

use std::fs::File;
use std::io::IsTerminal as _;
use std::path::PathBuf;
use std::sync::Mutex;

use anyhow::{Context as _, Result};
use clap::{Args, ValueEnum};
use tracing_subscriber::EnvFilter;

#[derive(Debug, Clone, Args)]
pub struct LogOptions {
    /// What to log: a level, or a filter like `info,quorate_node=debug`
    #[arg(
        long = "log",
        global = true,
        env = "QUORATE_LOG",
        default_value = "warn,quorate=info,quorate_node=info,quorate_gateway=info,quorate_replica=info,openraft=error",
        hide_default_value = true,
        value_name = "FILTER"
    )]
    filter: String,
    /// How to log
    #[arg(long, global = true, env = "QUORATE_LOG_FORMAT", default_value = "text")]
    log_format: Format,
    /// Log to this file instead of stderr
    #[arg(long, global = true, env = "QUORATE_LOG_FILE", value_name = "FILE")]
    log_file: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    Text,
    Json,
}

impl LogOptions {
    /// For a command that keeps the screen for people.
    pub fn to_file_unless_told(&mut self, path: Option<PathBuf>) {
        self.log_file = self.log_file.take().or(path);
    }
}

/// # Errors
/// The filter or the file is none.
pub fn start(options: &LogOptions) -> Result<()> {
    log_panics();
    let filter =
        EnvFilter::try_new(&options.filter).with_context(|| format!("--log {:?}", options.filter))?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter);
    let json = options.log_format == Format::Json;
    match &options.log_file {
        Some(path) => {
            let file = File::options()
                .create(true)
                .append(true)
                .open(path)
                .with_context(|| format!("--log-file {}", path.display()))?;
            let builder = builder.with_writer(Mutex::new(file)).with_ansi(false);
            if json { builder.json().init() } else { builder.init() }
        }
        None => {
            let builder = builder.with_writer(std::io::stderr);
            let builder = if std::io::stderr().is_terminal() { builder } else { builder.with_ansi(false) };
            if json { builder.json().init() } else { builder.init() }
        }
    }
    Ok(())
}

/// A panic goes where everything else goes, so that it is not lost with a terminal.
fn log_panics() {
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        let thread = std::thread::current();
        tracing::error!(thread = thread.name().unwrap_or("unnamed"), "{panic}");
        before(panic);
    }));
}
