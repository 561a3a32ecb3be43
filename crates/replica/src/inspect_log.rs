//! The log of a stopped node as it lies on disk: every frame, and whether they follow each other. Goes on after what is
//! damaged, to name all of it.

use std::io;
use std::path::Path;

use openraft::EntryPayload;
use quorate_ledger::Ledger;

use crate::disk::{Keys, VOTE_COPY, check_end, check_vote, get, open_db, sled_error};
use crate::durable_file;
use crate::end_mark::EndMark;
use crate::frame::Frame;
use crate::inspect::point;
use crate::open::GROUP;
use crate::report::LogReport;
use crate::types::{Batch, LogId, Vote};

/// Bytes of entries that are held in memory are those of the log: it is purged behind every snapshot.
#[derive(Debug, Default)]
pub(crate) struct FoundLog {
    pub report: LogReport,
    pub vote_term: u64,
    pub purged: Option<LogId>,
    pub last: Option<LogId>,
    /// In order, up to the first that is damaged or missing.
    pub entries: Vec<FoundEntry>,
    /// Index of the entry concerned, and what is wrong.
    pub damage: Vec<(Option<u64>, String)>,
}

#[derive(Debug)]
pub(crate) struct FoundEntry {
    pub log_id: LogId,
    batch: Option<Batch>,
}

impl FoundEntry {
    /// # Errors
    /// The commands in it cannot be read.
    pub fn apply(&self, ledger: &mut Ledger) -> io::Result<()> {
        if let Some(batch) = &self.batch {
            let commands = batch.commands()?;
            commands.commands.iter().for_each(|command| drop(ledger.apply(commands.at, command)));
        }
        Ok(())
    }
}

impl FoundLog {
    /// Damage is taken down; what the operating system says is an error.
    fn sift(&mut self, index: Option<u64>, checked: io::Result<()>) -> io::Result<()> {
        match checked {
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                self.damage.push((index, error.to_string()));
                Ok(())
            }
            checked => checked,
        }
    }

    /// Index of the first entry that is there.
    pub fn start(&self) -> u64 {
        let after_purged = self.purged.map_or(0, |purged| purged.index + 1);
        self.entries.first().map_or(after_purged, |entry| entry.log_id.index)
    }
}

/// `folder` is a copy: sled changes it.
pub(crate) fn read_log(folder: &Path) -> io::Result<FoundLog> {
    let keys = Keys { group: GROUP };
    let db = open_db(folder)?;
    let mut found = FoundLog::default();
    let vote: Option<Vote> = get(&db, keys.vote(), "vote")?;
    let committed = get::<Option<LogId>>(&db, keys.committed(), "committed")?.flatten();
    found.vote_term = vote.map_or(0, |vote| vote.leader_id.term);
    found.purged = get(&db, keys.purged(), "purged")?;
    found.last = found.purged;
    found.report.purged = point(found.purged);
    found.report.committed = point(committed);
    read_frames(&db, keys, &mut found)?;
    found.report.last = point(found.last);
    let vote_copy = durable_file::read(&folder.join(VOTE_COPY));
    found.sift(None, vote_copy.and_then(|copy| check_vote(vote.as_ref(), copy.as_ref())))?;
    let mark = EndMark::read(folder);
    let missing = found.last.map_or(0, |last| last.index + 1);
    let missing = mark.as_ref().ok().map(|_| missing);
    found.sift(missing, mark.and_then(|mark| check_end(found.last, mark.flatten())))?;
    Ok(found)
}

fn read_frames(db: &sled::Db, keys: Keys, found: &mut FoundLog) -> io::Result<()> {
    // Where the first frame may begin at the latest: one that straddles the bound begins before it.
    let start = found.purged.map_or(0, |purged| purged.index + 1);
    let mut next = None;
    let mut broken = false;
    for item in db.range(keys.frame(0)..=keys.frame(u64::MAX)) {
        let (key, value) = item.map_err(sled_error)?;
        let index = keys.frame_index(&key).unwrap_or(u64::MAX);
        found.report.frames += 1;
        if found.report.frames == 1 && index > start {
            let what = format!("log entry {start} is missing, the first frame is at index {index}");
            found.damage.push((Some(start), what));
        }
        if let Some(missing) = next.filter(|expected| *expected != index) {
            let what = format!("log entry {missing} is missing, the next frame is at index {index}");
            found.damage.push((Some(missing), what));
            broken = true;
        }
        let entries = match Frame::read(index, &value).and_then(|frame| frame.entries()) {
            Ok(entries) => entries,
            Err(error) => {
                found.damage.push((Some(index), error.to_string()));
                (next, broken) = (None, true);
                continue;
            }
        };
        found.report.entries += entries.len() as u64;
        if let Some(last) = entries.last() {
            found.last = Some(last.log_id);
            next = Some(last.log_id.index + 1);
        }
        if !broken {
            found.entries.extend(entries.into_iter().map(|entry| FoundEntry {
                log_id: entry.log_id,
                batch: match entry.payload {
                    EntryPayload::Normal(batch) => Some(batch),
                    EntryPayload::Blank | EntryPayload::Membership(_) => None,
                },
            }));
        }
    }
    Ok(())
}
