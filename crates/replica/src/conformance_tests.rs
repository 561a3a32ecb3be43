//! openraft's own storage suite, against the store as it is.

use openraft::StorageError;
use openraft::testing::log::{StoreBuilder, Suite};

use crate::log_store::LogStore;
use crate::snapshot::SnapshotFolder;
use crate::state_machine::StateMachine;
use crate::types::TypeConfig;

struct OnDisk;

impl StoreBuilder<TypeConfig, LogStore, StateMachine, tempfile::TempDir> for OnDisk {
    async fn build(&self) -> Result<(tempfile::TempDir, LogStore, StateMachine), StorageError<TypeConfig>> {
        let folder = tempfile::tempdir().unwrap();
        let log = LogStore::open(&folder.path().join("log"), 0).unwrap();
        let snapshots = SnapshotFolder::open(folder.path().join("snapshots")).unwrap();
        Ok((folder, log, StateMachine::open(snapshots).unwrap()))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn openrafts_storage_suite_passes() {
    Suite::test_all(OnDisk).await.unwrap();
}
