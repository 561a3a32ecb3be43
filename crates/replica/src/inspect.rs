//! A look at the data folder of a stopped node, which changes nothing in it: every part is checked, the newest snapshot
//! loaded, the log applied. sled writes when it opens: it is given a copy of the log.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use quorate_ledger::{Ledger, invariant};

use crate::durable_file;
use crate::error::OpenError;
use crate::frame::damaged;
use crate::identity::{self, Identity};
use crate::inspect_log::{FoundLog, read_log};
use crate::replica::ReadPoint;
use crate::report::{Damage, FolderReport, LedgerReport, SnapshotReport};
use crate::snapshot::{self, SnapshotFolder};
use crate::standing::Standing;
use crate::types::{LogId, SnapshotMeta};

/// The ledger at the end of the log.
#[derive(Debug)]
pub(crate) struct Content {
    pub log_id: LogId,
    pub ledger: Ledger,
}

/// Checks everything in the data folder of a stopped node, and changes nothing in it. What is wrong stands in the report.
/// Blocking; needs room for a copy of the log in the folder for temporary files.
///
/// # Errors
/// There is no data folder, a process has it open, it is of another release, or the operating system cannot read it.
pub fn check_folder(folder: &Path) -> Result<FolderReport, OpenError> {
    read(folder).map(|(report, _)| report)
}

pub(crate) fn read(folder: &Path) -> Result<(FolderReport, Option<Content>), OpenError> {
    let io = |error: io::Error| OpenError::io(folder, error);
    let _lock = identity::lock_shared(folder)?;
    let mut look = Look::new(folder);
    let parts = ["identity", "standing", "log", "snapshots"];
    if !parts.iter().any(|part| folder.join(part).exists()) {
        let what = io::Error::new(io::ErrorKind::NotFound, "it is no data folder of a node");
        return Err(io(what));
    }
    look.identity()?;
    look.standing().map_err(io)?;
    let newest = look.snapshots().map_err(io)?;
    let log = look.log().map_err(io)?;
    let content = log.and_then(|log| look.ledgers(newest, &log));
    Ok((look.report, content))
}

struct Look<'a> {
    folder: &'a Path,
    report: FolderReport,
}

type Newest = Option<(SnapshotMeta, Ledger)>;

impl<'a> Look<'a> {
    fn new(folder: &'a Path) -> Self {
        Self { folder, report: FolderReport { folder: folder.to_owned(), ..FolderReport::default() } }
    }

    fn damage(&mut self, file: &str, index: Option<u64>, what: impl Into<String>) {
        self.report.damage.push(Damage { file: file.to_owned(), index, what: what.into() });
    }

