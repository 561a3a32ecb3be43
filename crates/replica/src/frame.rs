//! The unit of a durable write: some consecutive entries under one key of sled.
//!
//! Layout: CRC-32 of all that follows (4 bytes, big-endian), first index (8), count (4), then for each entry its length
//! (4) and its bincode. A frame stays below the size at which sled moves values to blob files that it never syncs.

use std::io;

use crate::types::{Entry, decode};

/// sled keeps values up to about 128 KiB inline; measured safe.
pub(crate) const FRAME_MAX_BYTES: usize = 96 * 1024;
const CRC_BYTES: usize = 4;
const HEAD_BYTES: usize = 16;
const LENGTH_BYTES: usize = 4;
/// The largest encoded entry.
pub(crate) const ENTRY_MAX_BYTES: usize = FRAME_MAX_BYTES - HEAD_BYTES - LENGTH_BYTES;

/// Collects encoded entries until the next would not fit.
#[derive(Debug)]
pub(crate) struct FrameBuilder {
    first_index: u64,
    count: u32,
    bytes: Vec<u8>,
}

impl FrameBuilder {
    pub fn new(first_index: u64) -> Self {
        Self { first_index, count: 0, bytes: vec![0; HEAD_BYTES] }
    }

    pub fn next_index(&self) -> u64 {
        self.first_index + u64::from(self.count)
    }

    pub fn fits(&self, entry: &[u8]) -> bool {
        self.count == 0 || self.bytes.len() + LENGTH_BYTES + entry.len() <= FRAME_MAX_BYTES
    }

    pub fn push(&mut self, entry: &[u8]) {
        let length = u32::try_from(entry.len()).unwrap_or(u32::MAX);
        self.bytes.extend_from_slice(&length.to_be_bytes());
        self.bytes.extend_from_slice(entry);
        self.count += 1;
    }

    /// First index and the value to store.
    pub fn finish(mut self) -> (u64, Vec<u8>) {
        self.bytes[CRC_BYTES..12].copy_from_slice(&self.first_index.to_be_bytes());
        self.bytes[12..HEAD_BYTES].copy_from_slice(&self.count.to_be_bytes());
        let crc = crc32fast::hash(&self.bytes[CRC_BYTES..]);
        self.bytes[..CRC_BYTES].copy_from_slice(&crc.to_be_bytes());
        (self.first_index, self.bytes)
    }
}

/// A frame whose checksum was right.
#[derive(Debug)]
pub(crate) struct Frame<'a> {
    pub first_index: u64,
    pub count: u32,
    body: &'a [u8],
}

impl<'a> Frame<'a> {
    /// The frame stored under the key of `first_index`.
    ///
    /// # Errors
    /// `InvalidData` that names the frame.
    pub fn read(first_index: u64, bytes: &'a [u8]) -> io::Result<Self> {
        let wrong = |what: &str| damaged(format!("log frame at index {first_index}: {what}"));
        let (Some(crc), Some(first), Some(count), Some(body)) = (
            bytes.get(..CRC_BYTES),
            bytes.get(CRC_BYTES..12),
            bytes.get(12..HEAD_BYTES),
            bytes.get(HEAD_BYTES..),
        ) else {
            return Err(wrong("it has only part of its head"));
        };
        if crc32fast::hash(&bytes[CRC_BYTES..]).to_be_bytes() != crc {
            return Err(wrong("wrong checksum"));
        }
        if first != first_index.to_be_bytes() {
            return Err(wrong("it is stored in the place of another"));
        }
        let count = u32::from_be_bytes(count.try_into().unwrap_or_default());
        if count == 0 {
            return Err(wrong("it is empty"));
        }
        Ok(Self { first_index, count, body })
    }

    pub fn last_index(&self) -> u64 {
        (self.first_index + u64::from(self.count)).saturating_sub(1)
    }

    /// The encoded entries, in order.
    pub fn encoded(&self) -> io::Result<Vec<&'a [u8]>> {
        let mut rest = self.body;
        let mut entries = Vec::with_capacity(self.count as usize);
        for _ in 0..self.count {
            let (length, after) =
                rest.split_at_checked(LENGTH_BYTES).ok_or_else(|| self.wrong("it ends too early"))?;
            let length = u32::from_be_bytes(length.try_into().unwrap_or_default()) as usize;
            let (entry, after) =
                after.split_at_checked(length).ok_or_else(|| self.wrong("it ends too early"))?;
            entries.push(entry);
            rest = after;
        }
        if !rest.is_empty() {
            return Err(self.wrong("bytes behind its last entry"));
        }
        Ok(entries)
    }

    pub fn entries(&self) -> io::Result<Vec<Entry>> {
        let mut entries = Vec::with_capacity(self.count as usize);
        for (index, encoded) in (self.first_index..).zip(self.encoded()?) {
            let entry: Entry =
                decode(encoded).map_err(|error| self.wrong(&format!("entry {index}: {error}")))?;
            if entry.log_id.index != index {
                return Err(
                    self.wrong(&format!("entry {index} says that it is entry {}", entry.log_id.index))
                );
            }
            entries.push(entry);
        }
        Ok(entries)
    }

    fn wrong(&self, what: &str) -> io::Error {
        damaged(format!("log frame at index {}: {what}", self.first_index))
    }
}

pub(crate) fn damaged(what: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.into())
}
