//! The nodes of a deployment: starting, stopping, killing, pausing, and what a fault may expect of them.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use rustix::process::Signal;

use super::disks::Disk;
use super::process::{Process, Spec};
use super::{Deployment, GRPC_PORT, HTTP_PORT, NodePlace, Place, config};

/// Longer than a node may drain.
const STOP_WITHIN: Duration = Duration::from_secs(20);
const SETTLED_WITHIN: Duration = Duration::from_secs(2);
const FAKETIME_FOLDERS: [&str; 4] = [
    "/usr/lib/x86_64-linux-gnu/faketime",
    "/usr/lib/aarch64-linux-gnu/faketime",
    "/usr/lib64/faketime",
    "/usr/lib/faketime",
];

/// How a node's process may end by itself without that being a violation: its last words contain one of these.
pub type Ending = &'static [&'static str];

#[derive(Debug)]
pub struct Node {
    pub place: NodePlace,
    pub process: Option<Process>,
    pub paused: bool,
    pub may_end: Option<Ending>,
    /// The `quorate` that it runs from its next start on.
    pub binary: PathBuf,
    pub disk: Option<Disk>,
}

/// The library that sets a process's clock, if it is installed.
pub fn faketime() -> Option<PathBuf> {
    let file = |folder: &&'static str| PathBuf::from(folder).join("libfaketimeMT.so.1");
    FAKETIME_FOLDERS.iter().map(file).find(|file| file.is_file())
}

impl Deployment {
    /// A place for a node more, which does not run yet and is no member.
    ///
    /// # Errors
    /// There cannot be an address or a disk.
    pub fn add_node(&self) -> Result<NodePlace> {
        let id = self.next_node();
        if let Some(network) = &self.network {
            network.add(Place::Node(id))?;
        }
        let address = self.listen(Place::Node(id), GRPC_PORT)?;
        let http = self.listen(Place::Node(id), HTTP_PORT)?;
        let place = NodePlace { id, address, http };
        let disk = if self.options.disks { Some(self.new_disk(id)?) } else { None };
        let binary = self.options.previous.clone().unwrap_or_else(|| self.options.binary.clone());
        self.set_clock(id, "+0")?;
        let node = Node { place: place.clone(), process: None, paused: false, may_end: None, binary, disk };
        self.nodes.lock().push(node);
        Ok(place)
    }

    fn new_disk(&self, id: u64) -> Result<Disk> {
        let label = self.network()?.label();
        let image = self.options.folder.join(format!("node-{id}.image"));
        Disk::new(image, self.options.folder.join(label).join(format!("node-{id}")))
    }

    /// Forgets a node that is no member any more; its process is killed.
    pub fn remove_node(&self, id: u64) {
        let removed: Vec<Node> = self.nodes.lock().extract_if(.., |node| node.place.id == id).collect();
        drop(removed);
        if let Some(network) = &self.network {
            network.remove(Place::Node(id));
        }
    }

    fn with<T>(&self, id: u64, what: impl FnOnce(&mut Node) -> T) -> Result<T> {
        let mut nodes = self.nodes.lock();
        let node = nodes.iter_mut().find(|node| node.place.id == id);
        Ok(what(node.with_context(|| format!("there is no node {id}"))?))
    }

    pub fn node_data(&self, id: u64) -> Result<PathBuf> {
        let disk = self.with(id, |node| node.disk.as_ref().map(|disk| disk.folder().join("data")))?;
        Ok(disk.unwrap_or_else(|| self.options.folder.join(format!("node-{id}"))))
    }

    /// Starts a node that does not run, with the data that it has.
    ///
    /// # Errors
    /// There is no such node, or its process cannot be started.
    pub fn start_node(&self, id: u64) -> Result<()> {
        self.note_ends();
        if self.with(id, |node| node.process.is_some())? {
            return Ok(());
        }
        let (place, binary) = self.with(id, |node| (node.place.clone(), node.binary.clone()))?;
        let previous = binary != self.options.binary;
        let text = config::node(&place, &self.node_places(), &self.node_data(id)?, previous);
        let path = self.options.folder.join(format!("node-{id}.yaml"));
        std::fs::write(&path, text)?;
        let process = Process::start(&Spec {
            program: &binary,
            folder: &self.options.folder,
            name: &format!("node-{id}"),
            namespace: self.namespace(Place::Node(id)).as_deref(),
            environment: self.clock_environment(id),
            arguments: vec!["node".into(), "--config".into(), path.into(), "--stop-at-eof".into()],
        })?;
        self.with(id, |node| {
            node.process = Some(process);
            node.paused = false;
        })
    }

    /// kill -9; its data stays.
    pub fn kill_node(&self, id: u64) {
        self.note_ends();
        let _ = self.with(id, |node| node.process = None);
    }

