//! One process under test. It dies with its handle.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use parking_lot::Mutex;
use rustix::process::{Pid, Signal, kill_process};

use super::sweep;

const LOOK_AGAIN: Duration = Duration::from_millis(10);
/// Of all that run, for the signal that ends the harness: then nothing is dropped, and one that is paused does not see the end
/// of its input.
static RUNNING: Mutex<BTreeSet<u32>> = Mutex::new(BTreeSet::new());

/// kill -9 of all that this harness has started.
pub fn kill_all() {
    // Held meanwhile: who is in it has not been waited for, so the number is still its own.
    let running = RUNNING.lock();
    for pid in running.iter().filter_map(|pid| Pid::from_raw(i32::try_from(*pid).ok()?)) {
        let _ = kill_process(pid, Signal::KILL);
    }
}

/// What to start, and how.
#[derive(Debug)]
pub struct Spec<'a> {
    pub program: &'a Path,
    /// Its output goes to `<folder>/<name>.log`, after what is there.
    pub folder: &'a Path,
    pub name: &'a str,
    /// The network namespace to run in.
    pub namespace: Option<&'a str>,
    /// Only for the program itself, not for what starts it.
    pub environment: Vec<(String, String)>,
    pub arguments: Vec<OsString>,
}

#[derive(Debug)]
pub struct Process {
    name: String,
    log: PathBuf,
    /// Where this process's lines begin in the log.
    log_start: u64,
    child: Child,
    /// The process stops when this closes: also when the harness is killed.
    _stdin: Option<ChildStdin>,
}

impl Process {
    /// Whatever stands before the program execs it: the process that is signalled is the program itself.
    ///
    /// # Errors
    /// The program cannot be started, or the log not be written.
    pub fn start(spec: &Spec<'_>) -> Result<Self> {
        let log = spec.folder.join(format!("{}.log", spec.name));
        let file = File::options().create(true).append(true).open(&log);
        let file = file.with_context(|| format!("cannot write {}", log.display()))?;
        let log_start = file.metadata()?.len();
        let mut words = words(spec).into_iter();
        let mut running = RUNNING.lock();
        let mut child = Command::new(words.next().unwrap_or_default())
            .args(words)
            .args(&spec.arguments)
            .env("QUORATE_LOG", "info,openraft=error")
            .env("QUORATE_INSECURE", "true")
            .env("NO_COLOR", "1")
            .env("RUST_BACKTRACE", "1")
            .stdin(Stdio::piped())
            .stdout(file.try_clone()?)
            .stderr(file)
            .spawn()
            .with_context(|| format!("cannot start {} ({})", spec.name, spec.program.display()))?;
        running.insert(child.id());
        drop(running);
        let stdin = child.stdin.take();
        Ok(Self { name: spec.name.to_owned(), log, log_start, child, _stdin: stdin })
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// # Errors
    /// It ended already.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let name = &self.name;
        kill_process(Pid::from_child(&self.child), signal)
            .with_context(|| format!("cannot signal {name} ({signal:?})"))
    }

    /// How it ended, if it did.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        let mut running = RUNNING.lock();
        let ended = self.child.try_wait().ok().flatten();
        if ended.is_some() {
            running.remove(&self.child.id());
        }
        ended
    }

    /// Whether it ended in time.
    pub async fn wait(&mut self, within: Duration) -> bool {
        let deadline = Instant::now() + within;
        while self.ended().is_none() {
            if Instant::now() > deadline {
                return false;
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
        true
    }

    /// What this process has written, not those before it.
    pub fn output(&self) -> String {
        let bytes = std::fs::read(&self.log).unwrap_or_default();
        let start = usize::try_from(self.log_start).unwrap_or(usize::MAX).min(bytes.len());
        String::from_utf8_lossy(&bytes[start..]).into_owned()
    }
}

/// What stands before the arguments.
fn words(spec: &Spec<'_>) -> Vec<OsString> {
    let mut words: Vec<OsString> = Vec::new();
    if let Some(namespace) = spec.namespace {
        words.push("nsenter".into());
        words.push(format!("--net=/run/netns/{namespace}").into());
    }
    if !spec.environment.is_empty() {
        words.push("env".into());
        words.extend(spec.environment.iter().map(|(name, value)| format!("{name}={value}").into()));
    }
    words.push(spec.program.into());
    words
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        RUNNING.lock().remove(&self.child.id());
        let _ = self.child.wait();
        // What libfaketime leaves of a process that was killed.
        for name in sweep::CLOCKS {
            let _ = std::fs::remove_file(format!("{}/{name}{}", sweep::SHARED_MEMORY, self.child.id()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_what_runs_would_be_killed_by_a_signal() {
        let folder = tempfile::tempdir().unwrap();
        let start = |program: &str, arguments: &[&str]| {
            Process::start(&Spec {
                program: Path::new(program),
                folder: folder.path(),
                name: "p",
                namespace: None,
                environment: Vec::new(),
                arguments: arguments.iter().map(Into::into).collect(),
            })
            .unwrap()
        };
        let is_known = |pid: u32| RUNNING.lock().contains(&pid);
        let mut short = start("true", &[]);
        assert!(short.wait(Duration::from_secs(60)).await);
        assert!(!is_known(short.pid()));
        let long = start("sleep", &["600"]);
        let pid = long.pid();
        assert!(is_known(pid));
        drop(long);
        assert!(!is_known(pid));
    }

    #[test]
    fn what_stands_before_the_program_only_where_it_must() {
        let program = Path::new("/quorate");
        let mut spec = Spec {
            program,
            folder: Path::new("/run"),
            name: "node-1",
            namespace: None,
            environment: Vec::new(),
            arguments: Vec::new(),
        };
        assert_eq!(words(&spec), ["/quorate"]);
        spec.namespace = Some("qj1x0-n1");
        spec.environment = vec![("A".to_owned(), "b".to_owned())];
        assert_eq!(words(&spec), ["nsenter", "--net=/run/netns/qj1x0-n1", "env", "A=b", "/quorate"]);
    }
}
