//! How far the log had come: the last entry that was acknowledged, in a small file of its own.
//!
//! sled takes what it cannot read at the end of its file for a write that was cut off, and goes on without it. That is
//! right for what nobody was told of, and wrong for an acknowledged entry whose bytes were damaged later. The mark tells
//! the two apart: it is written after the sync of the entries and before their acknowledgement. It is not synced itself,
//! which would double the cost of an entry: after a loss of power it may be some seconds old, and then demands less.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use crate::frame::damaged;
use crate::types::{LogId, decode, encode};

pub(crate) const FILE: &str = "end";
/// Within one sector: written as a whole or not at all.
const BLOCK_BYTES: usize = 64;
const CRC_BYTES: usize = 4;

type Block = [u8; BLOCK_BYTES];

#[derive(Debug)]
pub(crate) struct EndMark {
    file: File,
    marked: Option<LogId>,
}

impl EndMark {
    /// `None`: there is none. Folders of earlier releases have none, and get it when they are opened.
    ///
    /// # Errors
    /// `InvalidData` that names the file.
    pub fn read(folder: &Path) -> io::Result<Option<Option<LogId>>> {
        match std::fs::read(folder.join(FILE)) {
            Ok(bytes) => {
                parse(&bytes).map(Some).ok_or_else(|| damaged(format!("file {FILE:?} cannot be read")))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Opens the mark of a log that ends at `last`, making it if need be.
    pub fn open(folder: &Path, last: Option<LogId>) -> io::Result<Self> {
        let path = folder.join(FILE);
        if !path.exists() {
            let partial = path.with_extension("partial");
            let file = File::create(&partial)?;
            file.write_all_at(&block(last)?, 0)?;
            file.sync_all()?;
            crate::durable_file::rename(&partial, &path)?;
        }
        let file = File::options().write(true).open(path)?;
        let mut mark = Self { file, marked: None };
        mark.write(last)?;
        Ok(mark)
    }

    /// The log ends at `last`, on disk.
    pub fn advance(&mut self, last: Option<LogId>) -> io::Result<()> {
        if self.marked == last { Ok(()) } else { self.write(last) }
    }

    /// The entries behind `keep` are about to be dropped: the mark goes first, and to the disk.
    pub fn retreat(&mut self, keep: Option<LogId>) -> io::Result<()> {
        if self.marked <= keep {
            return Ok(());
        }
        self.write(keep)?;
        self.file.sync_data()
    }

    fn write(&mut self, last: Option<LogId>) -> io::Result<()> {
        self.file.write_all_at(&block(last)?, 0)?;
        self.marked = last;
        Ok(())
    }
}

/// The length of the log id, the log id, zeros, CRC-32 of all before.
fn block(last: Option<LogId>) -> io::Result<Block> {
    let bytes = encode(&last)?;
    let length = u8::try_from(bytes.len()).map_err(io::Error::other)?;
    let mut block = [0; BLOCK_BYTES];
    block[0] = length;
    let place = block.get_mut(1..=bytes.len()).ok_or_else(|| io::Error::other("a log id of that size"))?;
    place.copy_from_slice(&bytes);
    let crc = crc32fast::hash(&block[..BLOCK_BYTES - CRC_BYTES]);
    block[BLOCK_BYTES - CRC_BYTES..].copy_from_slice(&crc.to_be_bytes());
    Ok(block)
}

fn parse(bytes: &[u8]) -> Option<Option<LogId>> {
    let block: &Block = bytes.try_into().ok()?;
    let (body, crc) = block.split_last_chunk::<CRC_BYTES>()?;
    if crc32fast::hash(body).to_be_bytes() != *crc {
        return None;
    }
    let (length, rest) = body.split_first()?;
    decode(rest.get(..usize::from(*length))?).ok()
}
