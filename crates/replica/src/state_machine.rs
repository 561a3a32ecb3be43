//! Owns the ledger and applies committed batches to it, inline.

use std::io;
use std::sync::Arc;

use futures_util::{Stream, StreamExt as _};
use openraft::storage::{EntryResponder, RaftSnapshotBuilder, RaftStateMachine};
use openraft::{EntryPayload, OptionalSend};
use parking_lot::RwLock;
use quorate_ledger::Ledger;
use tokio::sync::watch;

use crate::snapshot::{SnapshotFile, SnapshotFolder, read};
use crate::types::{Commands, LogId, Membership, Outcomes, Snapshot, SnapshotMeta, TypeConfig};

/// The ledger and where it stands in the log. Readers hold the lock for one look; a snapshot for one cheap clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct Applied {
    pub ledger: Ledger,
    pub last: Option<LogId>,
    pub membership: Membership,
}

/// Clones share one ledger.
#[derive(Debug, Clone)]
pub(crate) struct StateMachine {
    applied: Arc<RwLock<Applied>>,
    /// Index of the last entry applied.
    progress: Arc<watch::Sender<u64>>,
    folder: SnapshotFolder,
    current: Arc<RwLock<Option<Snapshot>>>,
}

impl StateMachine {
    /// Loads the newest snapshot; openraft then applies what came after it.
    pub fn open(folder: SnapshotFolder) -> io::Result<Self> {
        let mut applied = Applied::default();
        let mut current = None;
        if let Some((meta, ledger, snapshot)) = folder.load_newest()? {
            applied = Applied { ledger, last: meta.last_log_id, membership: meta.last_membership.clone() };
            current = Some(Snapshot { meta, snapshot });
        }
        let progress = watch::Sender::new(applied.last.map_or(0, |last| last.index));
        Ok(Self {
            applied: Arc::new(RwLock::new(applied)),
            progress: Arc::new(progress),
            folder,
            current: Arc::new(RwLock::new(current)),
        })
    }

    pub fn applied(&self) -> &RwLock<Applied> {
        &self.applied
    }

    pub fn progress(&self) -> watch::Receiver<u64> {
        self.progress.subscribe()
    }

    pub fn folder(&self) -> &SnapshotFolder {
        &self.folder
    }

    /// A snapshot that took longer to write than a newer one to arrive is not the current one.
    fn keep(&self, snapshot: Snapshot) {
        let mut current = self.current.write();
        if current.as_ref().is_none_or(|current| current.meta.last_log_id <= snapshot.meta.last_log_id) {
            *current = Some(snapshot);
        }
    }

    fn snapshot_now(&self) -> (SnapshotMeta, Ledger) {
        let applied = self.applied.read();
        let meta = SnapshotMeta { last_log_id: applied.last, last_membership: applied.membership.clone() };
        (meta, applied.ledger.clone())
    }
}

impl RaftStateMachine<TypeConfig> for StateMachine {
    type SnapshotData = SnapshotFile;
    type SnapshotBuilder = Self;

    async fn applied_state(&mut self) -> io::Result<(Option<LogId>, Membership)> {
        let applied = self.applied.read();
        Ok((applied.last, applied.membership.clone()))
    }

    async fn apply<S>(&mut self, mut entries: S) -> io::Result<()>
    where
        S: Stream<Item = Result<EntryResponder<TypeConfig>, io::Error>> + Unpin + OptionalSend,
    {
        while let Some(entry) = entries.next().await {
            let (entry, responder) = entry?;
            let batch = match &entry.payload {
                EntryPayload::Normal(batch) => Some(batch.commands()?),
                EntryPayload::Blank | EntryPayload::Membership(_) => None,
            };
            let outcomes = {
                let mut applied = self.applied.write();
                applied.last = Some(entry.log_id);
                if let EntryPayload::Membership(membership) = entry.payload {
                    applied.membership = Membership::new(Some(entry.log_id), membership);
                }
                let apply = |batch: &Commands| {
                    batch.commands.iter().map(|command| applied.ledger.apply(batch.at, command)).collect()
                };
                Outcomes(batch.as_ref().map(apply).unwrap_or_default())
            };
            if let Some(responder) = responder {
                responder.send(outcomes);
            }
            self.progress.send_replace(entry.log_id.index);
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> Self {
        self.clone()
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMeta, snapshot: SnapshotFile) -> io::Result<()> {
        let (folder, meta) = (self.folder.clone(), meta.clone());
        let (meta, ledger, snapshot) = blocking(move || {
            let ledger = match snapshot.content {
                Some(ledger) => ledger,
                None => read(&snapshot.path)?.1,
            };
            let snapshot = folder.adopt(&snapshot.path, &meta)?;
            Ok((meta, ledger, snapshot))
        })
        .await?;
        let index = meta.last_log_id.map_or(0, |last| last.index);
        let next = Applied { ledger, last: meta.last_log_id, membership: meta.last_membership.clone() };
        let before = std::mem::replace(&mut *self.applied.write(), next);
        drop(before);
        self.keep(Snapshot { meta, snapshot });
        self.progress.send_replace(index);
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> io::Result<Option<Snapshot>> {
        Ok(self.current.read().clone())
    }
}

impl RaftSnapshotBuilder<TypeConfig> for StateMachine {
    type SnapshotData = SnapshotFile;

    async fn build_snapshot(&mut self) -> io::Result<Snapshot> {
        let (meta, ledger) = self.snapshot_now();
        let folder = self.folder.clone();
        let snapshot = blocking(move || {
            let snapshot = folder.write(&meta, &ledger)?;
            Ok(Snapshot { meta, snapshot })
        })
        .await?;
        self.keep(snapshot.clone());
        Ok(snapshot)
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
}
