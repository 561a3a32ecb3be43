//! The programs of the system that the harness lets do what Rust without `unsafe` cannot: `ip`, `nft`, `mount` …

use std::ffi::OsStr;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::sync_channel;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

/// None of them takes longer; one that does would hold up the whole run.
const WITHIN: Duration = Duration::from_secs(30);
/// Not everybody has these in their PATH.
const ALSO: [&str; 3] = ["/usr/sbin", "/sbin", "/usr/local/sbin"];

/// Where a program is, if it is there.
pub fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(ALSO.iter().map(PathBuf::from));
    folders.map(|folder| folder.join(program)).find(|file| file.is_file())
}

/// Of these programs, the first that is not there.
pub fn missing<'a>(programs: &[&'a str]) -> Option<&'a str> {
    programs.iter().find(|program| find(program).is_none()).copied()
}

pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Its output.
///
/// # Errors
/// It is not there, or did not succeed: with what it wrote to its standard error.
pub fn run<S: AsRef<OsStr>>(program: &str, arguments: &[S]) -> Result<String> {
    run_with(program, arguments, "")
}

/// Killed if it does not end in time.
fn output(child: Child) -> Result<Output> {
    let pid = Pid::from_child(&child);
    let (done, ended) = sync_channel(1);
    std::thread::spawn(move || done.send(child.wait_with_output()));
    let Ok(output) = ended.recv_timeout(WITHIN) else {
        // Nobody has waited for it: the number is still its own.
        let _ = kill_process(pid, Signal::KILL);
        bail!("killed");
    };
    Ok(output?)
}

/// The same, with something to read.
///
/// # Errors
/// As above.
pub fn run_with<S: AsRef<OsStr>>(program: &str, arguments: &[S], input: &str) -> Result<String> {
    let file = find(program).with_context(|| format!("{program} is not installed"))?;
    let mut child = Command::new(file)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot run {program}"))?;
    if let Some(mut stdin) = child.stdin.take() {
        // A program that does not read fails by its own words.
        let _ = stdin.write_all(input.as_bytes());
    }
    let output = output(child).with_context(|| format!("{program}: no end within {} s", WITHIN.as_secs()))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        let asked: Vec<_> = arguments.iter().map(|argument| argument.as_ref().to_string_lossy()).collect();
        bail!("{program} {} failed: {} {}", asked.join(" "), said.trim(), input.trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