    /// SIGTERM, and waits for the end.
    ///
    /// # Errors
    /// It does not end in time; then it is killed.
    pub async fn stop_node(&self, id: u64) -> Result<()> {
        self.note_ends();
        let Some(mut process) = self.with(id, |node| node.process.take())? else { return Ok(()) };
        process.signal(Signal::TERM)?;
        // Otherwise the signal waits with it.
        process.signal(Signal::CONT)?;
        let ended = process.wait(STOP_WITHIN).await;
        self.note_panics_of(&process);
        anyhow::ensure!(ended, "node {id} did not end within {} s of SIGTERM", STOP_WITHIN.as_secs());
        Ok(())
    }

    /// # Errors
    /// There is no such node, or it does not run.
    pub fn pause_node(&self, id: u64) -> Result<()> {
        self.signal_node(id, Signal::STOP)?;
        self.with(id, |node| node.paused = true)
    }

    /// # Errors
    /// There is no such node, or it does not run.
    pub fn resume_node(&self, id: u64) -> Result<()> {
        self.with(id, |node| node.paused = false)?;
        self.signal_node(id, Signal::CONT)
    }

    fn signal_node(&self, id: u64, signal: Signal) -> Result<()> {
        let none = || format!("node {id} does not run");
        self.with(id, |node| node.process.as_ref().with_context(none)?.signal(signal))?
    }

    pub fn paused_nodes(&self) -> Vec<u64> {
        self.nodes.lock().iter().filter(|node| node.paused).map(|node| node.place.id).collect()
    }

    /// Whether its process runs (or is paused).
    pub fn runs(&self, id: u64) -> bool {
        self.note_ends();
        self.with(id, |node| node.process.is_some()).unwrap_or(false)
    }

    pub fn node_pid(&self, id: u64) -> Option<u32> {
        self.with(id, |node| node.process.as_ref().map(Process::pid)).ok()?
    }

    /// From now on its process may end by itself, if its last words contain one of these.
    pub fn node_may_end(&self, id: u64, ending: Ending) {
        let _ = self.with(id, |node| node.may_end = Some(ending));
    }

    /// And from now on not any more.
    pub fn node_must_run(&self, id: u64) {
        self.note_ends();
        let _ = self.with(id, |node| node.may_end = None);
    }

    /// The binary of its next start.
    pub fn set_node_binary(&self, id: u64, binary: PathBuf) -> Result<()> {
        self.with(id, |node| node.binary = binary)
    }

    /// # Errors
    /// Nodes have no disks of their own here, or what is done fails.
    pub fn on_disk<T>(&self, id: u64, what: impl FnOnce(&Disk) -> Result<T>) -> Result<T> {
        let none = || format!("node {id} has no disk of its own");
        self.with(id, |node| what(node.disk.as_ref().with_context(none)?))?
    }

    /// Sets its clock: `+0`, `-30s`, `+1.5` … takes effect within a second.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn set_clock(&self, id: u64, offset: &str) -> Result<()> {
        if !self.options.clocks {
            return Ok(());
        }
        let path = self.clock_file(id);
        let partial = path.with_extension("partial");
        std::fs::write(&partial, format!("{offset}\n"))?;
        Ok(std::fs::rename(partial, path)?)
    }

    fn clock_file(&self, id: u64) -> PathBuf {
        self.options.folder.join(format!("node-{id}.clock"))
    }

    fn clock_environment(&self, id: u64) -> Vec<(String, String)> {
        let Some(library) = faketime().filter(|_| self.options.clocks) else { return Vec::new() };
        let file = self.clock_file(id);
        [
            ("LD_PRELOAD", library.to_string_lossy().into_owned()),
            ("FAKETIME_TIMESTAMP_FILE", file.to_string_lossy().into_owned()),
            // How long it goes by what it has read, in seconds.
            ("FAKETIME_CACHE_DURATION", "1".to_owned()),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into()
    }

    /// Moves its data away, so that it starts with none and is rebuilt by its peers. It must not run.
    ///
    /// # Errors
    /// The folder cannot be moved.
    pub fn lose_data(&self, id: u64) -> Result<()> {
        anyhow::ensure!(!self.runs(id), "node {id} runs: its data cannot be taken away");
        let data = self.node_data(id)?;
        let mut aside = data.with_extension("lost");
        let mut number = 1;
        while aside.exists() {
            number += 1;
            aside = data.with_extension(format!("lost-{number}"));
        }
        match self.on_disk(id, |_| Ok(())) {
            // A disk of its own is too small for two.
            Ok(()) => std::fs::remove_dir_all(&data)?,
            Err(_) if data.exists() => std::fs::rename(&data, aside)?,
            Err(_) => {}
        }
        Ok(())
    }

    /// Whether a node that runs still does so after a while: one whose disk failed takes a moment to end.
    pub async fn settles(&self, id: u64) -> bool {
        let deadline = Instant::now() + SETTLED_WITHIN;
        while Instant::now() < deadline {
            if !self.runs(id) {
                return false;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        true
    }
}