    /// Damage goes into the report; what the operating system says is an error.
    fn sift<T>(&mut self, file: &str, read: io::Result<T>) -> io::Result<Option<T>> {
        match read {
            Ok(value) => Ok(Some(value)),
            // Not of the operating system: somebody has read it, and does not understand it.
            Err(error) if error.raw_os_error().is_none() => {
                self.damage(file, None, error.to_string());
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    fn identity(&mut self) -> Result<(), OpenError> {
        let read = Identity::of(self.folder);
        let read = self.sift("identity", read).map_err(|error| OpenError::io(self.folder, error))?;
        match read {
            Some(Some(identity)) => {
                identity.check_format(self.folder)?;
                self.report.cluster = identity.cluster;
                self.report.node_id = identity.node_id;
                self.report.format = identity.format;
            }
            Some(None) => self.damage("identity", None, "it is missing"),
            None => {}
        }
        Ok(())
    }

    fn standing(&mut self) -> io::Result<()> {
        let read = durable_file::read::<Standing>(&self.folder.join("standing"));
        let standing = self.sift("standing", read)?.map(|found| found.unwrap_or(Standing::New));
        self.report.standing = match standing {
            None => "",
            Some(Standing::New) => "new",
            Some(Standing::Rebuilding { .. }) => "rebuilding",
            Some(Standing::Member) => "member",
            Some(Standing::Removed) => "removed",
        }
        .to_owned();
        Ok(())
    }

    /// The newest one, if it is whole.
    fn snapshots(&mut self) -> io::Result<Newest> {
        let mut newest = None;
        for path in SnapshotFolder::files(&self.folder.join("snapshots"))? {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let named = format!("snapshot {name}: ");
            let read = caught(|| snapshot::read(&path)).map_err(|error| match error.to_string() {
                // The report names the file already.
                text if text.starts_with(&named) => damaged(&text[named.len()..]),
                _ => error,
            });
            newest = self.sift(&format!("snapshots/{name}"), read)?;
            if let Some((meta, _)) = &newest {
                let nodes = meta.last_membership.membership().nodes();
                self.report.snapshots.push(SnapshotReport {
                    file: name,
                    bytes: fs::metadata(&path)?.len(),
                    point: point(meta.last_log_id),
                    members: nodes.map(|(id, node)| format!("{id} {}", node.addr)).collect(),
                });
            }
        }
        Ok(newest)
    }

    fn log(&mut self) -> io::Result<Option<FoundLog>> {
        let log = self.folder.join("log");
        if !log.join("db").exists() {
            self.damage("log", None, "it is missing");
            return Ok(None);
        }
        let copy = Copied::of(&log)?;
        let read = caught(|| read_log(&copy.path));
        let Some(found) = self.sift("log", read)? else { return Ok(None) };
        self.report.vote_term = found.vote_term;
        self.report.log = found.report.clone();
        for (index, what) in &found.damage {
            self.damage("log", *index, what);
        }
        if self.report.standing == "new" && found.last.is_some() {
            self.damage("standing", None, "it is missing");
        }
        Ok(Some(found))
    }

    /// Loads, applies, and checks the ledger at both points.
    fn ledgers(&mut self, newest: Newest, log: &FoundLog) -> Option<Content> {
        let (at, mut ledger) = match newest {
            Some((meta, ledger)) => (meta.last_log_id, ledger),
            None if self.report.damage.iter().any(|damage| damage.file.starts_with("snapshots")) => {
                return None;
            }
            None => (None, Ledger::default()),
        };
        let (mut at, mut next) = (at, at.map_or(0, |at| at.index + 1));
        let start = log.start();
        if log.purged > at || log.last > at && start > next {
            let start = start.max(log.purged.map_or(0, |purged| purged.index + 1));
            let what = format!("the log starts at index {start}, but the newest snapshot ends before {next}");
            self.damage("log", Some(next), what);
        }
        // What is in a snapshot is committed, whatever the log has noted down.
        let committed = log.report.committed.max(point(at));
        self.report.log.committed = committed;
        let committed = committed.index;
        if at.is_some_and(|at| at.index >= committed) {
            self.ledger("committed", at, &ledger);
        }
        for entry in &log.entries {
            if entry.log_id.index < next {
                continue;
            }
            if entry.log_id.index > next {
                break;
            }
            if let Err(error) = entry.apply(&mut ledger) {
                self.damage("log", Some(next), error.to_string());
                break;
            }
            (at, next) = (Some(entry.log_id), next + 1);
            if entry.log_id.index == committed {
                self.ledger("committed", at, &ledger);
            }
        }
        self.ledger("end of log", at, &ledger);
        at.map(|log_id| Content { log_id, ledger })
    }

    fn ledger(&mut self, name: &'static str, at: Option<LogId>, ledger: &Ledger) {
        let violations = invariant::check(ledger).into_iter();
        let mut report = LedgerReport {
            at: name,
            point: point(at),
            time_ms: ledger.time().0,
            tenants: 0,
            accounts: 0,
            open_reservations: 0,
            violations: violations.map(|broken| format!("{}: {}", broken.property, broken.detail)).collect(),
        };
        for tenant in ledger.tenants("") {
            report.tenants += 1;
            report.accounts += tenant.accounts;
            report.open_reservations += tenant.open_reservations;
        }
        self.report.ledgers.push(report);
    }
}

pub(crate) fn point(log_id: Option<LogId>) -> ReadPoint {
    log_id.map_or_else(ReadPoint::default, |log_id| ReadPoint {
        term: log_id.committed_leader_id().term,
        index: log_id.index,
    })
}

/// sled has assertions, and may panic on what it does not expect to find.
fn caught<T>(read: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    catch_unwind(AssertUnwindSafe(read)).unwrap_or_else(|_| Err(damaged("it cannot be read at all")))
}

/// A copy that goes with this value.
struct Copied {
    path: PathBuf,
}

impl Copied {
    fn of(folder: &Path) -> io::Result<Self> {
        let name = format!("quorate-check-{}", uuid::Uuid::new_v4());
        let copied = Self { path: std::env::temp_dir().join(name) };
        copy(folder, &copied.path)?;
        Ok(copied)
    }
}

impl Drop for Copied {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.path);
    }
}

/// With the folders in it, of which sled makes one.
fn copy(from: &Path, to: &Path) -> io::Result<()> {
    // It holds what a backup holds, in a folder that everybody can look into.
    DirBuilder::new().mode(0o700).create(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &target)?;
        } else {
            io::copy(&mut File::open(entry.path())?, &mut File::create(target)?)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn nobody_else_reads_the_copy() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("blobs")).unwrap();
        let copied = Copied::of(folder.path()).unwrap();
        for path in [copied.path.clone(), copied.path.join("blobs")] {
            assert_eq!(fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o700);
        }
    }
}
