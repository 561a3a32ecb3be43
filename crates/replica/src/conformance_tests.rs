//! openraft's own storage suite: against the store as it is, and closed and opened again after every write.

use std::fmt::Debug;
use std::io;
use std::ops::RangeBounds;
use std::path::PathBuf;
use std::sync::Arc;

use openraft::storage::{IOFlushed, LogState, RaftLogReader, RaftLogStorage};
use openraft::testing::log::{StoreBuilder, Suite};
use openraft::type_config::TypeConfigExt as _;
use openraft::{OptionalSend, StorageError};
use tokio::sync::Mutex;

use crate::log_store::LogStore;
use crate::snapshot::SnapshotFolder;
use crate::state_machine::StateMachine;
use crate::types::{Entry, LogId, TypeConfig, Vote};

fn state_machine(folder: &tempfile::TempDir) -> StateMachine {
    StateMachine::open(SnapshotFolder::open(folder.path().join("snapshots")).unwrap()).unwrap()
}

struct OnDisk;

impl StoreBuilder<TypeConfig, LogStore, StateMachine, tempfile::TempDir> for OnDisk {
    async fn build(&self) -> Result<(tempfile::TempDir, LogStore, StateMachine), StorageError<TypeConfig>> {
        let folder = tempfile::tempdir().unwrap();
        let log = LogStore::open(&folder.path().join("log"), 0).unwrap();
        let state_machine = state_machine(&folder);
        Ok((folder, log, state_machine))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn openrafts_storage_suite_passes() {
    Suite::test_all(OnDisk).await.unwrap();
}

/// Nothing survives a write but what is on disk.
#[derive(Clone)]
struct Reopening {
    folder: PathBuf,
    log: Arc<Mutex<Option<LogStore>>>,
}

impl Reopening {
    fn open(folder: PathBuf) -> Self {
        let log = Some(LogStore::open(&folder, 0).unwrap());
        Self { folder, log: Arc::new(Mutex::new(log)) }
    }

    async fn now(&self) -> LogStore {
        self.log.lock().await.clone().unwrap()
    }

    /// The writer has ended and sled is closed before it is opened again.
    async fn reopen(&self) {
        let mut log = self.log.lock().await;
        drop(log.take());
        *log = Some(LogStore::open(&self.folder, 0).unwrap());
    }
}

impl RaftLogReader<TypeConfig> for Reopening {
    async fn try_get_log_entries<RB>(&mut self, range: RB) -> io::Result<Vec<Entry>>
    where
        RB: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        self.now().await.try_get_log_entries(range).await
    }

    async fn read_vote(&mut self) -> io::Result<Option<Vote>> {
        self.now().await.read_vote().await
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> io::Result<Vec<Entry>> {
        self.now().await.limited_get_log_entries(start, end).await
    }
}

impl RaftLogStorage<TypeConfig> for Reopening {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> io::Result<LogState<TypeConfig>> {
        self.now().await.get_log_state().await
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> io::Result<()> {
        self.now().await.save_vote(vote).await?;
        self.reopen().await;
        Ok(())
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> io::Result<()> {
        self.now().await.save_committed(committed).await?;
        self.reopen().await;
        Ok(())
    }

    async fn read_committed(&mut self) -> io::Result<Option<LogId>> {
        self.now().await.read_committed().await
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<TypeConfig>) -> io::Result<()>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let entries: Vec<Entry> = entries.into_iter().collect();
        let (flushed, waited) = TypeConfig::oneshot();
        self.now().await.append(entries, IOFlushed::signal(flushed)).await?;
        waited.await.unwrap()?;
        self.reopen().await;
        callback.io_completed(Ok(()));
        Ok(())
    }

    async fn truncate_after(&mut self, last_log_id: Option<LogId>) -> io::Result<()> {
        self.now().await.truncate_after(last_log_id).await?;
        self.reopen().await;
        Ok(())
    }

    async fn purge(&mut self, log_id: LogId) -> io::Result<()> {
        self.now().await.purge(log_id).await?;
        self.reopen().await;
        Ok(())
    }
}

struct ReopenedBetweenSteps;

impl StoreBuilder<TypeConfig, Reopening, StateMachine, tempfile::TempDir> for ReopenedBetweenSteps {
    async fn build(&self) -> Result<(tempfile::TempDir, Reopening, StateMachine), StorageError<TypeConfig>> {
        let folder = tempfile::tempdir().unwrap();
        let log = Reopening::open(folder.path().join("log"));
        let state_machine = state_machine(&folder);
        Ok((folder, log, state_machine))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn openrafts_storage_suite_passes_when_reopened_between_steps() {
    Suite::test_all(ReopenedBetweenSteps).await.unwrap();
}
