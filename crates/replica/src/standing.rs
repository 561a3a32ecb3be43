//! What this folder may do in its cluster. A node whose folder was lost has forgotten what it promised: whom it voted
//! for, which entries it acknowledged. It must not promise anything else before the cluster has counted it out.
//!
//! So a new folder is `New`: it neither votes nor takes entries. It becomes a `Member` when the cluster is formed with it,
//! which happens once and only if all nodes are new. Otherwise the leader removes the node from the cluster by a
//! committed change of membership, and then takes it in again as a learner (Raft thesis, chapter 4). From the removal at
//! `index` on, no quorum counts on what the node had promised before; whoever is elected without that entry in its log
//! is older than `term`. So the node takes entries of `term` or later only, and votes only when it has applied `index`.
//! A node that never was a member comes in the same way, without the removal.

use std::io;
use std::path::{Path, PathBuf};

use parking_lot::RwLock;
use serde::{Deserialize, Serialize};

use crate::durable_file;

const FILE: &str = "standing";

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Standing {
    /// In no cluster, as far as this folder knows.
    New,
    /// Removed by the log entry `index` of `term`, and taken in again.
    Rebuilding {
        term: u64,
        index: u64,
    },
    Member,
    /// Removed from the cluster by an operator: the folder is of no use any more.
    Removed,
}

impl Standing {
    pub fn may_append(self, term: u64) -> bool {
        match self {
            Self::New | Self::Removed => false,
            Self::Rebuilding { term: floor, .. } => term >= floor,
            Self::Member => true,
        }
    }

    /// In elections: for others and for itself.
    pub fn may_vote(self, applied: u64) -> bool {
        match self {
            Self::New | Self::Removed => false,
            Self::Rebuilding { index, .. } => applied >= index,
            Self::Member => true,
        }
    }
}

/// The standing on disk.
#[derive(Debug)]
pub(crate) struct StandingFile {
    path: PathBuf,
    now: RwLock<Standing>,
}

impl StandingFile {
    pub fn open(folder: &Path) -> io::Result<Self> {
        let path = folder.join(FILE);
        let now = durable_file::read(&path)?.unwrap_or(Standing::New);
        Ok(Self { path, now: RwLock::new(now) })
    }

    pub fn get(&self) -> Standing {
        *self.now.read()
    }

    /// Holds from when it is on disk.
    pub fn set(&self, standing: Standing) -> io::Result<()> {
        durable_file::write(&self.path, &standing)?;
        *self.now.write() = standing;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{decode, encode};

    /// A folder of an earlier release is read as it was meant.
    #[test]
    fn its_form_on_disk_stays() {
        for (standing, bytes) in [
            (Standing::New, vec![0]),
            (Standing::Rebuilding { term: 2, index: 7 }, vec![1, 2, 7]),
            (Standing::Member, vec![2]),
            (Standing::Removed, vec![3]),
        ] {
            assert_eq!(encode(&standing).unwrap(), bytes);
            assert_eq!(decode::<Standing>(&bytes).unwrap(), standing);
        }
    }

    #[test]
    fn who_was_removed_promises_nothing() {
        assert!(!Standing::Removed.may_append(u64::MAX) && !Standing::Removed.may_vote(u64::MAX));
    }
}
