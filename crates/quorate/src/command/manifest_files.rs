//! Manifest files on the command line: what `-f` names, read and checked here before anything is sent.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use clap::Args;
use quorate_policy::manifests::{ManifestSet, Mode, Source};
use quorate_rpc::admin::ManifestFile;

/// What the cluster calls the objects that it gets: not by their files.
pub const SENT_AS: &str = "manifests";

#[derive(Debug, Clone, Args)]
pub struct FileOptions {
    /// Manifest file, or a folder of them (*.yaml, *.yml, in order of their names); `-` is standard input
    #[arg(short, long = "filename", required = true, value_name = "FILE")]
    filename: Vec<PathBuf>,
    /// Unknown fields are warnings, not errors
    #[arg(long)]
    lenient: bool,
}

/// What was read, and what it means.
#[derive(Debug)]
pub struct Manifests {
    pub set: ManifestSet,
    pub warnings: Vec<String>,
    pub lenient: bool,
}

impl FileOptions {
    /// One file or folder, strictly.
    pub fn of(path: PathBuf) -> Self {
        Self { filename: vec![path], lenient: false }
    }

    /// # Errors
    /// A file that cannot be read, or the mistakes in them, each with its place.
    pub fn read(&self) -> Result<Manifests> {
        let mut texts = Vec::new();
        for path in &self.filename {
            read_path(path, &mut texts)?;
        }
        let sources: Vec<Source<'_>> = texts.iter().map(|(name, text)| Source { name, text }).collect();
        let mode = if self.lenient { Mode::Lenient } else { Mode::Strict };
        let (set, warnings) = ManifestSet::parse(&sources, mode)?;
        Ok(Manifests { set, warnings, lenient: self.lenient })
    }
}

impl Manifests {
    /// As it goes to the cluster: without Secrets, which stay on the gateways.
    pub fn files(&self) -> Vec<ManifestFile> {
        vec![ManifestFile { name: SENT_AS.to_owned(), text: self.set.to_document() }]
    }
}

fn read_path(path: &Path, texts: &mut Vec<(String, String)>) -> Result<()> {
    if path.as_os_str() == "-" {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text).context("standard input")?;
        texts.push(("standard input".to_owned(), text));
        return Ok(());
    }
    if !path.is_dir() {
        let text =
            std::fs::read_to_string(path).with_context(|| format!("manifest file {}", path.display()))?;
        texts.push((path.display().to_string(), text));
        return Ok(());
    }
    let entries = std::fs::read_dir(path).with_context(|| format!("folder {}", path.display()))?;
    let mut files: Vec<PathBuf> = entries.map(|entry| Ok(entry?.path())).collect::<std::io::Result<_>>()?;
    files.retain(|file| file.is_file() && file.extension().is_some_and(|end| end == "yaml" || end == "yml"));
    files.sort();
    if files.is_empty() {
        bail!("folder {} has no *.yaml or *.yml files", path.display());
    }
    files.iter().try_for_each(|file| read_path(file, texts))
}
