//! Sees snapshots being written: a file `….partial` in the folder of a node, until it has its name.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde::Serialize;

const LOOK_EVERY: Duration = Duration::from_millis(5);

/// One that was written.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Written {
    pub node: usize,
    pub seconds: f64,
    pub bytes: u64,
    #[serde(skip)]
    pub from: Instant,
    #[serde(skip)]
    pub to: Instant,
}

/// Looks until it is told to stop.
#[derive(Debug)]
pub struct Lookout {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Vec<Written>>,
}

impl Lookout {
    /// At the `snapshots` folders of these data folders.
    pub fn start(data_folders: &[PathBuf]) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (told, mut sight) = (stop.clone(), Sight::new(data_folders));
        let thread = std::thread::spawn(move || {
            while !told.load(Ordering::Relaxed) {
                sight.look(Instant::now());
                std::thread::sleep(LOOK_EVERY);
            }
            sight.found
        });
        Self { stop, thread }
    }

    pub fn stop(self) -> Vec<Written> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap_or_default()
    }
}

/// What was seen so far.
#[derive(Debug)]
struct Sight {
    folders: Vec<PathBuf>,
    under_way: Vec<Option<Instant>>,
    found: Vec<Written>,
}

impl Sight {
    fn new(data_folders: &[PathBuf]) -> Self {
        let folders: Vec<PathBuf> = data_folders.iter().map(|folder| folder.join("snapshots")).collect();
        Self { under_way: vec![None; folders.len()], folders, found: Vec::new() }
    }

    fn look(&mut self, now: Instant) {
        for (node, folder) in self.folders.iter().enumerate() {
            match (self.under_way[node], has(folder, "partial").is_some()) {
                (None, true) => self.under_way[node] = Some(now),
                (Some(from), false) => {
                    self.under_way[node] = None;
                    let bytes = has(folder, "snapshot").unwrap_or(0);
                    let seconds = now.duration_since(from).as_secs_f64();
                    self.found.push(Written { node: node + 1, seconds, bytes, from, to: now });
                }
                _ => {}
            }
        }
    }
}

/// The size of the largest file with this ending, if there is one.
fn has(folder: &Path, ending: &str) -> Option<u64> {
    let files = std::fs::read_dir(folder).ok()?.flatten();
    let wanted = files.filter(|file| file.path().extension().is_some_and(|extension| extension == ending));
    wanted.filter_map(|file| Some(file.metadata().ok()?.len())).max()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sees_a_file_come_and_get_its_name() {
        let folder = tempfile::tempdir().unwrap();
        let snapshots = folder.path().join("snapshots");
        std::fs::create_dir(&snapshots).unwrap();
        let mut sight = Sight::new(&[folder.path().to_owned()]);
        let start = Instant::now();
        sight.look(start);
        std::fs::write(snapshots.join("0.partial"), vec![0; 77]).unwrap();
        sight.look(start + Duration::from_secs(1));
        std::fs::rename(snapshots.join("0.partial"), snapshots.join("1.snapshot")).unwrap();
        sight.look(start + Duration::from_secs(3));
        let [found] = sight.found[..] else { panic!("{:?}", sight.found) };
        assert_eq!((found.node, found.bytes), (1, 77));
        assert!((found.seconds - 2.0).abs() < 1e-9, "{found:?}");
    }
}
