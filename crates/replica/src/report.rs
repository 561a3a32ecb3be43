//! What a look at the data folder of a stopped node has found. Plain data, for people and programs.

use std::fmt;
use std::path::PathBuf;

use serde::Serialize;

use crate::replica::ReadPoint;

/// See [`crate::check_folder`].
#[derive(Debug, Clone, Default, Serialize)]
pub struct FolderReport {
    pub folder: PathBuf,
    /// Empty, like the next two, if the identity cannot be read.
    pub cluster: String,
    pub node_id: u64,
    pub format: u32,
    /// "new", "rebuilding", "member" or "removed"
    pub standing: String,
    /// The term in which the node voted last.
    pub vote_term: u64,
    pub snapshots: Vec<SnapshotReport>,
    pub log: LogReport,
    /// The ledger as far as the folder knows it to be committed, and at the end of its log; only what could be loaded.
    pub ledgers: Vec<LedgerReport>,
    /// Empty: everything is there and whole.
    pub damage: Vec<Damage>,
}

impl FolderReport {
    pub fn is_sound(&self) -> bool {
        self.damage.is_empty() && self.ledgers.iter().all(|ledger| ledger.violations.is_empty())
    }
}

#[derive(Debug, Clone, Serialize)]
pub struct SnapshotReport {
    pub file: String,
    pub bytes: u64,
    pub point: ReadPoint,
    /// `id address` of each member.
    pub members: Vec<String>,
}

#[derive(Debug, Clone, Default, Serialize)]
pub struct LogReport {
    pub frames: u64,
    pub entries: u64,
    /// Up to here, entries are in a snapshot and may be gone.
    pub purged: ReadPoint,
    /// Known to be committed when that was last written down, which may be half a second before the end.
    pub committed: ReadPoint,
    /// The last entry, purged or not. Of several survivors, the one with the greatest (term, index) has the longest log.
    pub last: ReadPoint,
}

#[derive(Debug, Clone, Serialize)]
pub struct LedgerReport {
    /// "committed" or "end of log"
    pub at: &'static str,
    pub point: ReadPoint,
    pub time_ms: u64,
    pub tenants: u64,
    pub accounts: u64,
    pub open_reservations: u64,
    /// Broken safety properties.
    pub violations: Vec<String>,
}

/// Something that is not as it was written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Damage {
    /// In the folder.
    pub file: String,
    /// The log entry that is concerned, if it is one; `what` names it too.
    pub index: Option<u64>,
    pub what: String,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.file, self.what)
    }
}
