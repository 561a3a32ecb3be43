//! System calls of a node that fail or take long: strace, attached to the running process.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use rustix::process::Signal;

use super::Deployment;
use super::process::{Process, Spec};
use super::tool;

const ATTACHED_WITHIN: Duration = Duration::from_secs(5);

impl Deployment {
    /// `inject` as strace takes it: `fdatasync,fsync:error=EIO`. Returns when it is in force.
    ///
    /// # Errors
    /// strace is not there, cannot attach, or the node does not run.
    pub async fn inject_calls(&self, id: u64, inject: &str) -> Result<()> {
        let pid = self.node_pid(id).with_context(|| format!("node {id} does not run"))?;
        let strace = tool::find("strace").context("strace is not installed")?;
        let calls = inject.split(':').next().unwrap_or_default();
        let options = ["-f", "-qq", "-o", "/dev/null", "-e", &format!("trace={calls}"), "-e"];
        let mut arguments: Vec<std::ffi::OsString> = options.map(Into::into).into();
        arguments.extend([format!("inject={inject}").into(), "-p".into(), pid.to_string().into()]);
        let name = format!("strace-{id}");
        let mut process = Process::start(&Spec {
            program: &strace,
            folder: &self.options.folder,
            name: &name,
            namespace: None,
            environment: Vec::new(),
            arguments,
        })?;
        let deadline = Instant::now() + ATTACHED_WITHIN;
        while !all_traced(pid) {
            if process.ended().is_some() || Instant::now() > deadline {
                bail!("strace cannot attach to node {id}: {}", process.output().trim());
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        self.tracers.lock().push((id, process));
        Ok(())
    }

    /// Its system calls do again what they should.
    pub async fn restore_calls(&self, id: u64) {
        let tracers: Vec<_> = self.tracers.lock().extract_if(.., |tracer| tracer.0 == id).collect();
        end(tracers).await;
    }

    pub async fn restore_all_calls(&self) {
        let tracers = std::mem::take(&mut *self.tracers.lock());
        end(tracers).await;
    }
}

/// In good order: a tracer that is killed may leave threads stopped.
async fn end(tracers: Vec<(u64, Process)>) {
    for (_, mut tracer) in tracers {
        let _ = tracer.signal(Signal::TERM);
        tracer.wait(Duration::from_secs(5)).await;
    }
}

/// Whether every thread of the process has a tracer.
fn all_traced(pid: u32) -> bool {
    let Ok(threads) = std::fs::read_dir(format!("/proc/{pid}/task")) else { return false };
    threads.flatten().all(|thread| {
        let status = std::fs::read_to_string(thread.path().join("status")).unwrap_or_default();
        let tracer = status.lines().find_map(|line| line.strip_prefix("TracerPid:"));
        tracer.is_none_or(|tracer| tracer.trim() != "0")
    })
}
